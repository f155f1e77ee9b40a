/**
 * What a client can ask once it has negotiated, one function a command. Each reads from the top: decode, check, do,
 * answer; what it throws is the answer's errno.
 */
import { outOfRange, wrongType } from '../fields.js';
import { Command, DEVICE_FEATURE_GET, DEVICE_FLAG_PCI, DEVICE_FLAG_RESET } from '../protocol/constants.js';
import { decodeDeviceFeature, encodeDeviceFeatureReply } from '../protocol/device-feature.js';
import { decodeGetInfo, encodeDeviceInfo } from '../protocol/device-info.js';
import { decodeDmaMap, decodeDmaUnmap, encodeDmaUnmapReply } from '../protocol/dma-map.js';
import { decodeGetIrqInfo, encodeIrqInfo } from '../protocol/irq-info.js';
import { decodeMigDataRead, decodeMigDataWrite, encodeMigDataReadReply } from '../protocol/migration.js';
import {
  decodeRegionRead,
  decodeRegionWrite,
  REGION_ACCESS_SIZE,
  type RegionAccess,
} from '../protocol/region-access.js';
import { decodeGetRegionInfo, encodeRegionInfo } from '../protocol/region-info.js';
import { decodeGetRegionIoFds, encodeRegionIoFds } from '../protocol/region-io-fds.js';
import { decodeRegionWriteMulti, encodeRegionWriteMultiReply } from '../protocol/region-write-multi.js';
import { decodeSetIrqs } from '../protocol/set-irqs.js';
import type { ClientState } from './client-state.js';
import { DeviceError, EINVAL, ENOSYS, ENOTSUP } from './device-error.js';
import type { DeviceModel } from './device-model.js';
import type { Settings } from './emulator-options.js';
import type { Negotiated } from './negotiation.js';
import { andThen } from './maybe-async.js';
import type { RegionTable } from './region-table.js';

/** A command; its payload is `bytes[start, end)`. */
export interface Message {
  readonly id: number;
  readonly command: number;
  readonly flags: number;
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
  /**
   * Fds that are not claimed yet: whoever takes one takes it out. The others are closed, those too that the command has no
   * use for: SPDK's host sends one with DMA_UNMAP.
   */
  fds: number[];
  /** How many came. */
  readonly fdCount: number;
}

/** A good answer. */
export interface Reply {
  /** The access structure that goes before `payload`, for REGION_READ and REGION_WRITE. */
  access?: RegionAccess;
  payload: Uint8Array | null;
  fds: readonly number[] | null;
  /** Called when the reply has gone, or never will. */
  onSent?: () => void;
}

type Answer = Reply | Promise<Reply>;

const EMPTY: Reply = { payload: null, fds: null };

export class Commands {
  readonly #device: DeviceModel;
  readonly #client: ClientState;
  readonly #settings: Settings;
  readonly #negotiated: Negotiated;
  readonly #regions: RegionTable;
  /** Whether region fds can reach the client. */
  readonly #sharesFds: boolean;

  constructor(
    device: DeviceModel,
    regions: RegionTable,
    client: ClientState,
    settings: Settings,
    negotiated: Negotiated,
    sharesFds: boolean,
  ) {
    this.#device = device;
    this.#client = client;
    this.#settings = settings;
    this.#negotiated = negotiated;
    this.#regions = regions;
    this.#sharesFds = sharesFds && negotiated.client.maxMsgFds > 0;
  }

  /**
   * Carries a command out.
   *
   * @throws DeviceError with the reply's errno; ProtocolError for what breaks a rule of the command, to be answered
   * EINVAL; anything else is the device's fault.
   */
  execute(message: Message): Answer {
    this.#checkFds(message);
    switch (message.command) {
      case Command.DMA_MAP:
        return this.#dmaMap(message);
      case Command.DMA_UNMAP:
        return this.#dmaUnmap(message);
      case Command.DEVICE_GET_INFO:
        return this.#getInfo(message);
      case Command.DEVICE_GET_REGION_INFO:
        return this.#getRegionInfo(message);
      case Command.DEVICE_GET_REGION_IO_FDS:
        return this.#getRegionIoFds(message);
      case Command.DEVICE_GET_IRQ_INFO:
        return this.#getIrqInfo(message);
      case Command.DEVICE_SET_IRQS:
        return this.#setIrqs(message);
      case Command.REGION_READ:
        return this.#regionRead(message);
      case Command.REGION_WRITE:
        return this.#regionWrite(message);
      case Command.DEVICE_RESET:
        return this.#reset(message);
      case Command.REGION_WRITE_MULTI:
        return this.#regionWriteMulti(message);
      case Command.DEVICE_FEATURE:
        return this.#feature(message);
      case Command.MIG_DATA_READ:
        return this.#migDataRead(message);
      case Command.MIG_DATA_WRITE:
        return this.#migDataWrite(message);
      case Command.DIRTY_PAGES:
        return this.#dirtyPages(message);
      case Command.VERSION:
        throw new DeviceError(EINVAL, 'the version has been negotiated');
      case Command.DMA_READ:
      case Command.DMA_WRITE:
        throw new DeviceError(EINVAL, 'a command of the server');
      default:
        throw new DeviceError(ENOSYS, `command ${message.command}`);
    }
  }

  /** A command closes fds that it has no use for. But of several with DMA_MAP, any could be the memory. */
  #checkFds({ command, fdCount }: Message): void {
    const { maxMsgFds } = this.#settings;
    const most = command === Command.DMA_MAP ? Math.min(1, maxMsgFds) : maxMsgFds;
    if (fdCount > most) throw new DeviceError(EINVAL, `${fdCount} fds, at most ${most} are allowed`);
  }

  #dmaMap(message: Message): Reply {
    const request = decodeDmaMap(message.bytes, message.start, message.end);
    this.#client.dmaTable.map(request, claimFds(message)[0]);
    return EMPTY;
  }

  /** In-flight accesses end before the reply, which is the request again. */
  #dmaUnmap({ bytes, start, end }: Message): Answer {
    const request = decodeDmaUnmap(bytes, start, end);
    const { flags, address, size } = request;
    const takeBitmap = this.#client.dirty.atUnmap(request);
    return andThen(this.#client.dmaTable.unmap(request), () => {
      const bitmap = takeBitmap?.();
      return { payload: encodeDmaUnmapReply({ flags, address, size, ...(bitmap && { bitmap }) }), fds: null };
    });
  }

  #dirtyPages({ bytes, start, end }: Message): Reply {
    return { payload: this.#client.dirty.command(bytes, start, end), fds: null };
  }

  #getInfo({ bytes, start, end }: Message): Reply {
    decodeGetInfo(bytes, start, end);
    const { flags = DEVICE_FLAG_PCI | (this.#device.reset === undefined ? 0 : DEVICE_FLAG_RESET) } =
      this.#device;
    const numIrqs = this.#client.irqs.count;
    return { payload: encodeDeviceInfo({ flags, numRegions: this.#regions.count, numIrqs }), fds: null };
  }

  /** A reply that argsz cuts short says how much the whole takes; fd and capabilities come with the whole. */
  #getRegionInfo({ bytes, start, end }: Message): Reply {
    const { argsz, index } = decodeGetRegionInfo(bytes, start, end);
    const { info, fd } = this.#regions.describe(index, this.#sharesFds);
    const payload = encodeRegionInfo(info, argsz);
    const isWhole = payload.readUInt32LE(0) <= argsz;
    return { payload, fds: fd === undefined || !isWhole ? null : [fd] };
  }

  #getRegionIoFds({ bytes, start, end }: Message): Reply {
    const { argsz, index } = decodeGetRegionIoFds(bytes, start, end);
    this.#regions.describe(index, false);
    const offer = this.#sharesFds ? this.#regions.ioFds(index) : undefined;
    const payload = encodeRegionIoFds(index, offer?.subRegions ?? [], argsz);
    const isWhole = payload.readUInt32LE(0) <= argsz;
    return { payload, fds: offer === undefined || !isWhole ? null : offer.fds };
  }

  #getIrqInfo({ bytes, start, end }: Message): Reply {
    const { index } = decodeGetIrqInfo(bytes, start, end);
    return { payload: encodeIrqInfo(this.#client.irqs.describe(index)), fds: null };
  }

  #setIrqs(message: Message): Reply {
    const request = decodeSetIrqs(message.bytes, message.start, message.end);
    this.#client.irqs.set(request, claimFds(message));
    return EMPTY;
  }

  #regionRead({ bytes, start, end }: Message): Answer {
    const access = decodeRegionRead(bytes, start, end);
    this.#checkCount(access.count);
    return andThen(this.#regions.read(access, this.#client), (payload) => ({ access, payload, fds: null }));
  }

  #regionWrite({ bytes, start, end }: Message): Answer {
    const access = decodeRegionWrite(bytes, start, end);
    this.#checkCount(access.count);
    const done = this.#regions.write(access, bytes.subarray(start + REGION_ACCESS_SIZE, end), this.#client);
    return andThen(done, () => ({ access, payload: null, fds: null }));
  }

  /** In order, up to the first that fails: the reply says how many were done, or why not one was. */
  async #regionWriteMulti({ bytes, start, end }: Message): Promise<Reply> {
    if (!this.#negotiated.writeMultiple) throw new DeviceError(ENOTSUP, 'write_multiple was not negotiated');
    const writes = decodeRegionWriteMulti(bytes, start, end);
    let count = 0;
    for (const { offset, region, data } of writes) {
      try {
        await this.#regions.write({ offset, region, count: data.length }, Buffer.from(data), this.#client);
        count++;
      } catch (error) {
        if (count === 0) throw error;
        break;
      }
    }
    return { payload: encodeRegionWriteMultiReply({ count }), fds: null };
  }

  #reset({ start, end }: Message): Answer {
    if (start !== end) throw new DeviceError(EINVAL, 'DEVICE_RESET has no payload');
    if (this.#device.reset === undefined) throw new DeviceError(ENOTSUP, 'the device cannot be reset');
    return andThen(this.#device.reset(this.#client), () => EMPTY);
  }

  #feature({ bytes, start, end }: Message): Answer {
    const { feature, flags: operations, data, argsz } = decodeDeviceFeature(bytes, start, end);
    const isDirty = this.#client.dirty.answers(feature);
    if (!isDirty && this.#device.feature === undefined) throw new DeviceError(ENOTSUP, `feature ${feature}`);
    const answer = (value: Uint8Array | void): Reply => {
      const isGet = operations === DEVICE_FEATURE_GET;
      if (isGet || isDirty || value !== undefined) checkBytes(`what feature ${feature} answers`, value);
      const payload = encodeDeviceFeatureReply({
        feature,
        flags: operations,
        data: (isGet || isDirty) && value ? value : data,
      });
      if (payload.length > argsz) throw new DeviceError(EINVAL, `the reply takes ${payload.length} bytes`);
      return { payload, fds: null };
    };
    if (isDirty) return answer(this.#client.dirty.feature({ feature, operations, data }, argsz));
    return andThen(this.#device.feature!({ feature, operations, data }, this.#client), answer);
  }

  #migDataRead({ bytes, start, end }: Message): Answer {
    const { size } = decodeMigDataRead(bytes, start, end);
    this.#checkCount(size);
    if (this.#device.migrationData === undefined) throw new DeviceError(ENOTSUP, 'migration');
    const answer = (data: Uint8Array): Reply => {
      const name = `what migrationData.read(${size}) returns`;
      checkBytes(name, data);
      if (data.byteLength > size)
        throw outOfRange(`${name} must have at most ${size} bytes, got ${data.byteLength}`);
      return { payload: encodeMigDataReadReply(data), fds: null };
    };
    return andThen(this.#device.migrationData.read(size, this.#client), answer);
  }

  #migDataWrite({ bytes, start, end }: Message): Answer {
    const data = decodeMigDataWrite(bytes, start, end);
    if (this.#device.migrationData === undefined) throw new DeviceError(ENOTSUP, 'migration');
    return andThen(this.#device.migrationData.write(data, this.#client), () => EMPTY);
  }

  #checkCount(count: number): void {
    const most = this.#settings.maxDataXferSize;
    if (count > most) throw new DeviceError(EINVAL, `${count} bytes, max_data_xfer_size is ${most}`);
  }
}

/** Whether a command may have use for fds. */
export function takesFds(command: number): boolean {
  return command === Command.DMA_MAP || command === Command.DEVICE_SET_IRQS;
}

/** A mistake of the device: it is reported to `onError`, and the client is answered EIO. */
function checkBytes(name: string, value: unknown): void {
  if (!(value instanceof Uint8Array)) throw wrongType(name, 'a Uint8Array or Buffer', value);
}

function claimFds(message: Message): number[] {
  const { fds } = message;
  message.fds = [];
  return fds;
}
