/**
 * A whole device behind a scripted peer: regions that are plain memory, and answers to all that opening asks. A spec may
 * twist any answer before it goes out, and hears what was asked. Answers are held back until the client has nothing more
 * to say, so that `roundTrips` counts what a client has to wait for one after the other.
 */
import { native } from '../../lib/native.js';
import { ScriptedPeer, message, words, type Received } from './scripted-peer.js';

const VERSION = 1;
const GET_INFO = 4;
const GET_REGION_INFO = 5;
const GET_IRQ_INFO = 7;
const REGION_READ = 9;
const REGION_WRITE = 10;
const FLAG_CAPS = 8;
const REPLY = 1;
const INVALID = 22;

export interface ScriptedRegion {
  size: number;
  /** VFIO_REGION_INFO_FLAG_* bits; default readable and writable. */
  flags?: number;
  /** Where the region begins in its fd. */
  offset?: number;
  /** What is read and written; zeroes where it is not given. */
  bytes?: Buffer;
  /** Does what a write does instead of storing it. */
  write?: (offset: number, data: Buffer) => void;
  /** The capability chain, which begins at offset 32. */
  capabilities?: Uint8Array;
  /** They go with every answer, and stay the spec's. */
  fds?: readonly number[];
}

export interface ScriptedDeviceOptions {
  /** VFIO_DEVICE_FLAGS; default PCI and RESET. */
  flags?: number;
  minor?: number;
  capabilities?: object;
  /** By index; nine are there, those not given are of size 0. */
  regions?: Record<number, ScriptedRegion>;
  /** How many regions GET_INFO says there are. */
  numRegions?: number;
  irqs?: readonly { count: number; flags?: number }[];
}

/** An answer as it would go out. */
export interface Answer {
  bytes: Buffer;
  fds: readonly number[];
}

/** Gives what goes out instead; nothing for no answer at all. */
export type Twist = (asked: Received, answer: Answer, device: ScriptedDevice) => Answer | undefined;

export class ScriptedDevice {
  readonly peer = new ScriptedPeer();
  /** All that came, in order. */
  readonly log: Received[] = [];
  roundTrips = 0;
  twist: Twist | undefined;
  readonly #options: ScriptedDeviceOptions;
  #held: Answer[] = [];
  #quiet: NodeJS.Immediate | undefined;

  constructor(options: ScriptedDeviceOptions = {}) {
    this.#options = options;
    this.peer.onMessage((asked) => this.#take(asked));
  }

  /** What `connect` takes. */
  get endpoint(): { fd: number } {
    return { fd: this.peer.clientFd };
  }

  /** How often each command came. */
  count(command: number): number {
    return this.log.filter((asked) => asked.command === command).length;
  }

  /** The accesses of a region so far, in order, which are then forgotten: `read 0x4+2`. */
  takeAccesses(region: number): string[] {
    const accesses = this.log
      .filter(({ command }) => command === REGION_READ || command === REGION_WRITE)
      .filter(({ payload }) => payload.readUInt32LE(8) === region)
      .map(({ command, payload }) => {
        const verb = command === REGION_READ ? 'read' : 'write';
        return `${verb} 0x${payload.readBigUInt64LE(0).toString(16)}+${payload.readUInt32LE(12)}`;
      });
    this.log.length = 0;
    return accesses;
  }

  /** The memory of a region, as far as it was given. */
  bytes(region: number): Buffer {
    return this.#options.regions![region]!.bytes!;
  }

  close(): void {
    clearImmediate(this.#quiet);
    this.#held = [];
    this.peer.close();
  }

  #take(asked: Received): void {
    for (const fd of asked.fds) native().closeFd(fd);
    if (this.peer.ended) return;
    this.log.push(asked);
    // What the client answers to the spec's own commands wants nothing more.
    if ((asked.flags & REPLY) !== 0) return;
    const answer = this.#answer(asked);
    const twisted = this.twist === undefined ? answer : this.twist(asked, answer, this);
    if (twisted !== undefined) this.#held.push(twisted);
    if (this.#quiet === undefined) this.#waitForQuiet();
  }

  /** Whatever the client sends without waiting for an answer is here after a turn of the loop. */
  #waitForQuiet(): void {
    const before = this.log.length;
    this.#quiet = setImmediate(() => {
      if (this.log.length !== before) {
        this.#waitForQuiet();
        return;
      }
      this.#quiet = undefined;
      this.roundTrips++;
      void this.#release(this.#held.splice(0));
    });
  }

  /** Sends answers as fast as the client takes them. */
  async #release(answers: Answer[]): Promise<void> {
    for (const { bytes, fds } of answers) {
      if (this.peer.ended) return;
      if (fds.length > 0) this.peer.send(bytes, fds);
      else await this.peer.sendAll(bytes).catch(() => undefined);
    }
  }

  #answer(asked: Received): Answer {
    const { payload } = asked;
    const good = (body: Uint8Array, fds: readonly number[] = []): Answer => ({
      bytes: message(asked.id, asked.command, 1, 0, body),
      fds,
    });
    switch (asked.command) {
      case VERSION:
        return good(this.#version());
      case GET_INFO:
        return good(this.#info());
      case GET_REGION_INFO: {
        const index = payload.readUInt32LE(8);
        return good(this.#regionInfo(index, payload.readUInt32LE(0)), this.#region(index).fds ?? []);
      }
      case GET_IRQ_INFO: {
        const index = payload.readUInt32LE(8);
        const { count = 0, flags = 1 } = this.#options.irqs?.[index] ?? {};
        return good(words(16, flags, index, count));
      }
      case REGION_READ:
      case REGION_WRITE:
        return this.#access(asked, good);
      default:
        return good(Buffer.alloc(0));
    }
  }

  #version(): Buffer {
    const { minor = 1, capabilities = {} } = this.#options;
    const json = Buffer.from(`${JSON.stringify({ capabilities })}\0`);
    return Buffer.concat([Buffer.from([0, 0, minor, 0]), json]);
  }

  #info(): Buffer {
    const { flags = 3, numRegions = 9, irqs = [] } = this.#options;
    return words(16, flags, numRegions, irqs.length);
  }

  #region(index: number): ScriptedRegion {
    return this.#options.regions?.[index] ?? { size: 0, flags: 0 };
  }

  #regionInfo(index: number, argsz: number): Buffer {
    const { size, flags = 3, offset = 0, capabilities = Buffer.alloc(0) } = this.#region(index);
    const needed = 32 + capabilities.byteLength;
    const fits = capabilities.byteLength > 0 && needed <= argsz;
    const fixed = words(
      needed,
      fits ? flags | FLAG_CAPS : flags,
      index,
      fits ? 32 : 0,
      [BigInt(size)],
      [BigInt(offset)],
    );
    return fits ? Buffer.concat([fixed, capabilities]) : fixed;
  }

  #access(asked: Received, good: (body: Uint8Array) => Answer): Answer {
    const { payload, command } = asked;
    const offset = Number(payload.readBigUInt64LE(0));
    const { size, bytes, write } = this.#region(payload.readUInt32LE(8));
    const count = payload.readUInt32LE(12);
    if (offset + count > size) {
      return { bytes: message(asked.id, command, 0x21, INVALID, Buffer.alloc(0)), fds: [] };
    }
    const head = payload.subarray(0, 16);
    if (command === REGION_WRITE) {
      if (write !== undefined) write(offset, payload.subarray(16));
      else if (bytes !== undefined) payload.copy(bytes, offset, 16);
      return good(head);
    }
    return good(Buffer.concat([head, bytes?.subarray(offset, offset + count) ?? Buffer.alloc(count)]));
  }
}
