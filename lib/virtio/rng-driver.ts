/** Drives an entropy device (Virtual I/O Device 1.2, section 5.4): one queue, of buffers that the device fills. */
import { RESULT } from '../commands/command.js';
import type { Device } from '../index.js';
import { VirtioDeviceType } from './constants.js';
import { virtioSettings, type VirtioOptions } from './driver-options.js';
import type { DriverKind, DriverSetup } from './driver-setup.js';
import { VirtioDriver, type VirtioParts } from './driver.js';
import { VirtioDeviceError } from './errors.js';
import { SHORT_BYTES, type RequestMemory } from './request-memory.js';
import { RequestQueue } from './request-queue.js';
import { VirtioRequest } from './request.js';
import { NOT_WRITTEN } from './virtqueue.js';

/** The most bytes of one request: what a slot has of its own. */
export const MOST_REQUEST_BYTES = SHORT_BYTES;

const NO_HEADER = Buffer.alloc(0);
const SHAPE = {
  headerBytes: 0,
  tailBytes: 0,
  isTailFirst: false,
  segmentBytes: MOST_REQUEST_BYTES,
  maxSegments: 1,
  maxTransferBytes: MOST_REQUEST_BYTES,
};

class RngKind implements DriverKind {
  readonly features: readonly number[] = [];
  queue: RequestQueue | undefined;

  async configure(): Promise<void> {}

  async makeQueues(setup: DriverSetup): Promise<readonly RequestQueue[]> {
    this.queue = await RequestQueue.allocate(setup, {
      index: 0,
      shape: SHAPE,
      readStatus,
      statusError: () => (request, status) => new VirtioDeviceError(`${request.name}: status ${status}`),
      // A device may take its time: QEMU's rate-limits its guests.
      isLeftAtClose: true,
    });
    return [this.queue];
  }

  onConfigChange(): void {}
}

/** Section 5.4.6.2: the device writes at least one byte. One that never does would be asked for ever. */
function readStatus(_memory: RequestMemory, _slot: number, usedLength: number): number {
  return usedLength === 0 ? NOT_WRITTEN : 0;
}

export class RngDriver extends VirtioDriver {
  readonly #kind: RngKind;

  static open(device: Device, options: VirtioOptions): Promise<RngDriver> {
    const kind = new RngKind();
    const make = (parts: VirtioParts) => new RngDriver(parts, kind);
    const settings = virtioSettings(options);
    return VirtioDriver.start('VirtioRng.open', device, VirtioDeviceType.ENTROPY, settings, make);
  }

  private constructor(parts: VirtioParts, kind: RngKind) {
    super(parts, kind);
    this.#kind = kind;
  }

  /** Asks for `bytes` bytes. The device may give fewer, and gives at least one. */
  async random(bytes: number): Promise<Buffer> {
    this.lifecycle.throwIfClosing();
    const { retries } = this.setup.settings;
    const into = Buffer.alloc(bytes);
    const request = new VirtioRequest('read', NO_HEADER).through(into, false);
    request.retries = retries;
    // The promise gives the used length, which the queue has checked.
    request.answer = RESULT;
    const length = await this.#kind.queue!.commands.execute<number>(request);
    return into.subarray(0, length);
  }
}
