/** A logical unit of a SCSI host: what it is, and its blocks. */
import { Transfer } from '../commands/command.js';
import { outOfRange } from '../fields.js';
import { DmaBuffer, ProtocolError, TimeoutError, type CallOptions } from '../index.js';
import * as option from '../options.js';
import {
  inquiryCdb,
  readCapacity10Cdb,
  readCapacity16Cdb,
  synchronizeCacheCdb,
  TEST_UNIT_READY_CDB,
  transferCdb,
} from './scsi-cdb.js';
import {
  decodeCapacity10,
  decodeCapacity16,
  decodeDesignators,
  decodeInquiry,
  decodePage,
  type ScsiCapacity,
  type ScsiDesignator,
  type ScsiInquiry,
} from './scsi-data.js';
import { ScsiError } from './scsi-error.js';
import type { ScsiAddress, ScsiHost } from './scsi-host.js';
import { SCSI_TRANSFER_OPTIONS, type ScsiData, type ScsiTransferOptions } from './scsi-options.js';
import { SenseKey } from './scsi-sense.js';
import { bytesOf, callOptions, partsOf, sizeOf } from './transfer-data.js';

const INQUIRY_BYTES = 255;
const PAGE_BYTES = 1024;
const CAPACITY_10_BYTES = 8;
const CAPACITY_16_BYTES = 32;
/** A unit says once of each thing that happened to it that it did, instead of carrying out a command. */
const MOST_ATTENTIONS = 8;
const CAPACITY_CHANGED = { asc: 0x2a, ascq: 0x09 };

/**
 * A logical unit of a SCSI host (SPC-4, SBC-3). Its unit attentions (a reset, a new capacity) are taken note of, and the command that
 * got one instead of being carried out is sent again.
 * @example
 * ```ts
 * const unit = scsi.unit(0);
 * const { blocks, blockSize } = await unit.capacity();
 * await unit.write(0, Buffer.alloc(blockSize, 1));
 * console.log((await unit.inquiry()).product, blocks, await unit.read(0, 1));
 * ```
 */
export class ScsiUnit {
  /** The target, 0 to 255. */
  readonly target: number;
  /** The logical unit number, 0 to 16,383. */
  readonly lun: number;
  readonly #host: ScsiHost;
  readonly #retries: number;
  #capacity: ScsiCapacity | undefined;

  /** @internal */
  constructor(host: ScsiHost, { target, lun }: ScsiAddress, retries: number) {
    this.#host = host;
    this.target = target;
    this.lun = lun;
    this.#retries = retries;
  }

  /** @internal Its capacity may not be what it was. */
  forgetCapacity(): void {
    this.#capacity = undefined;
  }

  /**
   * INQUIRY, standard data.
   * @throws ScsiError; VirtioStatusError where there is no such target (BAD_TARGET); ProtocolError for data that makes no sense;
   * TimeoutError, VirtioResetError, VirtioDeviceError, ClosedError; the signal's reason.
   */
  async inquiry(options?: CallOptions): Promise<ScsiInquiry> {
    option.CALL_OPTIONS.check('ScsiUnit.inquiry', options);
    return decodeInquiry(
      await this.#ask('INQUIRY', inquiryCdb(undefined, INQUIRY_BYTES), INQUIRY_BYTES, options),
    );
  }

  /** Vital product data page 0x00: the pages that the unit has. @throws as `inquiry`. */
  async pages(options?: CallOptions): Promise<number[]> {
    return [...(await this.#page('ScsiUnit.pages', 0x00, options))];
  }

  /** Vital product data page 0x80: the serial number. @throws as `inquiry`. */
  async serialNumber(options?: CallOptions): Promise<string> {
    return (await this.#page('ScsiUnit.serialNumber', 0x80, options)).toString('latin1').trim();
  }

  /** Vital product data page 0x83: what names the unit, its port and its device. @throws as `inquiry`. */
  async designators(options?: CallOptions): Promise<ScsiDesignator[]> {
    return decodeDesignators(await this.#page('ScsiUnit.designators', 0x83, options));
  }

  /** TEST UNIT READY. @throws as `inquiry`; ScsiError NOT_READY where it is not. */
  async testReady(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('ScsiUnit.testReady', options);
    await this.#ask('TEST UNIT READY', TEST_UNIT_READY_CDB, 0, options);
  }

  /** READ CAPACITY(10), and (16) where the unit is too large for that. It is asked each time. @throws as `inquiry`. */
  async capacity(options?: CallOptions): Promise<ScsiCapacity> {
    option.CALL_OPTIONS.check('ScsiUnit.capacity', options);
    const short = await this.#ask('READ CAPACITY(10)', readCapacity10Cdb(), CAPACITY_10_BYTES, options);
    const capacity = decodeCapacity10(short) ?? (await this.#longCapacity(options));
    this.#capacity = capacity;
    return capacity;
  }

  /**
   * Reads blocks into a new Buffer, with as many READs as the limits of the host make it.
   * @param lba - the first block, from 0
   * @param blocks - how many, from 1
   * @throws as `inquiry`; RangeError for blocks that the unit does not have.
   */
  async read(lba: number, blocks: number, options?: CallOptions): Promise<Buffer> {
    option.CALL_OPTIONS.check('ScsiUnit.read', options);
    const { blockSize } = await this.#blocksOf(lba, blocks, options);
    const into = Buffer.allocUnsafe(blocks * blockSize);
    await this.#move('READ', lba, into, { ...options, blocks });
    return into;
  }

  /** Reads blocks into a DMA buffer, a Buffer or a Uint8Array, which must not be used before the promise settles. @throws as `read`. */
  async readInto(lba: number, data: ScsiData, options: ScsiTransferOptions = {}): Promise<void> {
    SCSI_TRANSFER_OPTIONS.check('ScsiUnit.readInto', options);
    await this.#move('READ', lba, data, options);
  }

  /** Writes `data` from `lba` on. It must not be changed before the promise settles. @throws as `read`; ScsiError DATA_PROTECT. */
  async write(lba: number, data: ScsiData, options: ScsiTransferOptions = {}): Promise<void> {
    SCSI_TRANSFER_OPTIONS.check('ScsiUnit.write', options);
    await this.#move('WRITE', lba, data, options);
  }

  /** SYNCHRONIZE CACHE: what was written is durable then. @throws as `inquiry`. */
  async synchronizeCache(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('ScsiUnit.synchronizeCache', options);
    await this.#ask('SYNCHRONIZE CACHE', synchronizeCacheCdb(), 0, options);
  }

  /** The data of a command that has no other effect. */
  #ask(name: string, cdb: Buffer, bytes: number, options: CallOptions | undefined): Promise<Buffer> {
    return this.#attended(name, options, async (call) => {
      const data = Buffer.alloc(bytes);
      const request = this.#host.request(name, this, cdb, this.#retries);
      if (bytes > 0) request.through(data, false);
      await this.#host.nextQueue().commands.execute<void>(request, call);
      return data.subarray(0, bytes - request.residual);
    });
  }

  async #page(caller: string, page: number, options: CallOptions | undefined): Promise<Buffer> {
    option.CALL_OPTIONS.check(caller, options);
    return decodePage(await this.#ask('INQUIRY', inquiryCdb(page, PAGE_BYTES), PAGE_BYTES, options), page);
  }

  async #longCapacity(options: CallOptions | undefined): Promise<ScsiCapacity> {
    const cdb = readCapacity16Cdb(CAPACITY_16_BYTES);
    return decodeCapacity16(await this.#ask('READ CAPACITY(16)', cdb, CAPACITY_16_BYTES, options));
  }

  /** @throws RangeError for blocks that are not there. */
  async #blocksOf(lba: number, count: number, options: CallOptions | undefined): Promise<ScsiCapacity> {
    const capacity = this.#capacity ?? (await this.capacity(callOptions(options)));
    const isThere =
      Number.isSafeInteger(lba) &&
      Number.isSafeInteger(count) &&
      lba >= 0 &&
      count > 0 &&
      lba + count <= capacity.blocks;
    if (isThere) return capacity;
    throw outOfRange(
      `lba ${String(lba)} and ${String(count)} blocks are not within the unit's ${capacity.blocks} blocks`,
    );
  }

  /** Cut into commands; sent again where a unit attention came in its place. */
  async #move(
    name: 'READ' | 'WRITE',
    lba: number,
    data: ScsiData,
    options: ScsiTransferOptions,
  ): Promise<void> {
    const size = sizeOf(data);
    const { offset = 0, blocks } = options;
    await this.#attended(name, callOptions(options), async (call) => {
      const { blockSize } = this.#capacity ?? (await this.capacity(call));
      const held = (size - offset) / blockSize;
      const count = blocks ?? held;
      if (count > held)
        throw outOfRange(
          `blocks: ${count} blocks of ${blockSize} bytes from offset ${offset} do not fit in data of ${size} bytes`,
        );
      await this.#blocksOf(lba, count, call);
      const most = Math.floor(this.#host.shape.maxTransferBytes / blockSize);
      if (most === 0) throw new ProtocolError(`no request has room for a block of ${blockSize} bytes`);
      const parts = partsOf(count, most, (at, part) => {
        const request = this.#host.request(
          name,
          this,
          transferCdb(name === 'WRITE', lba + at, part),
          this.#retries,
        );
        request.isWhole = true;
        const from = offset + at * blockSize;
        const length = part * blockSize;
        if (data instanceof DmaBuffer) return request.direct(data, from, length, name === 'WRITE');
        return request.through(bytesOf(name, data, from, length), name === 'WRITE');
      });
      await this.#host.nextQueue().commands.transfer<void>(new Transfer(name, parts), call);
    });
  }

  /** Repeats what got a unit attention in its place, within one deadline. */
  async #attended<T>(
    name: string,
    options: CallOptions | undefined,
    run: (call: CallOptions | undefined) => Promise<T>,
  ): Promise<T> {
    const begin = performance.now();
    for (let i = 0; ; i++) {
      try {
        return await run(leftOf(name, options, performance.now() - begin));
      } catch (error) {
        if (i === MOST_ATTENTIONS || !(error instanceof ScsiError)) throw error;
        const { sense } = error;
        if (sense?.key !== SenseKey.UNIT_ATTENTION) throw error;
        if (sense.asc === CAPACITY_CHANGED.asc && sense.ascq === CAPACITY_CHANGED.ascq) this.forgetCapacity();
      }
    }
  }
}

/** @throws TimeoutError where nothing is left. */
function leftOf(name: string, options: CallOptions | undefined, passedMs: number): CallOptions | undefined {
  const timeoutMs = options?.timeoutMs;
  if (timeoutMs === undefined) return options;
  if (timeoutMs <= passedMs) throw new TimeoutError(name, timeoutMs);
  return { ...options, timeoutMs: timeoutMs - passedMs };
}
