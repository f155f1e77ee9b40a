/** A virtio entropy device as its user has it: a stream. */
import { Readable } from 'node:stream';
import { forbidCloning } from '../cloning.js';
import type { Device } from '../index.js';
import * as option from '../options.js';
import { VIRTIO_CHECKS, type VirtioOptions } from './driver-options.js';
import type { VirtioDriver } from './driver.js';
import { MOST_REQUEST_BYTES, RngDriver } from './rng-driver.js';

/** The options of `VirtioRng.open`. */
export interface VirtioRngOptions extends VirtioOptions {
  /** How many bytes one request asks for, 1 to 4,096; the device may give fewer. Default 1,024. */
  requestBytes?: number | undefined;
  /** The most requests in flight, 1 to 256. Default 4. */
  requests?: number | undefined;
  /** How many bytes are asked for ahead of who reads, 0 to 16 MiB: the stream's `highWaterMark`. Default 4,096. */
  highWaterMark?: number | undefined;
}

const MOST_AHEAD = 16 << 20;
const OPTIONS = new option.OptionTable<VirtioRngOptions>({
  ...VIRTIO_CHECKS,
  requestBytes: option.wholeNumber(1, MOST_REQUEST_BYTES),
  requests: option.wholeNumber(1, 256),
  highWaterMark: option.wholeNumber(0, MOST_AHEAD),
});
const DEFAULT_REQUEST_BYTES = 1024;
const DEFAULT_REQUESTS = 4;
const DEFAULT_AHEAD = 4096;

/**
 * A virtio entropy device (Virtual I/O Device 1.2, section 5.4), driven: a Readable of the bytes that it gives, without end. It
 * is asked for no more than is read, and `highWaterMark` ahead. Whether they are random is the device's affair.
 *
 * The stream ends with an error: TimeoutError where the device gives nothing for `timeoutMs` (it has been reset then),
 * VirtioDeviceError where it has failed or broken the rules of its queue, VirtioResetError where a reset interrupted a request
 * once too often, ClosedError where its connection has ended. `destroy()` resets the device and gives all memory back before
 * the stream emits `close`; the device stays its owner's.
 * @example
 * ```ts
 * await using device = await connect('/run/virtio/rng');
 * await using rng = await VirtioRng.open(device);
 * for await (const bytes of rng) {
 *   console.log(bytes);
 *   break;
 * }
 * ```
 */
export class VirtioRng extends Readable {
  /** The driver underneath: its features, its state, and `reset`. Closing it ends the stream. */
  readonly driver: VirtioDriver;
  readonly #driver: RngDriver;
  readonly #requestBytes: number;
  readonly #mostRequests: number;
  /** In flight: requests, and the bytes that they ask for. */
  #requests = 0;
  #asked = 0;
  /** The reader has room: `_read` was called since `push` said no. */
  #isWanted = false;
  readonly #givenBack: Promise<void>;
  #resolveGivenBack!: () => void;
  #rejectGivenBack!: (error: unknown) => void;

  /**
   * Starts the device (section 3.1.1). Nothing is asked for until somebody reads.
   * @throws UnsupportedError for a device that is no virtio entropy device, or whose structures cannot be used;
   * VirtioDeviceError where it does not come up; RangeError for options that make no sense; what the device's calls throw.
   */
  static async open(device: Device, options: VirtioRngOptions = {}): Promise<VirtioRng> {
    OPTIONS.check('VirtioRng.open', options);
    const { requests = DEFAULT_REQUESTS } = options;
    // A request takes one entry of the queue: a power of two, and two at the least.
    const entries = options.entries ?? Math.max(2, 2 ** Math.ceil(Math.log2(requests)));
    const driver = await RngDriver.open(device, { ...options, entries });
    return new VirtioRng(driver, options);
  }

  private constructor(driver: RngDriver, options: VirtioRngOptions) {
    super({ highWaterMark: options.highWaterMark ?? DEFAULT_AHEAD });
    this.driver = this.#driver = driver;
    this.#requestBytes = options.requestBytes ?? DEFAULT_REQUEST_BYTES;
    this.#mostRequests = options.requests ?? DEFAULT_REQUESTS;
    this.#givenBack = new Promise((resolve, reject) => {
      this.#resolveGivenBack = resolve;
      this.#rejectGivenBack = reject;
    });
    this.#givenBack.catch(() => undefined);
    forbidCloning(this, 'a VirtioRng');
    void driver.closed.then((reason) => this.destroy(reason));
  }

  /** Bytes that the device has been asked for and has not given yet. */
  get bytesAsked(): number {
    return this.#asked;
  }

  /**
   * Destroys the stream, and waits until the device is reset and its memory given back. Idempotent.
   * @throws what the device's calls throw; all is closed all the same.
   */
  close(): Promise<void> {
    this.destroy();
    return this.#givenBack;
  }

  /** The same as `close`. */
  override [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal */
  override _read(): void {
    this.#isWanted = true;
    this.#ask();
  }

  /** @internal */
  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#driver.close().then(
      () => {
        callback(error);
        this.#resolveGivenBack();
      },
      (failure: Error) => {
        callback(error ?? failure);
        this.#rejectGivenBack(failure);
      },
    );
  }

  /** No more than the reader has room for, but something, however little room there is. */
  #ask(): void {
    while (this.#isWanted && !this.destroyed && this.#requests < this.#mostRequests) {
      const room = this.readableHighWaterMark - this.readableLength - this.#asked;
      if (room <= 0 && this.#requests > 0) return;
      void this.#request(Math.min(this.#requestBytes, Math.max(1, room)));
    }
  }

  async #request(bytes: number): Promise<void> {
    this.#requests++;
    this.#asked += bytes;
    let given: Buffer;
    try {
      given = await this.#driver.random(bytes);
    } catch (error) {
      this.destroy(error as Error);
      return;
    } finally {
      this.#requests--;
      this.#asked -= bytes;
    }
    if (this.destroyed) return;
    this.#isWanted = this.push(given);
    this.#ask();
  }
}
