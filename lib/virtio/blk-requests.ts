/**
 * Requests of a block device, by promises (Virtual I/O Device 1.2, section 5.2.6). A call that is longer than one request may
 * be becomes a transfer of several.
 */
import { Transfer } from '../commands/command.js';
import { outOfRange, wrongType } from '../fields.js';
import { DmaBuffer, type CallOptions } from '../index.js';
import * as option from '../options.js';
import type { BlkRangeLimits } from './blk-config.js';
import { HEADER_BYTES, type BlkDisk } from './blk-disk.js';
import {
  TRANSFER_OPTIONS,
  WRITE_ZEROES_OPTIONS,
  type BlkData,
  type BlkRange,
  type BlkTransferOptions,
  type BlkWriteZeroesOptions,
} from './blk-options.js';
import { BlkFeature } from './features.js';
import type { RequestQueue } from './request-queue.js';
import { VirtioRequest } from './request.js';
import { bytesOf, callOptions, partsOf, sizeOf } from './transfer-data.js';

export const BlkType = { IN: 0, OUT: 1, FLUSH: 4, GET_ID: 8, DISCARD: 11, WRITE_ZEROES: 13 } as const;
/** struct virtio_blk_discard_write_zeroes. */
const RANGE_BYTES = 16;
const UNMAP = 1;
const ID_BYTES = 20;
const MOST_RANGES = 256;

export class BlkRequests {
  readonly #queue: RequestQueue;
  readonly #disk: BlkDisk;
  readonly #retries: number;

  constructor(queue: RequestQueue, disk: BlkDisk, retries: number) {
    this.#queue = queue;
    this.#disk = disk;
    this.#retries = retries;
  }

  read(lba: number, blocks: number, options?: CallOptions): Promise<Buffer> {
    try {
      option.CALL_OPTIONS.check('VirtioBlk.read', options);
      this.#disk.requireBlocks(lba, blocks);
      const into = Buffer.allocUnsafe(blocks * this.#disk.blockSize);
      return this.#transfer('read', lba, blocks, into, into, 0, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  move(verb: 'readInto' | 'write', lba: number, data: BlkData, options?: BlkTransferOptions): Promise<void> {
    try {
      if (options !== undefined) TRANSFER_OPTIONS.check(`VirtioBlk.${verb}`, options);
      const disk = this.#disk;
      if (verb === 'write') disk.requireWritable();
      const size = sizeOf(data);
      const offset = options?.offset ?? 0;
      const held = (size - offset) / disk.blockSize;
      const blocks = options?.blocks ?? held;
      if (blocks > held) {
        throw outOfRange(
          `blocks: ${blocks} blocks of ${disk.blockSize} bytes from offset ${offset} do not fit in data of ${size} bytes`,
        );
      }
      disk.requireBlocks(lba, blocks);
      const name = verb === 'write' ? 'write' : 'read';
      return this.#transfer(name, lba, blocks, data, undefined, offset, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async flush(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('VirtioBlk.flush', options);
    this.#disk.require(BlkFeature.FLUSH, 'FLUSH');
    await this.#queue.commands.execute<void>(this.#request('flush', BlkType.FLUSH, 0), options);
  }

  async id(options?: CallOptions): Promise<string> {
    option.CALL_OPTIONS.check('VirtioBlk.id', options);
    const bytes = Buffer.alloc(ID_BYTES);
    const request = this.#request('get id', BlkType.GET_ID, 0).through(bytes, false);
    await this.#queue.commands.execute<void>(request, options);
    const end = bytes.indexOf(0);
    return bytes.toString('latin1', 0, end < 0 ? ID_BYTES : end).trimEnd();
  }

  async discard(ranges: readonly BlkRange[], options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('VirtioBlk.discard', options);
    const isList: boolean = Array.isArray(ranges);
    if (!isList) throw wrongType('VirtioBlk.discard: ranges', 'a list of { lba, blocks }', ranges);
    const disk = this.#disk;
    disk.requireWritable();
    disk.require(BlkFeature.DISCARD, 'DISCARD');
    for (const { lba, blocks } of ranges) disk.requireBlocks(lba, blocks);
    if (ranges.length === 0) return;
    const parts = this.#onRanges('discard', BlkType.DISCARD, [...ranges], disk.config.discard, 0);
    await this.#queue.commands.transfer<void>(new Transfer('discard', parts), options);
  }

  async writeZeroes(lba: number, blocks: number, options: BlkWriteZeroesOptions = {}): Promise<void> {
    WRITE_ZEROES_OPTIONS.check('VirtioBlk.writeZeroes', options);
    const { unmap, ...call } = options;
    const disk = this.#disk;
    disk.requireWritable();
    disk.require(BlkFeature.WRITE_ZEROES, 'WRITE_ZEROES');
    disk.requireBlocks(lba, blocks);
    const limits = disk.config.writeZeroes;
    const flags = unmap === true && limits.mayUnmap ? UNMAP : 0;
    const parts = this.#onRanges('write zeroes', BlkType.WRITE_ZEROES, [{ lba, blocks }], limits, flags);
    await this.#queue.commands.transfer<void>(new Transfer('write zeroes', parts), call);
  }

  #transfer<T>(
    name: 'read' | 'write',
    lba: number,
    blocks: number,
    data: BlkData,
    answer: T,
    begin: number,
    options: CallOptions | undefined,
  ): Promise<T> {
    const { commands } = this.#queue;
    const { blockSize, mostBlocks } = this.#disk;
    const isToDevice = name === 'write';
    const make = (at: number, count: number): VirtioRequest => {
      const request = this.#request(name, isToDevice ? BlkType.OUT : BlkType.IN, lba + at);
      const from = begin + at * blockSize;
      const length = count * blockSize;
      if (data instanceof DmaBuffer) return request.direct(data, from, length, isToDevice);
      return request.through(bytesOf(name, data, from, length), isToDevice);
    };
    if (blocks <= mostBlocks) {
      const request = make(0, blocks);
      request.answer = answer;
      return commands.execute<T>(request, callOptions(options));
    }
    const transfer = new Transfer(name, partsOf(blocks, mostBlocks, make));
    transfer.answer = answer;
    return commands.transfer<T>(transfer, callOptions(options));
  }

  *#onRanges(
    name: string,
    type: number,
    ranges: readonly BlkRange[],
    limits: BlkRangeLimits,
    flags: number,
  ): Generator<VirtioRequest, void> {
    const { sectorsPerBlock } = this.#disk;
    const mostBlocks = Math.max(1, Math.floor(limits.maxSectors / sectorsPerBlock));
    const mostRanges = Math.min(limits.maxRanges, MOST_RANGES);
    let part: BlkRange[] = [];
    const make = () => {
      const request = this.#request(name, type, 0).through(this.#encode(part, flags), true);
      part = [];
      return request;
    };
    for (const { lba, blocks } of ranges) {
      for (let at = 0; at < blocks; at += mostBlocks) {
        part.push({ lba: lba + at, blocks: Math.min(mostBlocks, blocks - at) });
        if (part.length === mostRanges) yield make();
      }
    }
    if (part.length > 0) yield make();
  }

  #encode(ranges: readonly BlkRange[], flags: number): Buffer {
    const { sectorsPerBlock } = this.#disk;
    const bytes = Buffer.alloc(ranges.length * RANGE_BYTES);
    for (const [i, { lba, blocks }] of ranges.entries()) {
      bytes.writeBigUInt64LE(BigInt(lba * sectorsPerBlock), i * RANGE_BYTES);
      bytes.writeUInt32LE(blocks * sectorsPerBlock, i * RANGE_BYTES + 8);
      bytes.writeUInt32LE(flags, i * RANGE_BYTES + 12);
    }
    return bytes;
  }

  #request(name: string, type: number, lba: number): VirtioRequest {
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32LE(type, 0);
    header.writeBigUInt64LE(BigInt(lba * this.#disk.sectorsPerBlock), 8);
    const request = new VirtioRequest(name, header);
    request.retries = this.#retries;
    return request;
  }
}
