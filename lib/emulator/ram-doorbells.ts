/**
 * The RAM device's doorbells, which need no message ("VFIO_USER_DEVICE_GET_REGION_IO_FDS"): a plain ioeventfd, which
 * counts, and a shadow ioeventfd, whose value is found in shared memory.
 */
import { check, native, type NativeEventFd } from '../native.js';
import { IO_FD_TYPE_IOEVENTFD, IO_FD_TYPE_IOEVENTFD_SHADOW } from '../protocol/constants.js';
import type { RegionIoFdOffer } from './device-model.js';
import { SharedMemory } from './shared-memory.js';

const PAGE = 4096;
const SHADOW_OFFSET = 64;
const WIDTH = 4;

export interface DoorbellOffsets {
  plain: number;
  shadow: number;
}

export class RamDoorbells {
  readonly offer: RegionIoFdOffer;
  readonly #plain: NativeEventFd;
  readonly #shadow: NativeEventFd;
  readonly #memory = new SharedMemory(PAGE, 'vfio-user-shadow');

  /** `onPlain` gets how often the plain one was rung, `onShadow` the value that was written last. */
  constructor(offsets: DoorbellOffsets, onPlain: (count: number) => void, onShadow: (value: number) => void) {
    const memory = this.#memory;
    this.#plain = doorbell(onPlain);
    this.#shadow = doorbell(() => onShadow(memory.bytes.readUInt32LE(SHADOW_OFFSET)));
    const common = { size: WIDTH, flags: 0, datamatch: 0n };
    this.offer = {
      subRegions: [
        { ...common, type: IO_FD_TYPE_IOEVENTFD, offset: offsets.plain, fdIndex: 0 },
        {
          ...common,
          type: IO_FD_TYPE_IOEVENTFD_SHADOW,
          offset: offsets.shadow,
          fdIndex: 1,
          shadowFdIndex: 2,
          shadowOffset: SHADOW_OFFSET,
        },
      ],
      fds: [this.#plain.fd, this.#shadow.fd, memory.fd],
    };
  }

  close(): void {
    this.#plain.close();
    this.#shadow.close();
    this.#memory.close();
  }
}

function doorbell(onCount: (count: number) => void): NativeEventFd {
  const fd = check(native().eventfd(0), 'eventfd');
  const eventFd = new (native().EventFd)(fd, onCount);
  check(eventFd.watch(true), 'epoll_ctl');
  // A device alone keeps no process alive.
  eventFd.unref();
  return eventFd;
}
