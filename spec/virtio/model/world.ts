/** A disk and its driver at the two ends of a socket, what is under way, and what the disk may hold. */
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { MemoryStore, serveFd, VirtioBlkDevice, type VirtioVerdict } from '../../../lib/emulator/index.js';
import { connect, type Device } from '../../../lib/index.js';
import { VirtioBlk } from '../../../lib/virtio/index.js';
import { socketPair } from '../../emulator/raw-client.js';
import { blocksOf, endWrite, History, type BlockWrite } from '../../nvme/model/history.js';
import type { End, Fault, IoStep, Nature, Step } from './steps.js';

const BLOCK = 512;
const BLOCKS = 128;
const TIMEOUT_MS = 150;
const BUFFERS = 4;
const BUFFER_BLOCKS = 8;
/** How long a call may take when all is over: deadlines, a reset, a machine that is busy. */
const PATIENCE_MS = 20_000;
const GIVEN_UP = new Error('given up');
/** After these the device is done with the request, as it has answered, or was reset. */
const DONE_CODES = new Set(['ETIMEDOUT', 'ERR_VIRTIO_RESET', 'ERR_VIRTIO_IOERR']);
const ALLOWED_CODES = new Set([...DONE_CODES, 'ERR_VIRTIO_DEVICE', 'ERR_VFIO_USER_CLOSED']);
/** Those of which a device that keeps the rules knows nothing, and what takes their place in one. */
const LIES = new Map<Fault, Fault>([
  ['twice', 'status'],
  ['stranger', 'late'],
  ['silent', 'status'],
  ['jump', 'lose'],
]);

interface Submitted {
  readonly step: IoStep;
  readonly blocks: number;
  readonly buffer: number;
  readonly begin: number;
  readonly write: BlockWrite | undefined;
}

export class World {
  readonly #nature: Nature;
  readonly #emulated: VirtioBlkDevice;
  readonly #store: MemoryStore;
  readonly #device: Device;
  readonly #disk: VirtioBlk;
  readonly #server: { close(): Promise<void> };
  readonly #history = new History(BLOCK);
  readonly #faults: { fault: Fault; after: number }[] = [];
  readonly #aborts = new Set<AbortController>();
  readonly #submitted = new Map<number, Submitted>();
  readonly #freeBuffers = Array.from({ length: BUFFERS }, (_, i) => i);
  readonly #problems: string[] = [];
  #pending = 0;
  #clock = 0;
  #stamp = 0;
  #hasLied = false;
  #isOver = false;

  static async make(nature: Nature): Promise<World> {
    const { mapNotifications, completion, ring, indirect, eventIndex, entries, retries } = nature;
    const store = new MemoryStore(BLOCKS * BLOCK);
    const emulated = new VirtioBlkDevice({ store, mapNotifications });
    const [ours, theirs] = socketPair();
    const server = serveFd(emulated, theirs);
    const device = await connect({ fd: ours });
    const driver = { completion, ring, indirect, eventIndex, entries, retries };
    const disk = await VirtioBlk.open(device, {
      ...driver,
      timeoutMs: TIMEOUT_MS,
      maxTransferBytes: 16 * BLOCK,
      buffers: { count: BUFFERS, bytes: BUFFER_BLOCKS * BLOCK },
    });
    return new World(nature, emulated, store, server, device, disk);
  }

  private constructor(
    nature: Nature,
    emulated: VirtioBlkDevice,
    store: MemoryStore,
    server: { close(): Promise<void> },
    device: Device,
    disk: VirtioBlk,
  ) {
    this.#nature = nature;
    this.#emulated = emulated;
    this.#store = store;
    this.#server = server;
    this.#device = device;
    this.#disk = disk;
    emulated.intercept = (request) => this.#verdict(request.id);
  }

  async step(step: Step): Promise<void> {
    switch (step.kind) {
      case 'call':
        this.#call(step);
        break;
      case 'submit':
        this.#submit(step);
        break;
      case 'ring':
        this.#disk.queues[0]!.ring();
        break;
      case 'poll':
        this.#poll();
        break;
      case 'reset':
        this.#track(this.#disk.reset(), () => undefined);
        break;
      case 'need reset':
        // In the middle of a start it is one that does not come up.
        this.#hasLied = true;
        this.#emulated.needReset();
        break;
      case 'abort':
        for (const abort of this.#aborts) abort.abort(GIVEN_UP);
        this.#aborts.clear();
        break;
      case 'fault':
        this.#faults.push({ fault: this.#faultOf(step.fault), after: step.after });
        break;
      case 'pause':
        await (step.ms === 0 ? turn() : sleep(step.ms));
    }
  }

  async end(how: End): Promise<void> {
    this.#faults.length = 0;
    // What was submitted and never shown is nobody's.
    this.#disk.queues[0]!.ring();
    if (!this.#hasLied) await this.#goesOn();
    if (how === 'close driver') this.#track(this.#disk.close(), () => undefined);
    else if (how === 'cut') await this.#server.close();
    else await this.#device.close();
    const over = performance.now() + PATIENCE_MS;
    while (this.#pending > 0 && performance.now() < over) {
      this.#poll();
      await sleep(2);
    }
    this.#isOver = true;
    if (this.#pending > 0) this.#problems.push(`${this.#pending} calls have not ended`);
    await this.#disk.close().catch(() => undefined);
    this.#poll();
    for (const { write } of this.#submitted.values()) if (write !== undefined) write.end = Infinity;
    await this.#device.close();
    await this.#server.close();
    const bytes = Buffer.from(this.#store.read(0, BLOCKS * BLOCK));
    const problem = this.#history.whatIsWrong(0, bytes, this.#clock, this.#clock);
    if (problem !== undefined) this.#problems.push(`at the end: ${problem}`);
    await this.#emulated.close();
    if (this.#problems.length > 0) throw new Error(this.#problems.join('\n'));
  }

  #faultOf(fault: Fault): Fault {
    return this.#nature.lies ? fault : (LIES.get(fault) ?? fault);
  }

  /** A device that kept the rules carries out what it is asked, when nothing is wrong with it any more. */
  async #goesOn(): Promise<void> {
    const over = performance.now() + PATIENCE_MS;
    let failure: unknown;
    for (let lba = 0; lba < 8;) {
      if (performance.now() > over) {
        this.#problems.push(`the device does not go on: ${String(failure)}`);
        return;
      }
      try {
        // As many as make a short queue go round.
        const bytes = await this.#disk.read(lba, 1, { timeoutMs: PATIENCE_MS / 4 });
        this.#checkRead(lba, bytes, this.#clock);
        lba++;
      } catch (error) {
        failure = error;
        this.#poll();
        await sleep(1);
      }
    }
  }

  #verdict(id: number): VirtioVerdict {
    const next = this.#faults[0];
    if (next === undefined) return 'pass';
    if (next.after-- > 0) return 'pass';
    this.#faults.shift();
    if (LIES.has(next.fault)) this.#hasLied = true;
    switch (next.fault) {
      case 'late':
        return { delayMs: 60 };
      case 'status':
        return { status: 1 };
      case 'twice':
        return { used: [{}, {}] };
      case 'stranger':
        return { used: [{ id: id ^ 0x40 }] };
      case 'jump':
        return { jump: 3 };
      default:
        return next.fault;
    }
  }

  #call(step: IoStep): void {
    const { what, lba, blocks, timeoutMs } = step;
    const abort = step.isAbortable ? new AbortController() : undefined;
    if (abort !== undefined) this.#aborts.add(abort);
    const options = { timeoutMs, signal: abort?.signal };
    const disk = this.#disk;
    if (what === 'read') {
      const begin = ++this.#clock;
      this.#track(disk.read(lba, blocks, options), (bytes) => this.#checkRead(lba, bytes, begin));
    } else if (what === 'flush') this.#track(disk.flush(options), () => undefined);
    else {
      const write = this.#begin(what, lba, blocks);
      const promise =
        what === 'write'
          ? disk.write(lba, blocksOf(write.stamp, lba, blocks, BLOCK), options)
          : disk.writeZeroes(lba, blocks, options);
      this.#track(
        promise,
        () => endWrite(write, true, ++this.#clock),
        (isDone) => {
          if (isDone) endWrite(write, false, ++this.#clock);
        },
      );
    }
  }

  #submit(step: IoStep): void {
    const queue = this.#disk.queues[0]!;
    const { what, lba } = step;
    const blocks = Math.min(step.blocks, BUFFER_BLOCKS);
    const buffer = what === 'read' || what === 'write' ? this.#freeBuffers.pop() : -1;
    if (buffer === undefined || what === 'write zeroes') return;
    const write = what === 'write' ? this.#begin(what, lba, blocks) : undefined;
    const tag = ++this.#stamp;
    const begin = ++this.#clock;
    let isIn = false;
    try {
      if (write !== undefined && queue.buffer(buffer).length > 0)
        queue.buffer(buffer).set(blocksOf(write.stamp, lba, blocks, BLOCK));
      if (what === 'read') isIn = queue.submitRead(lba, blocks, buffer, tag);
      else isIn = write === undefined ? queue.submitFlush(tag) : queue.submitWrite(lba, blocks, buffer, tag);
    } catch (error) {
      this.#checkError(error);
    }
    if (isIn) this.#submitted.set(tag, { step, blocks, buffer, begin, write });
    else {
      if (buffer >= 0) this.#freeBuffers.push(buffer);
      if (write !== undefined) this.#history.forget(write);
    }
  }

  #poll(): void {
    const queue = this.#disk.queues[0]!;
    try {
      const count = queue.poll();
      for (let i = 0; i < count; i++) this.#report(queue.completedTags[i]!, queue.completedStatus[i]!);
    } catch (error) {
      this.#checkError(error);
    }
  }

  #report(tag: number, status: number): void {
    const submitted = this.#submitted.get(tag);
    if (submitted === undefined) {
      this.#problems.push(`tag ${tag} was reported, and is not under way`);
      return;
    }
    this.#submitted.delete(tag);
    const { step, blocks, buffer, begin, write } = submitted;
    if (write !== undefined) endWrite(write, status === 0, ++this.#clock);
    else if (step.what === 'read' && status === 0) {
      const bytes = this.#disk.queues[0]!.buffer(buffer).subarray(0, blocks * BLOCK);
      if (bytes.length > 0) this.#checkRead(step.lba, Buffer.from(bytes), begin);
    }
    if (buffer >= 0) this.#freeBuffers.push(buffer);
  }

  #begin(what: 'write' | 'write zeroes', lba: number, blocks: number): BlockWrite {
    return this.#history.begin(what === 'write' ? ++this.#stamp : 0, lba, blocks, ++this.#clock);
  }

  #checkRead(lba: number, bytes: Buffer, begin: number): void {
    const problem = this.#history.whatIsWrong(lba, bytes, begin, ++this.#clock);
    if (problem !== undefined) this.#problems.push(`read: ${problem}`);
  }

  /** `onError` hears whether the device is done with what failed. */
  #track<T>(promise: Promise<T>, onValue: (value: T) => void, onError?: (isDone: boolean) => void): void {
    this.#pending++;
    let settled = 0;
    const settle = () => {
      this.#pending--;
      if (++settled > 1) this.#problems.push('a call has ended twice');
      if (this.#isOver) this.#problems.push('a call has ended after the end');
    };
    promise.then(
      (value) => {
        settle();
        onValue(value);
      },
      (error: unknown) => {
        settle();
        this.#checkError(error);
        const { code } = error as { code?: string };
        onError?.(error === GIVEN_UP || (code !== undefined && DONE_CODES.has(code)));
      },
    );
  }

  #checkError(error: unknown): void {
    if (error === GIVEN_UP) return;
    const { code, message } = error as { code?: string; message?: string };
    if (code === undefined || !ALLOWED_CODES.has(code))
      this.#problems.push(`an error of no name: ${String(code)} ${String(message)}`);
    else if (code === 'ERR_VIRTIO_DEVICE' && !this.#hasLied && !this.#isOver)
      this.#problems.push(`a device that kept the rules has failed: ${String(message)}`);
  }
}
