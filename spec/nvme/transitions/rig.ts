/** A driver, a controller behind a link that can be cut, and I/O in flight. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ClosedError, connect, type ConnectOptions, type Device } from '../../../lib/index.js';
import { NvmeController, decodeStatus, type NvmeQueue } from '../../../lib/nvme/index.js';
import { proxy, type ProxyServer } from '../../../lib/proxy/index.js';
import { Scratch } from '../../cli/cli.js';
import { until } from '../../support/until.js';

export { until } from '../../support/until.js';

/** What the table runs on. */
export interface Ground {
  /** The socket of a server with an NVMe controller, for one client at a time; its first namespace is overwritten. */
  readonly server: string;
  /** CC, as the server has it. Undefined where it cannot be asked but through the device. */
  readonly configuration?: () => Promise<number>;
  /** DMA memory in huge pages; see ../../interop/spdk-transitions.spec.ts. */
  readonly hugePages?: boolean;
}

/** Far more than anything takes that has deadlines of milliseconds, on any machine. */
const PATIENCE_MS = 20_000;
const CC = 0x14;
const BLOCKS = 2;
const WRITES = 6;
const SPARE_WRITES = 2;
/** The place of the submitted write. */
const SUBMITTED = WRITES + SPARE_WRITES;
const PLACES = SUBMITTED + 1;

/** @throws where `promise` has not settled after a long time. */
export async function bounded<T>(what: string, promise: Promise<T>): Promise<T> {
  const stop = new AbortController();
  const late = sleep(PATIENCE_MS, undefined, { signal: stop.signal }).then(
    () => Promise.reject(new Error(`${what} does not end`)),
    () => new Promise<never>(() => undefined),
  );
  try {
    return await Promise.race([promise, late]);
  } finally {
    stop.abort();
  }
}

export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** A write of the rig's, and what became of it. */
export interface Write {
  readonly place: number;
  readonly isOfSpare: boolean;
  outcome: 'acknowledged' | Error | undefined;
}

export interface Read {
  readonly isOfSpare: boolean;
  outcome: 'done' | Error | undefined;
}

export class Rig {
  device!: Device;
  controller!: NvmeController;
  /** Has I/O in flight, and stays open. */
  main!: NvmeQueue;
  /** Has I/O in flight, and may be closed. */
  spare!: NvmeQueue;
  /** Made by the pair. */
  readonly created: NvmeQueue[] = [];
  readonly writes: Write[] = [];
  readonly reads: Read[] = [];
  /** A request for an event whose deadline is to strike. */
  armed: Promise<unknown> | undefined;
  isDeviceClosed = false;
  isLost = false;
  /** Address of the first free page of DMA memory, before anything was opened. */
  firstFree = 0n;
  /** What is at each place before anything is written by the pair. */
  before!: Buffer;
  readonly #ground: Ground;
  readonly #stamp: number;
  readonly #scratch = new Scratch();
  readonly #path = this.#scratch.path('front');
  #front: ProxyServer | undefined;
  #calls: Promise<unknown>[] = [];

  private constructor(ground: Ground, stamp: number) {
    this.#ground = ground;
    this.#stamp = stamp;
  }

  static async open(ground: Ground, stamp: number): Promise<Rig> {
    const rig = new Rig(ground, stamp);
    try {
      await rig.#setUp();
    } catch (error) {
      await rig.end();
      throw error;
    }
    return rig;
  }

  async #setUp(): Promise<void> {
    await this.mend();
    this.device = await connect(this.#path, { ...this.#options, reconnect: { timeoutMs: PATIENCE_MS } });
    this.device.on('lost', () => (this.isLost = true));
    this.device.on('reconnected', () => (this.isLost = false));
    this.firstFree = await this.freeAddress();
    this.controller = await NvmeController.open(this.device, { asyncEvents: false, retries: 8 });
    this.main = await this.controller.createQueue({ entries: 4, buffers: { count: 1, bytes: 4096 } });
    this.spare = await this.controller.createQueue({ entries: 4, completion: 'interrupt' });
    this.before = await this.main.read(0, PLACES * BLOCKS);
  }

  get #options(): ConnectOptions {
    return { timeoutMs: PATIENCE_MS, hugePages: this.#ground.hugePages };
  }

  get isDown(): boolean {
    return this.#front === undefined;
  }

  /** CC of a device that is there, from the server where it can be asked. */
  async configurations(): Promise<number[]> {
    const own = await this.device.bar(0).readUInt32(CC);
    const theirs = await this.#ground.configuration?.();
    return theirs === undefined ? [own] : [own, theirs];
  }

  async freeAddress(): Promise<bigint> {
    const buffer = await this.device.dma.alloc(4096);
    const { iova } = buffer;
    await buffer.free();
    return iova;
  }

  /** Asks for an event, which does not happen. */
  requestEvent(timeoutMs: number): Promise<unknown> {
    const event = this.controller.adminCommand({ opcode: 0x0c }, { timeoutMs });
    event.catch(() => undefined);
    return event;
  }

  /** Writes, reads and a submitted command; some of them wait for room. */
  startIo(): void {
    const { main, spare } = this;
    const blockBytes = BLOCKS * main.namespace.blockSize;
    main.buffer(0).subarray(0, blockBytes).fill(this.#byte(SUBMITTED));
    if (main.submitWrite(SUBMITTED * BLOCKS, BLOCKS, 0, SUBMITTED)) {
      this.writes.push({ place: SUBMITTED, isOfSpare: false, outcome: undefined });
      main.ring();
    }
    for (let place = 0; place < SUBMITTED; place++) {
      const isOfSpare = place >= WRITES;
      const write: Write = { place, isOfSpare, outcome: undefined };
      this.writes.push(write);
      const queue = isOfSpare ? spare : main;
      const call = queue.write(place * BLOCKS, Buffer.alloc(blockBytes, this.#byte(place)));
      this.#calls.push(
        call.then(
          () => (write.outcome = 'acknowledged'),
          (error: Error) => (write.outcome = error),
        ),
      );
    }
    for (const queue of [main, spare]) {
      const read: Read = { isOfSpare: queue === spare, outcome: undefined };
      this.reads.push(read);
      this.#calls.push(
        queue.read(0, 1).then(
          () => (read.outcome = 'done'),
          (error: Error) => (read.outcome = error),
        ),
      );
    }
  }

  /** Every call has been answered, and the submitted command reported. */
  async ioIsOver(): Promise<void> {
    await bounded('I/O in flight', Promise.all(this.#calls));
    const submitted = this.writes.find(({ place }) => place === SUBMITTED);
    if (submitted !== undefined) await until(() => this.#poll(submitted), 'the submitted write is reported');
  }

  /** Whether the data of that write is what `bytes`, all places, has at its place. */
  hasWritten({ place }: Write, bytes: Buffer): boolean {
    return this.#at(place, bytes).every((byte) => byte === this.#byte(place));
  }

  wasLeftAlone({ place }: Write, bytes: Buffer): boolean {
    return this.#at(place, bytes).equals(this.#at(place, this.before));
  }

  /** All places, by a connection of its own to the server. */
  async look(): Promise<Buffer> {
    const device = await connect(this.#ground.server, { ...this.#options, waitForSocket: true });
    try {
      const controller = await NvmeController.open(device);
      const queue = await controller.createQueue();
      const bytes = await queue.read(0, PLACES * BLOCKS);
      await controller.close();
      return bytes;
    } finally {
      await device.close();
    }
  }

  closeDevice(): Promise<void> {
    this.isDeviceClosed = true;
    return this.device.close();
  }

  /** The link is there again, for whoever comes. */
  async mend(): Promise<void> {
    this.#front = await proxy({ listen: this.#path, connect: this.#ground.server, waitForSocket: true });
  }

  cut(): void {
    void this.#front?.close();
    this.#front = undefined;
  }

  /** The connection ends; one that is being made again as soon as it is there. */
  async lose(onBegun: () => void): Promise<void> {
    if (this.isDown) {
      await this.mend();
      await this.arrived();
    }
    const lost = this.isLost || this.isDeviceClosed ? undefined : this.#heard('lost', onBegun);
    this.cut();
    if (lost === undefined) onBegun();
    else await lost;
  }

  /** The server is back, and the device set up again; where it is there, after one more loss. */
  async comeBack(onBegun: () => void): Promise<void> {
    if (!this.isDown && !this.isDeviceClosed) await this.lose(() => undefined);
    const back = this.isDeviceClosed ? undefined : this.#heard('reconnected', onBegun);
    await this.mend();
    if (back === undefined) onBegun();
    else await back;
  }

  /** Somebody has come, or nobody will. */
  async arrived(): Promise<void> {
    await until(() => this.isDeviceClosed || (this.#front?.counters.open ?? 0) > 0, 'the device comes back');
  }

  /** Nobody is connected. */
  async left(): Promise<void> {
    await until(() => (this.#front?.counters.open ?? 0) === 0, 'the device has left');
  }

  async end(): Promise<void> {
    await this.device?.close();
    this.cut();
    this.#scratch.remove();
  }

  /** Settles when the device says so, or is closed. */
  #heard(event: 'lost' | 'reconnected', onHeard: () => void): Promise<void> {
    return new Promise((resolve) => {
      this.device.once(event, () => {
        onHeard();
        resolve();
      });
      void this.device.closed.then(() => resolve());
    });
  }

  #poll(write: Write): boolean {
    try {
      if (this.main.poll() === 0) return false;
      const status = this.main.completedStatus[0]!;
      write.outcome = status === 0 ? 'acknowledged' : new Error(decodeStatus(status).name);
    } catch (error) {
      if (!(error instanceof ClosedError)) throw error;
      write.outcome = error;
    }
    return true;
  }

  #at(place: number, bytes: Buffer): Buffer {
    const size = BLOCKS * this.main.namespace.blockSize;
    return bytes.subarray(place * size, (place + 1) * size);
  }

  #byte(place: number): number {
    return 1 + ((this.#stamp * PLACES + place) % 255);
  }
}
