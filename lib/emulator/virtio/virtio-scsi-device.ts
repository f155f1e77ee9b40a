/** An emulated virtio SCSI host, 1af4:1048 (Virtual I/O Device 1.2, section 5.6), with disks. */
import { integer, wrongType } from '../../fields.js';
import * as option from '../../options.js';
import type { BlockStore } from '../block-store.js';
import type { Chain } from './chain.js';
import { answer, refusal, ScsiDisk, Sense, type ScsiAnswer } from './scsi-disk.js';
import { VIRTIO_DEVICE_CHECKS, VirtioPciDevice, type VirtioDeviceOptions } from './virtio-pci-device.js';

const CONTROL_QUEUE = 0;
const EVENT_QUEUE = 1;
const FIRST_QUEUE = 2;
const CDB_BYTES = 32;
const SENSE_BYTES = 96;
const ADDRESS_BYTES = 19;
const REQUEST_BYTES = ADDRESS_BYTES + CDB_BYTES;
const RESPONSE_BYTES = 12;
const CONFIG_BYTES = 36;
const EVENT_BYTES = 16;
const MOST_TARGET = 7;
const REPORT_LUNS = 0xa0;
const RESPONSE_STATUS = 0x100;
const F = { HOTPLUG: 1n << 1n, CHANGE: 1n << 2n } as const;
const Response = { BAD_TARGET: 3 } as const;
const FUNCTION_REJECTED = 11;
const Event = { TRANSPORT_RESET: 1, PARAM_CHANGE: 3, MISSED: 0x8000_0000 } as const;
const Reason = { RESCAN: 1, REMOVED: 2 } as const;

/** A disk of a `VirtioScsiDevice`. */
export interface VirtioScsiUnit {
  /** Where the blocks are; the device closes it when it is closed. */
  store: BlockStore;
  /** 0 to 7; 0 by default. */
  target?: number;
  /** 0 to 255; 0 by default. */
  lun?: number;
  /** 512, 1024, 2048 or 4096; 512 by default. */
  blockSize?: number;
  /** Cannot be written. False by default. */
  readOnly?: boolean;
  /** Its serial number; `target:lun` by default. */
  serial?: string;
  /** What INQUIRY says that it is, 16 characters; `emulated disk` by default. */
  product?: string;
}

/** Options of a `VirtioScsiDevice`. */
export interface VirtioScsiDeviceOptions extends VirtioDeviceOptions {
  /** Its disks at first; none by default. */
  units?: readonly VirtioScsiUnit[];
  /** Request queues, 1 to 32; 1 by default. */
  queues?: number;
  /** The longest transfer of one request, in sectors of 512 bytes; 8,192 by default. */
  maxSectors?: number;
}

const UNIT = new option.OptionTable<VirtioScsiUnit>(
  {
    store: (value, caller, name) =>
      typeof value === 'object' && value !== null && 'read' in value
        ? undefined
        : wrongType(`${caller}: ${name}`, 'a BlockStore', value),
    target: option.wholeNumber(0, MOST_TARGET),
    lun: option.wholeNumber(0, 255),
    blockSize: option.oneOf(512, 1024, 2048, 4096),
    readOnly: option.boolean,
    serial: option.string,
    product: option.string,
  },
  ['store'],
);
const OPTIONS = new option.OptionTable<VirtioScsiDeviceOptions>({
  ...VIRTIO_DEVICE_CHECKS,
  units: option.listOf('units', option.options(UNIT)),
  queues: option.wholeNumber(1, 32),
  maxSectors: option.wholeNumber(1, 0xffff_ffff),
});

/**
 * A virtio SCSI host with disks, which can come and go, and faults by option: `{ status }` of a verdict is a status of SCSI, 2 with a
 * medium error, and from 0x100 on a response of the host.
 * @example
 * ```ts
 * await using device = new VirtioScsiDevice({ units: [{ store: new MemoryStore(64 << 20) }] });
 * await using server = await serve(device, { path: '/tmp/scsi.sock' });
 * ```
 */
export class VirtioScsiDevice extends VirtioPciDevice {
  readonly #disks = new Map<string, ScsiDisk>();
  readonly #options: VirtioScsiDeviceOptions;
  /** Buffers of the driver's for events. */
  #events: Chain[] = [];
  #isMissed = false;

  /** @throws TypeError and RangeError for what a host cannot be. */
  constructor(options: VirtioScsiDeviceOptions = {}) {
    OPTIONS.check('VirtioScsiDevice', options);
    const { queues = 1, units = [] } = options;
    const personality = { type: 8, classCode: 0x010000, features: F.HOTPLUG | F.CHANGE };
    super({ ...personality, queues: FIRST_QUEUE + queues }, options);
    this.#options = options;
    for (const unit of units) this.#insert('VirtioScsiDevice', unit);
  }

  /** Puts a disk in, and tells the driver (HOTPLUG). @throws TypeError and RangeError for one that cannot be, or is there. */
  insert(unit: VirtioScsiUnit): void {
    UNIT.check('VirtioScsiDevice.insert', unit);
    this.#insert('VirtioScsiDevice.insert', unit);
    this.#tell(F.HOTPLUG, unit.target ?? 0, unit.lun ?? 0, Event.TRANSPORT_RESET, Reason.RESCAN);
  }

  /** Takes a disk out, and tells the driver. Its store is not closed. @throws RangeError where there is none. */
  remove(target: number, lun = 0): BlockStore {
    const { store } = this.#require('VirtioScsiDevice.remove', target, lun);
    this.#disks.delete(`${target}:${lun}`);
    this.#tell(F.HOTPLUG, target, lun, Event.TRANSPORT_RESET, Reason.REMOVED);
    return store;
  }

  /** Puts another store in the place of a disk's, and tells the driver. The old one is not closed. @throws RangeError. */
  replaceStore(store: BlockStore, target = 0, lun = 0): void {
    const disk = this.#require('VirtioScsiDevice.replaceStore', target, lun);
    disk.store = store;
    const [, asc, ascq] = Sense.CAPACITY_CHANGED;
    disk.attentions.push(Sense.CAPACITY_CHANGED);
    this.#tell(F.CHANGE, target, lun, Event.PARAM_CHANGE, asc | (ascq << 8));
  }

  /** Also closes the stores. */
  override async close(): Promise<void> {
    await super.close();
    for (const { store } of this.#disks.values()) await store.close();
  }

  /** @internal */
  protected override deviceConfig(): Buffer {
    const { queues = 1, maxSectors = 8192 } = this.#options;
    const bytes = Buffer.alloc(CONFIG_BYTES);
    const words = [queues, 126, maxSectors, 64, EVENT_BYTES, SENSE_BYTES, CDB_BYTES];
    for (const [i, word] of words.entries()) bytes.writeUInt32LE(word, 4 * i);
    bytes.writeUInt16LE(MOST_TARGET, 30);
    bytes.writeUInt32LE(255, 32);
    return bytes;
  }

  /** @internal */
  protected override onRunning(): void {
    this.#events = [];
    this.#isMissed = false;
  }

  /** @internal What the driver is answered, before it is. A hostile device changes it. */
  protected finish(response: Buffer): Buffer {
    return response;
  }

  /** @internal */
  protected override async execute(
    queue: number,
    chain: Chain,
    status: number | undefined,
  ): Promise<number | undefined> {
    if (queue === EVENT_QUEUE) {
      this.#events.push(chain);
      return undefined;
    }
    if (queue === CONTROL_QUEUE) {
      if (chain.writableBytes === 0) return 0;
      await chain.write(chain.writableBytes - 1, Buffer.from([FUNCTION_REJECTED]));
      return chain.writableBytes;
    }
    const isTooShort =
      chain.readableBytes < REQUEST_BYTES || chain.writableBytes < RESPONSE_BYTES + SENSE_BYTES;
    return isTooShort ? 0 : this.#command(chain, status);
  }

  async #command(chain: Chain, status: number | undefined): Promise<number> {
    const header = await chain.read(0, REQUEST_BYTES);
    const room = chain.writableBytes - RESPONSE_BYTES - SENSE_BYTES;
    const outBytes = chain.readableBytes - REQUEST_BYTES;
    const found = status === undefined ? await this.#carryOut(header, chain, outBytes) : faultOf(status);
    const response = Buffer.alloc(RESPONSE_BYTES + SENSE_BYTES);
    let written = 0;
    if (typeof found === 'number') response[11] = found;
    else {
      written = Math.min(room, found.data.length);
      response.writeUInt32LE(found.sense.length, 0);
      response.writeUInt32LE(room > 0 ? room - written : outBytes - found.taken, 4);
      response[10] = found.status;
      response.set(found.sense, RESPONSE_BYTES);
      await chain.write(response.length, found.data.subarray(0, written));
    }
    await chain.write(0, this.finish(response));
    return response.length + written;
  }

  /** A response of the host's where no disk is there. */
  async #carryOut(header: Buffer, chain: Chain, outBytes: number): Promise<ScsiAnswer | number> {
    const target = header[1]!;
    const lun = header.readUInt16BE(2) & 0x3fff;
    const cdb = header.subarray(ADDRESS_BYTES);
    const luns = [...this.#disks.keys()]
      .map((key) => key.split(':').map(Number))
      .filter(([at]) => at === target);
    if (header[0] !== 1 || luns.length === 0) return Response.BAD_TARGET;
    if (cdb[0] === REPORT_LUNS) {
      const list = luns.map(([, number]) => number!);
      return answer(listOf(list).subarray(0, cdb.readUInt32BE(6)));
    }
    const disk = this.#disks.get(`${target}:${lun}`);
    if (disk === undefined) return refusal(Sense.NO_SUCH_UNIT);
    return disk.execute(cdb, outBytes, (bytes) => chain.read(REQUEST_BYTES, bytes));
  }

  #insert(caller: string, unit: VirtioScsiUnit): void {
    const { store, target = 0, lun = 0, blockSize = 512, readOnly = false, product = 'emulated disk' } = unit;
    const key = `${target}:${lun}`;
    if (this.#disks.has(key)) throw new RangeError(`${caller}: there is a disk at ${key}`);
    const { serial = key } = unit;
    this.#disks.set(key, new ScsiDisk({ store, blockSize, readOnly, serial, product }));
  }

  #require(caller: string, target: number, lun: number): ScsiDisk {
    integer(`${caller}: target`, target, 0, MOST_TARGET);
    const disk = this.#disks.get(`${target}:${lun}`);
    if (disk === undefined) throw new RangeError(`${caller}: there is no disk at ${target}:${lun}`);
    return disk;
  }

  /** Where the driver has no buffer for it, the next one says that something was missed. */
  #tell(feature: bigint, target: number, lun: number, event: number, reason: number): void {
    if ((this.driverFeatures & feature) === 0n) return;
    const chain = this.#events.shift();
    if (chain === undefined) {
      this.#isMissed = true;
      return;
    }
    const bytes = Buffer.alloc(EVENT_BYTES);
    bytes.writeUInt32LE((event | (this.#isMissed ? Event.MISSED : 0)) >>> 0, 0);
    this.#isMissed = false;
    bytes[4] = 1;
    bytes[5] = target;
    bytes.writeUInt16BE(0x4000 | lun, 6);
    bytes.writeUInt32LE(reason, 12);
    void chain.write(0, bytes).then(
      () => this.give(EVENT_QUEUE, chain, EVENT_BYTES),
      () => this.needReset(),
    );
  }
}

function faultOf(status: number): ScsiAnswer | number {
  if (status >= RESPONSE_STATUS) return status - RESPONSE_STATUS;
  const medium = refusal(Sense.MEDIUM_ERROR);
  return status === medium.status ? medium : { ...answer(), status };
}

/** The answer to REPORT LUNS. */
function listOf(luns: readonly number[]): Buffer {
  const list = Buffer.alloc(8 + 8 * luns.length);
  list.writeUInt32BE(8 * luns.length, 0);
  for (const [i, lun] of luns.entries()) list.writeUInt16BE(lun, 8 + 8 * i);
  return list;
}
