/** A queue of requests that callers wait for, or submit and poll: its memory, its rings, and its place in the device. */
import { CommandQueue } from '../commands/command-queue.js';
import { freeAll } from '../commands/driver-memory.js';
import { ClosedError, type DmaBuffer } from '../index.js';
import { DmaLayout } from './dma-layout.js';
import type { DriverQueue, DriverSetup } from './driver-setup.js';
import { VirtioDeviceError, VirtioResetError } from './errors.js';
import { VirtioFeature } from './features.js';
import type { Notifier, NotifierKind } from './notify.js';
import { PackedRing } from './packed-ring.js';
import { RequestMemory, type RequestShape } from './request-memory.js';
import type { VirtioRequest } from './request.js';
import { RequestsInFlight, type RequestCheck, type StatusError } from './requests-in-flight.js';
import { slotsOf, type Ring, type RingAddresses, type RingOptions } from './ring.js';
import { SplitRing } from './split-ring.js';
import { Virtqueue } from './virtqueue.js';

export interface RequestQueueOptions {
  readonly index: number;
  readonly shape: RequestShape;
  /** The status of a request by what lies in its tail; NOT_WRITTEN where the device has not written it. */
  readonly readStatus: (memory: RequestMemory, slot: number, usedLength: number, expected: number) => number;
  readonly statusError: (memory: RequestMemory) => StatusError;
  /** See `RequestCheck`. */
  readonly check?: RequestCheck;
  /** Closing the driver does not wait for what is in flight. */
  readonly isLeftAtClose?: boolean;
}

export class RequestQueue implements DriverQueue {
  readonly index: number;
  readonly size: number;
  readonly virtqueue: Virtqueue;
  readonly commands: CommandQueue<Virtqueue, VirtioRequest>;
  readonly memory: RequestMemory;
  readonly #buffer: DmaBuffer;
  readonly #stopWatching: () => void;
  /** Of each slot how many bytes of data the device is to write. */
  readonly expected: Uint32Array;
  readonly #isLeftAtClose: boolean;
  #notifierKind: NotifierKind | undefined;

  /** @throws VirtioDeviceError for a queue that is too short, or not there; what `device.dma.alloc` throws. */
  static async allocate(setup: DriverSetup, options: RequestQueueOptions): Promise<RequestQueue> {
    const { index, shape } = options;
    const ring = await ringOptions(setup, index, RequestMemory.maxDescriptors(shape));
    const slots = slotsOf(ring);
    const layout = new DmaLayout();
    const makeRing = reserveRing(setup, layout, ring);
    const place = RequestMemory.reserve(layout, slots, shape);
    const buffer = await setup.device.dma.alloc(layout.size, { alignment: 4096 });
    const memory = new RequestMemory(buffer, place, slots, shape);
    return new RequestQueue(setup, options, makeRing(buffer), ring.size, memory, buffer);
  }

  private constructor(
    setup: DriverSetup,
    options: RequestQueueOptions,
    ring: Ring,
    size: number,
    memory: RequestMemory,
    buffer: DmaBuffer,
  ) {
    const { settings, host, device } = setup;
    const { index, readStatus, statusError, check } = options;
    const expected = new Uint32Array(ring.slots);
    const virtqueue = new Virtqueue(index, ring, ring.slots, settings.isPolled, (slot, usedLength) =>
      readStatus(memory, slot, usedLength, expected[slot]!),
    );
    virtqueue.onViolation = (error) => host.fail(error);
    const commands = new CommandQueue<Virtqueue, VirtioRequest>({
      pair: virtqueue,
      inFlight: new RequestsInFlight(virtqueue, memory, expected, statusError(memory), check),
      timeoutMs: settings.timeoutMs,
      isPolled: settings.isPolled,
      spinUs: device.spinUs,
      leavesAll: false,
      resetError: (name) => new VirtioResetError(name),
      host: {
        // A request cannot be aborted: its memory is the device's until that is reset.
        onOverdue: () => host.resetOrFail(),
        onUnwanted: () => undefined,
        onBroken: (error) => host.fail(error),
      },
    });
    virtqueue.pollAgain = () => commands.pollSafely();
    this.index = index;
    this.size = size;
    this.virtqueue = virtqueue;
    this.commands = commands;
    this.memory = memory;
    this.expected = expected;
    this.#buffer = buffer;
    this.#isLeftAtClose = options.isLeftAtClose ?? false;
    this.#stopWatching = buffer.onRelease((reason) => host.onMemoryLost(reason));
  }

  get addresses(): RingAddresses {
    return this.virtqueue.rings.addresses;
  }

  /** How the device is told of requests; undefined until it was first started. */
  get notifierKind(): NotifierKind | undefined {
    return this.#notifierKind;
  }

  clear(): void {
    this.virtqueue.clear();
  }

  open(notifier: Notifier): void {
    this.#notifierKind = notifier.kind;
    this.virtqueue.open(notifier);
    this.commands.resume();
  }

  suspend(): void {
    this.virtqueue.close();
  }

  recover(): void {
    this.commands.recover();
  }

  poll(): void {
    this.commands.pollSafely();
  }

  async drain(): Promise<void> {
    this.commands.drain(() => new ClosedError(`queue ${this.index} is being closed`));
    if (this.#isLeftAtClose) return;
    let timer: NodeJS.Timeout | undefined;
    const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, this.commands.timeoutMs)));
    await Promise.race([this.commands.idle(), over]);
    clearTimeout(timer);
  }

  end(error: () => Error): void {
    this.commands.end(error);
  }

  giveBack(): void {
    this.commands.giveBack();
  }

  async free(): Promise<void> {
    this.#stopWatching();
    await freeAll([this.#buffer]);
  }
}

/** As long as the device and the settings allow. @throws VirtioDeviceError. */
export async function ringOptions(
  setup: DriverSetup,
  index: number,
  maxDescriptors: number,
): Promise<RingOptions> {
  const most = Math.min(await setup.transport.queueSize(index), setup.settings.entries);
  const isPacked = setup.has(VirtioFeature.RING_PACKED);
  const size = isPacked || most === 0 ? most : 2 ** Math.floor(Math.log2(most));
  const isIndirect = setup.has(VirtioFeature.INDIRECT_DESC);
  const least = isIndirect ? 1 : maxDescriptors;
  if (size < least)
    throw new VirtioDeviceError(`queue ${index} has ${size} entries, and a request needs ${least}`);
  return { size, maxDescriptors, isIndirect, hasEventIndex: setup.has(VirtioFeature.EVENT_IDX) };
}

/** Takes a place for the ring, which is made when there is memory. */
export function reserveRing(
  setup: DriverSetup,
  layout: DmaLayout,
  ring: RingOptions,
): (buffer: DmaBuffer) => Ring {
  if (setup.has(VirtioFeature.RING_PACKED)) {
    const place = PackedRing.reserve(layout, ring);
    return (buffer) => new PackedRing(buffer, place, ring);
  }
  const place = SplitRing.reserve(layout, ring);
  return (buffer) => new SplitRing(buffer, place, ring);
}
