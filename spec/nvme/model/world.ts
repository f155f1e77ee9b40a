/**
 * A world of the model: disks, a machine that they are plugged into, a driver, and everything that was asked of it. It
 * carries steps out and at the end says what was not as it has to be.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ClosedError,
  connect,
  TimeoutError,
  TransportError,
  UnsupportedError,
  type Device,
  type DmaBuffer,
} from '../../../lib/index.js';
import {
  NvmeController,
  NvmeControllerError,
  NvmeNamespaceError,
  NvmeResetError,
  NvmeStatusError,
} from '../../../lib/nvme/index.js';
import { getEventListeners } from 'node:events';
import { Disk, type DiskOptions } from './disk.js';
import type { BlockWrite } from './history.js';
import { isWrong, Machine } from './machine.js';
import { QueueUser } from './queue-user.js';
import type { End, Exchange, Fault, Nature, Pause, Step } from './steps.js';

/** Far more than anything takes that has deadlines of some 100 ms, on any machine. */
const PATIENCE_MS = 30_000;
const CC = 0x14;
const CANARY = 0xc5;
/** What comes of a command without anybody's fault. */
const ABORTED = ['ABORT_REQUESTED', 'ABORTED_SQ_DELETION', 'ABORTED_BY_HOST'];
const INJECTED = ['UNRECOVERED_READ_ERROR', 'WRITE_FAULT', 'INTERNAL_ERROR'];
/** The least default deadline; less than it makes no command late. */
const LEAST_TIMEOUT_MS = 100;
/** A turn of the loop that takes longer may make commands late, and where it takes as long as that a start fails. */
const LONG_TURN_MS = LEAST_TIMEOUT_MS / 4;
const LONGEST_TURN_MS = 250;
const HEARTBEAT_MS = 5;
const SOME_TURNS_MS = 100;
/** Long after a deadline: no call is carried out then. */
const LONG_AFTER_MS = 1_000;
/** More than a call takes of the heap that makes its commands as there is room for them. */
const MOST_HEAP_BYTES = 4 << 20;
/** Of one call. With more than one page of a PRP list where a command may have as much. */
const MOST_DATA_BYTES = 512 << 10;
const MOST_LONG_DATA_BYTES = 3 << 20;
/** As many bounce pages a queue has, or for two commands. */
const LEAST_POOL_BYTES = 1 << 20;
const NO_EUI64 = '0'.repeat(16);
const NO_NGUID = '0'.repeat(32);
const SUBSYSTEM = 'nqn.2014-08.org.nvmexpress:model';

/** What may make calls fail, on one device, besides deadlines. */
interface Causes {
  /** It was closed, or the connection ended. */
  ends: boolean;
  /** The controller may not come back. */
  fails: boolean;
  /** There was another disk. */
  changes: boolean;
  /** The controller was reset, or may have been because of a deadline. */
  resets: boolean;
  /** Commands may be late without having a deadline of their own. */
  delays: boolean;
}

/** A device, for as long as it is open. */
export interface Session {
  device: Device;
  controller: NvmeController | undefined;
  queues: QueueUser[];
  /** Those of calls that are under way. */
  buffers: Set<DmaBuffer>;
  causes: Causes;
  /** Address of the first free page of DMA memory, at first. */
  firstFree: bigint;
  isUnmapped: boolean;
  /** Its server has gone, or CSTS.RDY has stuck: memory may be given back later. */
  isDisturbed: boolean;
  /** The connection is lost, and may come back. */
  isLost: boolean;
  /** How often it was. */
  losses: number;
  isOver: boolean;
}

interface Call {
  label: string;
  session: Session | undefined;
  /** Whose it is, of those that are a queue's. */
  user: QueueUser | undefined;
  hasOwnDeadline: boolean;
  timeoutMs: number | undefined;
  abort: AbortController | undefined;
  array: Buffer | undefined;
  isTransferred: boolean;
  outcome: string | undefined;
  settled: Promise<void>;
}

interface CallOf<T> {
  label: string;
  promise: Promise<T>;
  session?: Session | undefined;
  user?: QueueUser;
  hasOwnDeadline?: boolean;
  timeoutMs?: number | undefined;
  abort?: AbortController | undefined;
  array?: Buffer;
  onValue?: (value: T) => unknown;
  onError?: (error: unknown) => unknown;
}

export class World {
  readonly #nature: Nature;
  readonly #directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-model-'));
  readonly #path = path.join(this.#directory, 's');
  readonly #disks = new Map<Exchange, Disk>();
  readonly #machine: Machine;
  readonly #calls: Call[] = [];
  readonly #errors = new Set<unknown>();
  readonly #problems: string[] = [];
  readonly #log: string[] = [];
  readonly #begun = performance.now();
  readonly #sessions: Session[] = [];
  /** Writes of which nobody was told whether the device was done with them. */
  readonly #unknown = new Set<BlockWrite>();
  /** Memory that was given back and had by others since. */
  readonly #canaries: DmaBuffer[] = [];
  #session: Session | undefined;
  #isOpening = false;
  #hasStatusFaults = false;
  #hasStuck = false;
  #hasDelayed = false;
  #longTurnAt = -Infinity;
  /** A namespace of a running controller was changed: I/O pauses until the driver knows what has become of it. */
  #hasChanged = false;
  #beat = performance.now();
  readonly #heart = setInterval(() => this.#watchLoop(), HEARTBEAT_MS);
  #now = 0;
  #stamp = 0;
  #queueCount = 0;

  constructor(nature: Nature) {
    this.#nature = nature;
    this.#machine = new Machine(this.#path, nature, () => this.#settleUnknown());
  }

  async begin(): Promise<void> {
    await this.#machine.plug(this.#disk('same'));
    this.#open();
    await this.#allSettled('open');
    const buffers = { pages: 2, pageOffset: 0 };
    await this.#create({ entries: 4, completion: 'poll', buffers, timeoutMs: undefined });
    await this.#allSettled('create queue');
  }

  async step(step: Step): Promise<void> {
    this.#note(JSON.stringify(step));
    this.#do(step);
    await pass(step.then, () => this.#nobodyWaitsForNothing());
  }

  /** Ends everything; throws what was wrong. */
  async end(how: End): Promise<void> {
    this.#note(`end: ${how}`);
    try {
      this.#machine.faults.length = 0;
      for (const { store } of this.#disks.values()) store.delays.length = 0;
      await this.#bounded('the machine', this.#machine.settled());
      if (this.#machine.emulated !== undefined) this.#machine.emulated.isReadyStuck = false;
      if (how !== 'quiet') this.#endBy(how);
      else if (this.#machine.emulated === undefined) await this.#machine.plug(this.#machine.disk!);
      await this.#polled();
      await this.#allSettled('all calls');
      const session = this.#session;
      if (session !== undefined) {
        await this.#bounded('the device', this.#isBack(session));
        if (how === 'quiet') await this.#isAlive(session);
        await this.#closeAll(session);
      }
      await this.#bounded('the machine', this.#machine.unplug());
      await this.#allSettled('all calls');
      this.#settleUnknown();
      for (const disk of this.#disks.values()) {
        const problem = disk.check(++this.#now);
        if (problem !== undefined) this.problem(problem);
      }
    } finally {
      clearInterval(this.#heart);
      for (const { device } of this.#sessions) await device.close();
      void this.#machine.unplug();
      rmSync(this.#directory, { recursive: true, force: true });
    }
    if (this.#problems.length > 0) throw new Error([...this.#problems, '', ...this.#log].join('\n'));
  }

  // What its parts use.

  /** The clock: each event has a time of its own. */
  now(): number {
    return ++this.#now;
  }

  stamp(): number {
    return ++this.#stamp;
  }

  problem(text: string): void {
    this.#problems.push(text);
    this.#note(`PROBLEM ${text}`);
  }

  call<T>(asked: CallOf<T>): Promise<void> {
    const { label, promise, user, session = user?.session, timeoutMs, abort, onValue, onError } = asked;
    const begun = performance.now();
    const call: Call = { ...NOTHING, ...asked, session };
    if (call.hasOwnDeadline && session !== undefined) session.causes.resets = true;
    const settle = async (outcome: string, then: () => unknown) => {
      if (call.outcome !== undefined) this.problem(`${label} has ended twice: ${call.outcome}, ${outcome}`);
      call.outcome = outcome;
      const isLate = timeoutMs !== undefined && performance.now() - begun > timeoutMs + LONG_AFTER_MS;
      if (isLate && outcome === 'done' && !this.#hadLongTurns(LONG_AFTER_MS))
        this.problem(`${label} is done long after its deadline of ${timeoutMs} ms`);
      this.#note(`${label}: ${outcome}`);
      if (abort !== undefined && !abort.signal.aborted && getEventListeners(abort.signal, 'abort').length > 0)
        this.problem(`${label} has ended, and listens to its signal`);
      try {
        await then();
      } catch (error) {
        this.problem(`${label}: ${String(error)}`);
      }
    };
    call.settled = promise.then(
      (value) => settle('done', () => onValue?.(value)),
      (error: unknown) => {
        this.#judge(call, error);
        return settle(String(error), () => onError?.(error));
      },
    );
    this.#calls.push(call);
    return call.settled;
  }

  /** What `run` gives; undefined where it threw. */
  attempt<T>(label: string, user: QueueUser, run: () => T): T | undefined {
    try {
      return run();
    } catch (error) {
      this.#note(`${label}: ${String(error)}`);
      this.#judge({ ...NOTHING, label, session: user.session, user }, error);
      return undefined;
    }
  }

  /** What `run` gives, which takes memory for as many commands as there is room for. */
  takesLittle<T>(label: string, run: () => T): T {
    const before = process.memoryUsage().heapUsed;
    const result = run();
    const bytes = process.memoryUsage().heapUsed - before;
    if (bytes > MOST_HEAP_BYTES) this.problem(`${label} takes ${bytes} bytes at once`);
    return result;
  }

  /** Of one call, bytes. */
  get mostDataBytes(): number {
    const { size, mdts } = this.#nature;
    return size === 'large' && mdts === 0 ? MOST_LONG_DATA_BYTES : MOST_DATA_BYTES;
  }

  /** A write that is about to be sent may come to another disk than `disk`, whose place that has taken. */
  mayStray(write: BlockWrite, disk: Disk): void {
    const { isReplaced, disk: there } = this.#machine;
    if (isReplaced && there !== undefined && there !== disk) there.history.share(write);
  }

  /** A write was not sent. */
  forget(write: BlockWrite): void {
    for (const { history } of this.#disks.values()) history.forget(write);
  }

  /** Whether the device is done with what a call was told that error of. */
  isDone(error: unknown, session: Session): boolean {
    if (error instanceof NvmeControllerError) return false;
    // Of a queue that was closed it is.
    return !(error instanceof ClosedError) || session.controller?.state === 'live';
  }

  isUnknown(write: BlockWrite, { controller }: Session): void {
    if (controller?.state === 'live') write.end = this.now();
    else this.#unknown.add(write);
  }

  judgeStatus(label: string, { session, isAstray }: QueueUser, status: string, isCompare: boolean): void {
    // The disk that it has come to may be smaller.
    if (isAstray && status === 'LBA_OUT_OF_RANGE') return;
    if (ABORTED.includes(status) || (isCompare && status === 'COMPARE_FAILURE')) return;
    if (this.#hasStatusFaults && INJECTED.includes(status)) return;
    if (session.isUnmapped && status === 'DATA_TRANSFER_ERROR') return;
    this.problem(`${label}: status ${status} came from nowhere`);
  }

  /** A buffer is the caller's again: it is freed, and whoever has its memory next sees nothing of the device. */
  handOver(buffer: DmaBuffer, session: Session): void {
    const { device } = session;
    const { size } = buffer;
    const promise = buffer.free().then(async () => {
      if (device !== this.#session?.device || this.#canaries.length >= 8) return;
      const canary = await device.dma.alloc(size);
      canary.bytes.fill(CANARY);
      this.#canaries.push(canary);
    });
    void this.call({ label: 'free', promise, session });
  }

  #do(step: Step): void {
    const session = this.#session;
    const controller = session?.controller;
    const { emulated, disk } = this.#machine;
    switch (step.do) {
      case 'open':
        this.#open();
        break;
      case 'create queue':
        void this.#create(step);
        break;
      case 'call':
        this.#user(step.queue)?.call(step);
        break;
      case 'submit':
        this.#user(step.queue)?.submit(step);
        break;
      case 'ring':
        this.#user(step.queue)?.ring();
        break;
      case 'poll':
        this.#user(step.queue)?.poll();
        break;
      case 'close queue':
        this.#closeQueue(this.#user(step.queue));
        break;
      case 'fault':
        if (typeof step.fault === 'object' ? 'status' in step.fault : step.fault === 'bad status')
          this.#hasStatusFaults = true;
        if (step.of === 'admin' || isWrong(step.fault)) this.#mayFail();
        if (isLate(step.fault)) this.mayDelay();
        this.#machine.faults.push({ of: step.of, fault: step.fault, left: step.times });
        break;
      case 'slow disk':
        if (step.times * step.delayMs >= LEAST_TIMEOUT_MS / 2) this.mayDelay();
        for (let i = 0; i < step.times; i++) disk?.store.delays.push(step.delayMs);
        break;
      case 'abort':
        this.#pending(step.which, ({ abort }) => abort !== undefined)?.abort?.abort(new Error('given up'));
        break;
      case 'transfer array': {
        const call = this.#pending(
          step.which,
          ({ array, isTransferred }) => array !== undefined && !isTransferred,
        );
        if (call === undefined) break;
        call.isTransferred = true;
        structuredClone(call.array!.buffer, { transfer: [call.array!.buffer as ArrayBuffer] });
        break;
      }
      case 'free buffer': {
        const buffers = [...(session?.buffers ?? [])];
        const buffer = buffers[step.which % Math.max(1, buffers.length)];
        if (session === undefined || buffer === undefined) break;
        session.causes.ends = true;
        void this.call({ label: 'free', promise: buffer.free(), session });
        break;
      }
      case 'reset':
        if (session !== undefined) session.causes.resets = true;
        if (controller !== undefined)
          void this.call({ label: 'reset', promise: controller.reset(), session });
        break;
      case 'close controller':
        if (session !== undefined) void this.#closeController(session);
        break;
      case 'close device':
        this.#closeDevice();
        break;
      case 'unmap all':
        if (session === undefined || session.isOver) break;
        session.isUnmapped = true;
        session.causes.ends = session.causes.fails = true;
        this.mayDelay();
        void this.call({ label: 'unmap all', promise: session.device.dma.unmapAll(), session });
        break;
      case 'grow':
        this.#grow(true);
        break;
      case 'replace':
        this.#replace();
        break;
      case 'stall':
      case 'fail':
        // Only a controller that is live is reset for it.
        if (controller?.state !== 'live' || this.#isOpening) this.#mayFail();
        this.mayDelay();
        if (step.do === 'stall') emulated?.stall();
        else emulated?.fail();
        break;
      case 'settle':
        break;
      case 'stick':
        if (emulated === undefined) break;
        this.#mayFail();
        this.mayDelay();
        if (session !== undefined) session.isDisturbed = true;
        this.#hasStuck = true;
        emulated.isReadyStuck = true;
        setTimeout(() => (emulated.isReadyStuck = false), step.forMs);
        break;
      case 'exchange':
        this.#exchange(step.to, step.afterMs);
    }
  }

  #open(): void {
    const session = this.#session;
    const { state } = session?.controller ?? {};
    if (this.#isOpening) return;
    if (session?.isOver === false && (state === 'live' || state === 'resetting')) {
      this.#openBeside(session);
      return;
    }
    this.#isOpening = true;
    const promise = this.#openNow().finally(() => (this.#isOpening = false));
    void this.call({ label: 'open', promise, session: this.#session });
  }

  /** A second driver is refused, and changes nothing. */
  #openBeside({ device }: Session): void {
    const refused = NvmeController.open(device).then(
      () => this.problem('one device has two drivers'),
      (error: unknown) => {
        if (!(error instanceof TypeError)) throw error;
      },
    );
    void this.call({ label: 'open beside', promise: refused });
  }

  async #openNow(): Promise<void> {
    let session = this.#session;
    if (session?.controller !== undefined) await this.#closeController(session);
    if (session === undefined || session.isOver) session = await this.#connect();
    const { timeoutMs, retries, size } = this.#nature;
    const mine = session;
    const controller = await NvmeController.open(mine.device, {
      timeoutMs,
      retries,
      ...(size === 'large' ? { maxTransferBytes: 64 << 20 } : {}),
    }).catch((error: unknown) => {
      this.#judge({ ...NOTHING, label: 'open', session: mine }, error);
      throw error;
    });
    // The controller of before is not enabled any more.
    this.#settleUnknown();
    mine.controller = controller;
    mine.queues = [];
    // What failed before does not count for this one.
    if (!mine.isUnmapped) mine.causes.fails = mine.isOver || this.#mayStillFail;
  }

  async #connect(): Promise<Session> {
    const reconnect = this.#nature.reconnects ? { timeoutMs: 2_000 } : false;
    const device = await connect(this.#path, { reconnect, timeoutMs: 10_000 });
    const causes = {
      ends: false,
      fails: this.#mayStillFail,
      changes: false,
      resets: false,
      // A long command may be late by itself, on a machine that is busy.
      delays: this.#hasDelayed || this.#nature.mdts === 0,
    };
    const session: Session = {
      device,
      controller: undefined,
      queues: [],
      buffers: new Set(),
      causes,
      firstFree: 0n,
      isUnmapped: false,
      isDisturbed: false,
      isLost: false,
      losses: 0,
      isOver: false,
    };
    this.#session = session;
    this.#sessions.push(session);
    device.on('lost', () => {
      session.isLost = true;
      session.losses++;
    });
    device.on('reconnected', () => (session.isLost = false));
    void device.closed.then(() => {
      session.isOver = true;
      this.#note('the device is over');
    });
    session.firstFree = await firstFree(device);
    return session;
  }

  #create(options: Extract<Step, { do: 'create queue' }> | CreateOptions): Promise<void> | undefined {
    const session = this.#session;
    const controller = session?.controller;
    if (session === undefined || controller === undefined) return undefined;
    const { entries, completion, buffers, timeoutMs } = options;
    const name = `queue ${++this.#queueCount}`;
    return this.call({
      label: `create ${name}`,
      session,
      promise: controller.createQueue({
        entries,
        completion,
        timeoutMs,
        ...(buffers ? { buffers: QueueUser.buffers(buffers, controller.maxTransferBytes) } : {}),
      }),
      onValue: (queue) => {
        const disk = this.#diskOf(controller, queue.namespace);
        if (disk === undefined) this.problem(`${name} is of no disk that there was`);
        else {
          const user = new QueueUser(this, session, queue, disk, name);
          user.isAstray = this.#machine.isReplaced && disk !== this.#machine.disk;
          session.queues.push(user);
        }
      },
    });
  }

  #diskOf(
    { identity }: NvmeController,
    { identity: { eui64, nguid }, blockSize, blocks }: QueueUser['queue']['namespace'],
  ) {
    return [...this.#disks.values()].find(
      (disk) =>
        disk.serialNumber === identity.serialNumber &&
        disk.modelNumber === identity.modelNumber &&
        disk.subsystemNqn === identity.subsystemNqn &&
        disk.eui64 === eui64 &&
        disk.nguid === nguid &&
        disk.blockSize === blockSize &&
        disk.sizes.includes(blocks),
    );
  }

  #closeQueue(user: QueueUser | undefined): void {
    const session = this.#session;
    if (user === undefined || session === undefined) return;
    session.causes.ends = true;
    user.isClosing = true;
    void this.call({
      label: `close ${user.name}`,
      session,
      promise: user.queue.close(),
      onValue: () => {
        user.isClosed = true;
        user.poll();
        this.#isUnused(user);
      },
    });
  }

  #isUnused({ queue, name }: QueueUser): void {
    if (queue.inFlight !== 0) this.problem(`${name} is closed, with ${queue.inFlight} commands in flight`);
  }

  #closeController(session: Session): Promise<void> | undefined {
    const { controller, queues, device } = session;
    if (controller === undefined) return undefined;
    session.causes.ends = true;
    const closed = async () => {
      for (const user of queues) {
        user.poll();
        this.#isUnused(user);
      }
      if (controller.state !== 'closed') this.problem(`the controller is closed, and ${controller.state}`);
      if (controller !== session.controller) return;
      const configuration = await device
        .bar(0)
        .readUInt32(CC)
        .catch(() => 0);
      if (!this.#isOpening && (configuration & 1) !== 0)
        this.problem('the controller is closed, and CC.EN is 1');
    };
    return this.call({
      label: 'close controller',
      session,
      promise: controller.close(),
      onValue: closed,
      onError: closed,
    });
  }

  #closeDevice(): void {
    const session = this.#session;
    if (session === undefined) return;
    session.causes.ends = true;
    void this.call({ label: 'close device', promise: session.device.close(), session });
  }

  #grow(isLive: boolean): void {
    const { disk } = this.#machine;
    if (disk === undefined || disk.sizes.length > 1) return;
    const blocks = 2 * disk.blocks;
    if (blocks * disk.blockSize > disk.store.size) return;
    disk.sizes.push(blocks);
    // Nobody knows whether it is the same.
    if (!disk.hasIdentifier && this.#session !== undefined) this.#session.causes.changes = true;
    this.#hasChanged = true;
    if (isLive) this.#machine.replace(disk);
  }

  /** Another namespace, of the controller that goes on: what is sent before the driver knows comes to that. */
  #replace(): void {
    const { disk, emulated } = this.#machine;
    const isFirst = disk === this.#disks.get('same');
    const isOther = disk === this.#disks.get('identifier') && !this.#disks.has('smaller');
    if (disk === undefined || emulated === undefined || !(isFirst || isOther)) return;
    const next = this.#disk(isFirst ? 'identifier' : 'same');
    this.#hasChanged = true;
    for (const write of disk.history.writes) if (write.end === Infinity) next.history.share(write);
    if (this.#session !== undefined) {
      this.#session.causes.changes = true;
      for (const user of this.#session.queues) user.isAstray ||= user.disk !== next;
    }
    this.#machine.replace(next);
  }

  /** The disk of the beginning, and others that differ from it in one thing. */
  #disk(which: Exchange): Disk {
    const key = which === 'grown' ? 'same' : which;
    const known = this.#disks.get(key);
    if (known !== undefined) return known;
    const { blockSize, size, identifier } = this.#nature;
    const own = key === 'format' ? 4608 - blockSize : blockSize;
    const blocks = size === 'vast' ? 2 ** 32 + 4096 : (size === 'large' ? 80 << 20 : 1 << 20) / blockSize;
    const options: DiskOptions = {
      serialNumber: key === 'serial' ? 'DISK-B' : 'DISK-A',
      modelNumber: key === 'model' ? 'B' : 'A',
      subsystemNqn: key === 'subsystem' ? `${SUBSYSTEM}-b` : SUBSYSTEM,
      eui64: identifier === 'eui64' ? '02ffffff00000001' : NO_EUI64,
      nguid: identifier === 'nguid' ? '1'.repeat(32) : NO_NGUID,
      blockSize: own,
      blocks: key === 'smaller' ? blocks / 2 : key === 'larger' ? 3 * blocks : blocks,
    };
    if (key === 'identifier' && identifier === 'nguid') options.nguid = '2'.repeat(32);
    else if (key === 'identifier') options.eui64 = '02ffffff00000002';
    const disk = new Disk(options, size === 'small' && key === 'same' ? 2 * blocks : options.blocks);
    for (const lba of [0, 7, options.blocks >>> 1, 65_535, 65_536, options.blocks - 1]) {
      if (lba < options.blocks) disk.prefill(lba, this.stamp());
    }
    this.#disks.set(key, disk);
    return disk;
  }

  /** What is plugged in where `which` is asked for: what can be told from what was there before. */
  #distinct(which: Exchange): Exchange {
    const hasIdentifier = this.#nature.identifier !== 'none';
    const isFirst = which === 'same' || which === 'grown' || (which === 'larger' && hasIdentifier);
    if (!isFirst) return which;
    // After the smaller one the first would be taken for the same, grown.
    if (hasIdentifier && this.#disks.has('smaller')) return 'smaller';
    return which === 'larger' ? 'same' : which;
  }

  #exchange(which: Exchange, afterMs: number): void {
    const session = this.#session;
    const to = this.#distinct(which);
    this.mayDelay();
    if (session !== undefined) {
      session.causes.ends = session.causes.resets = session.isDisturbed = true;
      if (to !== 'same' && to !== 'grown') session.causes.changes = session.causes.fails = true;
    }
    void this.#machine.unplug();
    const disk = this.#disk(to);
    const before = this.#machine.disk;
    if (to === 'grown' && before === disk) this.#grow(false);
    if (before !== disk && session !== undefined) session.causes.changes = session.causes.fails = true;
    void this.#machine.plug(disk, afterMs);
  }

  #endBy(how: Exclude<End, 'quiet'>): void {
    if (how === 'close controller' && this.#session !== undefined) void this.#closeController(this.#session);
    if (how === 'close device') this.#closeDevice();
    if (how === 'unmap all') this.#do({ do: 'unmap all', then: 'nothing' });
    if (how === 'cut') {
      if (this.#session !== undefined) this.#session.causes.ends = this.#session.causes.fails = true;
      this.mayDelay();
      void this.#machine.unplug();
    }
  }

  /** Whoever submits commands takes their completions. */
  async #polled(): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    const users = this.#sessions.flatMap(({ queues }) => queues);
    for (const user of users) user.ring();
    while (users.filter((user) => user.poll()).length > 0) {
      if (performance.now() > deadline) {
        this.problem('submitted commands are not reported');
        return;
      }
      await sleep(2);
    }
  }

  /** After all that it has been through: what is not broken works. */
  async #isAlive(session: Session): Promise<void> {
    const { controller, causes } = session;
    if (controller === undefined || session.isOver || causes.fails || this.#isOpening) return;
    if (causes.ends && controller.state === 'closed') return;
    for (const user of session.queues) {
      // It has to be told that its namespace is another one.
      const isOther = user.disk !== this.#machine.disk;
      if (!user.isClosed && isOther) await this.#tried(session, () => this.#hasEnded(user));
    }
    await this.#tried(session, async () => {
      const open = session.queues.find(({ isClosed, isEnded }) => !isClosed && !isEnded);
      const queue = open?.queue ?? (await controller.createQueue({ entries: 4 }));
      if (this.#diskOf(controller, queue.namespace) !== this.#machine.disk)
        return 'it is of a disk that is not there';
      try {
        await queue.flush();
        await queue.read(0, 1);
      } catch (error) {
        if (!(error instanceof NvmeNamespaceError && causes.changes)) throw error;
        if (open !== undefined) open.isEnded = true;
        return String(error);
      }
      if (open === undefined) await queue.close();
      return undefined;
    });
    for (const user of session.queues) {
      await this.#isGivenBackBy(user).catch((error: unknown) => {
        // On a machine that is busy a controller may have failed meanwhile: what it does took too long.
        if (!causes.fails && !this.#hadLongTurns(LONG_AFTER_MS)) throw error;
        this.#note(`${user.name}: ${String(error)}`);
      });
    }
  }

  /** Tries until it works; `attempt` says why it does not. */
  async #tried(session: Session, attempt: () => Promise<string | undefined>): Promise<void> {
    const { controller, causes } = session;
    for (let tries = 0; ; tries++) {
      const why = await attempt().catch((error: unknown) => {
        // The connection had ended, and nobody knew yet.
        if (session.isOver && causes.ends) return undefined;
        const mayPass =
          error instanceof TimeoutError || error instanceof NvmeResetError || error instanceof ClosedError;
        if (mayPass && tries < 20) return String(error);
        this.problem(`nothing is broken, and it does not work: ${String(error)} (${controller!.state})`);
        return undefined;
      });
      if (why === undefined) return;
      if (tries === 40) {
        this.problem(`nothing is broken, and it does not work: ${why}`);
        return;
      }
      await sleep(50);
    }
  }

  async #hasEnded(user: QueueUser): Promise<string | undefined> {
    if (user.isEnded) return undefined;
    try {
      await user.queue.read(0, 1);
    } catch (error) {
      if (!(error instanceof NvmeNamespaceError)) throw error;
      user.isEnded = true;
      return undefined;
    }
    return `${user.name} goes on, and its namespace is another one`;
  }

  /** Nothing is under way, so all slots and bounce pages are free: commands that take all pages are sent at once. */
  async #isGivenBackBy({ queue, name, isClosed, isEnded, session }: QueueUser): Promise<void> {
    if (isClosed) return;
    const deadline = performance.now() + PATIENCE_MS;
    while (queue.inFlight > 0 && performance.now() < deadline) await sleep(5);
    if (queue.inFlight > 0) this.problem(`${name}: ${queue.inFlight} slots are not given back`);
    const { maxTransferBytes } = session.controller!;
    const count = Math.max(2, LEAST_POOL_BYTES / maxTransferBytes);
    const blocks = maxTransferBytes / queue.namespace.blockSize;
    if (isEnded || queue.depth < count || blocks > queue.namespace.blocks) return;
    // They may be long.
    const patient = { timeoutMs: PATIENCE_MS };
    await queue.read(0, 1, patient);
    const reads = Array.from({ length: count }, () => queue.read(0, blocks, patient));
    const { inFlight } = queue;
    await Promise.all(reads);
    if (inFlight < count)
      this.problem(
        `${name}: bounce pages are not given back: there are some for ${inFlight} of ${count} reads`,
      );
  }

  async #closeAll(session: Session): Promise<void> {
    const { device } = session;
    for (const user of session.queues) {
      this.#closeQueue(user);
      user.poll();
    }
    await this.#allSettled('closing queues');
    const closed = this.#closeController(session);
    await this.#allSettled('closing the controller');
    await closed;
    const isReachable = !session.isOver && !session.isUnmapped && this.#machine.emulated !== undefined;
    for (const canary of this.#canaries.splice(0)) {
      if (canary.isClosed) continue;
      if (canary.bytes.some((byte) => byte !== CANARY))
        this.problem('memory was written to after it was given back');
      await canary.free().catch(() => undefined);
    }
    if (isReachable && !session.isDisturbed) await this.#isGivenBack(session);
    // Whoever comes next finds all as it was.
    if (isReachable && !this.#hasStuck) {
      // An exchange of the server's may just have begun, or come while it is opened.
      await this.#isBack(session);
      const { losses } = session;
      const again = NvmeController.open(device).then((controller) => controller.close());
      void this.call({ label: 'open again', promise: again, session: undefined });
      await this.#allSettled('opening again');
      const call = this.#calls.at(-1)!;
      if (call.outcome === 'done') await this.#isGivenBack(session);
      else if (!session.isOver && session.losses === losses) this.problem(`opening again: ${call.outcome}`);
    }
    await device.close();
  }

  async #isGivenBack({ device, firstFree: before }: Session): Promise<void> {
    const address = await firstFree(device).catch(() => before);
    if (address === before) return;
    this.problem(`memory was not given back: the first free page was at ${before}, and is at ${address}`);
  }

  async #isBack(session: Session): Promise<void> {
    while (session.isLost && !session.isOver) await sleep(1);
  }

  #user(which: number): QueueUser | undefined {
    const queues = this.#session?.queues ?? [];
    return queues[which % Math.max(1, queues.length)];
  }

  #pending(which: number, suits: (call: Call) => boolean): Call | undefined {
    const calls = this.#calls.filter((call) => call.outcome === undefined && suits(call));
    return calls[which % Math.max(1, calls.length)];
  }

  /** What was done to the machine may keep a controller from coming up. */
  get #mayStillFail(): boolean {
    return this.#machine.mayFail || this.#hasStuck;
  }

  #mayFail(): void {
    if (this.#session !== undefined) this.#session.causes.fails = true;
  }

  /** On a machine that is busy commands may be late by themselves. */
  #watchLoop(): void {
    const now = performance.now();
    const turnMs = now - this.#beat;
    this.#beat = now;
    if (turnMs < LONG_TURN_MS) return;
    this.#longTurnAt = now;
    this.mayDelay();
    if (turnMs >= LONGEST_TURN_MS) this.#mayFail();
  }

  /** Whether the machine was busy within so many milliseconds. */
  #hadLongTurns(withinMs: number): boolean {
    const now = performance.now();
    return now - this.#beat >= LONG_TURN_MS || now - this.#longTurnAt < withinMs;
  }

  /** Nobody waits while there is room. */
  #nobodyWaitsForNothing(): void {
    const session = this.#session;
    if (session?.controller?.state !== 'live' || this.#hasChanged || this.#isOpening) return;
    // What is done in slices takes longer then.
    if (this.#hadLongTurns(SOME_TURNS_MS)) return;
    if (session.isLost || session.isOver || session.isUnmapped) return;
    for (const user of session.queues) {
      const problem = user.whoWaits();
      if (problem !== undefined) this.problem(problem);
    }
  }

  /** Commands may be late. */
  mayDelay(): void {
    this.#hasDelayed = true;
    if (this.#session !== undefined) this.#session.causes.delays = this.#session.causes.resets = true;
  }

  #settleUnknown(): void {
    for (const write of this.#unknown) write.end = ++this.#now;
    this.#unknown.clear();
  }

  /** Whether that error may come of that call. */
  #judge(call: Call, error: unknown): void {
    const { label, session, abort } = call;
    if (abort?.signal.aborted === true && error === abort.signal.reason) return;
    // Several resets at a time are one, so are closes, also of a buffer; and calls share memory that could not be had.
    const isShared = /^(open|reset|close|free)/.test(label) || /DMA_MAP/.test(String(error));
    if (this.#errors.has(error) && !isShared)
      this.problem(`${label}: another caller got the same error: ${String(error)}`);
    this.#errors.add(error);
    if (error instanceof NvmeNamespaceError && call.user !== undefined) call.user.isEnded = true;
    const wrong = this.#whyNot(call, error);
    if (wrong === undefined) return;
    const stack = error instanceof Error ? error.stack : String(error);
    this.problem(`${label}: ${wrong} (${JSON.stringify(session?.causes)}): ${stack}`);
  }

  #whyNot({ label, session, user, hasOwnDeadline, isTransferred }: Call, error: unknown): string | undefined {
    const causes = session?.causes ?? ANY;
    const isClosing = label.startsWith('close') && error instanceof TimeoutError;
    if (isClosing) return 'it does not close';
    if (error instanceof TimeoutError)
      return hasOwnDeadline || causes.delays ? undefined : 'nothing was late';
    if (error instanceof NvmeResetError) return causes.resets ? undefined : 'nothing was reset';
    if (error instanceof NvmeStatusError) {
      if (user === undefined) return 'not its error';
      this.judgeStatus(label, user, error.statusName, label.includes('compare'));
      return undefined;
    }
    if (error instanceof NvmeControllerError)
      return causes.fails || (label === 'open' && causes.ends)
        ? undefined
        : 'the controller failed for no reason';
    if (error instanceof NvmeNamespaceError)
      return causes.changes ? undefined : 'the namespace is what it was';
    if (error instanceof ClosedError) return causes.ends ? undefined : 'nothing was closed';
    if (error instanceof TransportError) return label === 'open' ? undefined : 'not its error';
    if (error instanceof UnsupportedError) return /in use/.test(error.message) ? undefined : 'not its error';
    if (error instanceof TypeError) return isTransferred ? undefined : 'it is a mistake';
    return 'an error that it must not have';
  }

  async #allSettled(what: string): Promise<void> {
    for (;;) {
      const calls = this.#calls.filter(({ outcome }) => outcome === undefined);
      if (calls.length === 0) break;
      const isDone = await within(Promise.all(calls.map(({ settled }) => settled)));
      if (isDone) continue;
      const left = this.#calls.filter(({ outcome }) => outcome === undefined).map(({ label }) => label);
      this.problem(`${what}: nobody answers ${left.join('; ')}`);
      throw new Error([...this.#problems, '', ...this.#log].join('\n'));
    }
    await Promise.all(this.#calls.map(({ settled }) => settled));
  }

  async #bounded(what: string, promise: Promise<unknown>): Promise<void> {
    if (await within(promise)) return;
    this.problem(`${what} does not end`);
    throw new Error([...this.#problems, '', ...this.#log].join('\n'));
  }

  #note(text: string): void {
    const { state } = this.#session?.controller ?? {};
    this.#log.push(`${(performance.now() - this.#begun).toFixed(0).padStart(5)} ms ${state ?? '-'}: ${text}`);
  }
}

type CreateOptions = Omit<Extract<Step, { do: 'create queue' }>, 'do' | 'then'>;

const ANY: Causes = { ends: true, fails: true, changes: true, resets: true, delays: true };

const NOTHING: Call = {
  label: '',
  session: undefined,
  user: undefined,
  hasOwnDeadline: false,
  timeoutMs: undefined,
  abort: undefined,
  array: undefined,
  isTransferred: false,
  outcome: undefined,
  settled: Promise.resolve(),
};

/** Commands may be late because of it. */
function isLate(fault: Fault): boolean {
  if (typeof fault === 'string') return fault !== 'bad status';
  return 'delayMs' in fault && fault.delayMs >= LEAST_TIMEOUT_MS / 2;
}

/** `look` is called between turns of the loop, when nobody has anything left to hear. */
async function pass(pause: Pause, look: () => void): Promise<void> {
  if (pause === 'microtasks') for (let i = 0; i < 4; i++) await Promise.resolve();
  else if (pause !== 'nothing')
    await new Promise<void>((resolve) => {
      const then = () => {
        look();
        resolve();
      };
      if (pause === 'a turn') setImmediate(then);
      else setTimeout(then, pause);
    });
}

/** Whether it settles within the time that anything may take. */
async function within(promise: Promise<unknown>): Promise<boolean> {
  const stop = new AbortController();
  const late = sleep(PATIENCE_MS, false, { signal: stop.signal }).catch(() => false);
  const isDone = await Promise.race([promise.then(() => true), late]);
  stop.abort();
  return isDone;
}

async function firstFree(device: Device): Promise<bigint> {
  const buffer = await device.dma.alloc(4096);
  const { iova } = buffer;
  await buffer.free();
  return iova;
}
