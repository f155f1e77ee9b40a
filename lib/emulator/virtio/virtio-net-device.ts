/** An emulated virtio network device, 1af4:1041 (Virtual I/O Device 1.2, section 5.1). */
import * as option from '../../options.js';
import type { Chain } from './chain.js';
import { VIRTIO_DEVICE_CHECKS, VirtioPciDevice, type VirtioDeviceOptions } from './virtio-pci-device.js';

const RECEIVE_QUEUE = 0;
const HEADER_BYTES = 12;
const MOST_FRAME = 65_550;
const LINK_UP = 1;
const F = { MTU: 1n << 3n, MAC: 1n << 5n, STATUS: 1n << 16n } as const;

/** Options of a `VirtioNetDevice`. */
export interface VirtioNetDeviceOptions extends VirtioDeviceOptions {
  /** `52:54:00:12:34:56` by default. */
  mac?: string;
  /** 68 to 65,535; 1,500 by default. */
  mtu?: number;
}

const OPTIONS = new option.OptionTable<VirtioNetDeviceOptions>({
  ...VIRTIO_DEVICE_CHECKS,
  mac: (value, caller, name) =>
    typeof value === 'string' && /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(value)
      ? undefined
      : new TypeError(`${caller}: ${name} must be six bytes, 52:54:00:12:34:56, got ${String(value)}`),
  mtu: option.wholeNumber(68, 65_535),
});

/**
 * A virtio network device. What its driver sends goes to the device that it was joined to; without one it is dropped, as on a cable with
 * nothing at its end.
 * @example
 * ```ts
 * const [a, b] = [new VirtioNetDevice(), new VirtioNetDevice({ mac: '52:54:00:12:34:57' })];
 * a.join(b);
 * ```
 */
export class VirtioNetDevice extends VirtioPciDevice {
  readonly #mac: string;
  readonly #mtu: number;
  #peer: VirtioNetDevice | undefined;
  #isUp = true;
  /** Buffers of the driver's. */
  #buffers: Chain[] = [];
  #dropped = 0;

  /** @throws TypeError and RangeError for what a network device cannot be. */
  constructor(options: VirtioNetDeviceOptions = {}) {
    OPTIONS.check('VirtioNetDevice', options);
    super({ type: 1, classCode: 0x020000, features: F.MTU | F.MAC | F.STATUS, queues: 2 }, options);
    this.#mac = options.mac ?? '52:54:00:12:34:56';
    this.#mtu = options.mtu ?? 1500;
  }

  /** Frames that came while the driver had no buffer for them, or none that was long enough. */
  get droppedFrames(): number {
    return this.#dropped;
  }

  /** What either of the two sends comes to the other from now on. */
  join(peer: VirtioNetDevice): void {
    this.#peer = peer;
    peer.#peer = this;
  }

  /** The link comes up, or goes: the driver is told. */
  setLink(isUp: boolean): void {
    this.#isUp = isUp;
    this.configChanged();
  }

  /** A frame comes to the driver; dropped where there is no room for it. */
  receive(frame: Uint8Array): void {
    const chain = this.#isUp ? this.#buffers.shift() : undefined;
    if (chain === undefined || chain.writableBytes < HEADER_BYTES + frame.length) {
      if (chain !== undefined) this.#buffers.unshift(chain);
      this.#dropped++;
      return;
    }
    const bytes = Buffer.alloc(HEADER_BYTES + frame.length);
    // num_buffers.
    bytes.writeUInt16LE(1, 10);
    bytes.set(frame, HEADER_BYTES);
    void chain.write(0, bytes).then(
      () => this.give(RECEIVE_QUEUE, chain, bytes.length),
      () => this.needReset(),
    );
  }

  /** @internal */
  protected override deviceConfig(): Buffer {
    const bytes = Buffer.alloc(12);
    bytes.write(this.#mac.replaceAll(':', ''), 0, 'hex');
    bytes.writeUInt16LE(this.#isUp ? LINK_UP : 0, 6);
    bytes.writeUInt16LE(1, 8);
    bytes.writeUInt16LE(this.#mtu, 10);
    return bytes;
  }

  /** @internal */
  protected override onRunning(): void {
    this.#buffers = [];
  }

  /** @internal */
  protected override async execute(queue: number, chain: Chain): Promise<number | undefined> {
    if (queue === RECEIVE_QUEUE) {
      this.#buffers.push(chain);
      return undefined;
    }
    const length = chain.readableBytes - HEADER_BYTES;
    if (length > 0 && length <= MOST_FRAME) {
      const frame = await chain.read(HEADER_BYTES, length);
      if (this.#isUp) this.#peer?.receive(frame);
    }
    return 0;
  }
}
