/** An emulated virtio entropy device, 1af4:1044 (Virtual I/O Device 1.2, section 5.4). */
import { randomBytes } from 'node:crypto';
import * as option from '../../options.js';
import type { Chain } from './chain.js';
import { VIRTIO_DEVICE_CHECKS, VirtioPciDevice, type VirtioDeviceOptions } from './virtio-pci-device.js';

const NO_CONFIG = Buffer.alloc(0);
/** Of one request, whatever room it has. */
const MOST_BYTES = 64 << 10;

/** Gives that many bytes, or fewer. One that throws has the device fail: DEVICE_NEEDS_RESET. */
export type EntropySource = (length: number) => Uint8Array | Promise<Uint8Array>;

/** Options of a `VirtioRngDevice`. */
export interface VirtioRngDeviceOptions extends VirtioDeviceOptions {
  /** Where the bytes come from; by default the system's random numbers. */
  source?: EntropySource;
  /** The most bytes that a request gets, 1 to 65,536, however many it asks for; 65,536 by default. */
  maxBytes?: number;
}

const OPTIONS = new option.OptionTable<VirtioRngDeviceOptions>({
  ...VIRTIO_DEVICE_CHECKS,
  source: option.callback,
  maxBytes: option.wholeNumber(1, MOST_BYTES),
});

/**
 * A virtio entropy device, and faults by option. A `{ status }` of `intercept` gives the request back empty: such a device has
 * none.
 * @example
 * ```ts
 * await using device = new VirtioRngDevice();
 * await using server = await serve(device, { path: '/tmp/rng.sock' });
 * ```
 */
export class VirtioRngDevice extends VirtioPciDevice {
  readonly #source: EntropySource;
  readonly #maxBytes: number;
  #given = 0;

  /** @throws TypeError and RangeError for options that make no sense. */
  constructor(options: VirtioRngDeviceOptions = {}) {
    OPTIONS.check('VirtioRngDevice', options);
    super({ type: 4, classCode: 0x00ff00, features: 0n, queues: 1 }, options);
    this.#source = options.source ?? randomBytes;
    this.#maxBytes = options.maxBytes ?? MOST_BYTES;
  }

  /** Bytes that were given since the device was made. */
  get bytesGiven(): number {
    return this.#given;
  }

  /** @internal */
  protected override deviceConfig(): Buffer {
    return NO_CONFIG;
  }

  /** @internal */
  protected override async execute(
    _queue: number,
    chain: Chain,
    status: number | undefined,
  ): Promise<number> {
    const room = Math.min(chain.writableBytes, this.#maxBytes);
    if (status !== undefined || room === 0) return 0;
    const bytes = (await this.#source(room)).subarray(0, room);
    await chain.write(0, bytes);
    this.#given += bytes.length;
    return bytes.length;
  }
}
