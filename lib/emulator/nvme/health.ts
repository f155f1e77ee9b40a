/** What the controller counts, and the log pages made of it (section 5.16.1). */
import { DO_NOT_RETRY } from './constants.js';
import { ERROR_LOG_ENTRIES } from './identify-data.js';
import type { Completion } from './rings.js';
import type { Sqe } from './sqe.js';

/** A data unit: a thousand of 512 bytes. */
const DATA_UNIT = 512_000n;
const ERROR_ENTRY = 64;
const LOG_SIZE = 512;
/** Kelvin: 38 °C. */
const TEMPERATURE = 311;

export class Health {
  bytesRead = 0n;
  bytesWritten = 0n;
  readCommands = 0n;
  writeCommands = 0n;
  readonly #since = Date.now();
  /** Newest first. */
  readonly #errors: Buffer[] = [];
  #errorCount = 0n;

  /** A command was completed with an error. */
  recordError({ sq, cid, status }: Completion, sqe: Sqe): void {
    const entry = Buffer.alloc(ERROR_ENTRY);
    entry.writeBigUInt64LE(++this.#errorCount, 0);
    entry.writeUInt16LE(sq.id, 8);
    entry.writeUInt16LE(cid, 10);
    entry.writeUInt16LE((status & (DO_NOT_RETRY | 0x7ff)) << 1, 12);
    entry.writeUInt16LE(0xffff, 14);
    if (sq.id !== 0) {
      entry.writeUInt32LE(sqe.cdw10, 16);
      entry.writeUInt32LE(sqe.cdw11, 20);
    }
    entry.writeUInt32LE(sqe.nsid, 24);
    this.#errors.unshift(entry);
    this.#errors.length = Math.min(this.#errors.length, ERROR_LOG_ENTRIES);
  }

  errorLog(): Buffer {
    const bytes = Buffer.alloc(ERROR_LOG_ENTRIES * ERROR_ENTRY);
    for (const [i, entry] of this.#errors.entries()) entry.copy(bytes, i * ERROR_ENTRY);
    return bytes;
  }

  smartLog(): Buffer {
    const bytes = Buffer.alloc(LOG_SIZE);
    bytes.writeUInt16LE(TEMPERATURE, 1);
    // Spare blocks: all there are, and the level at which to warn.
    bytes[3] = 100;
    bytes[4] = 10;
    bytes.writeBigUInt64LE((this.bytesRead + DATA_UNIT - 1n) / DATA_UNIT, 32);
    bytes.writeBigUInt64LE((this.bytesWritten + DATA_UNIT - 1n) / DATA_UNIT, 48);
    bytes.writeBigUInt64LE(this.readCommands, 64);
    bytes.writeBigUInt64LE(this.writeCommands, 80);
    bytes.writeBigUInt64LE(1n, 112);
    bytes.writeBigUInt64LE(BigInt(Math.floor((Date.now() - this.#since) / 3_600_000)), 128);
    bytes.writeBigUInt64LE(this.#errorCount, 176);
    bytes.writeUInt16LE(TEMPERATURE, 200);
    return bytes;
  }

  /** One slot, which is the one that runs. */
  firmwareLog(revision: string): Buffer {
    const bytes = Buffer.alloc(LOG_SIZE);
    bytes[0] = 1;
    bytes.write(revision.slice(0, 8).padEnd(8), 8, 8, 'latin1');
    return bytes;
  }
}
