/** Two machines with a device each: a guest's memory on the one, and where it is to go on the other. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { once } from 'node:events';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { MigrationError, MigrationState, type Device } from '../../../lib/index.js';
import type { Guest } from './guest.js';
import { Machine } from './machine.js';
import { Ram } from './ram.js';
import { Record } from './record.js';
import { Scenes } from './scenes.js';
import { DEAD_ENDS, Side, type Operation } from './side.js';
import type { End, Nature, Pause, Place, Step } from './steps.js';
import { Transfers } from './transfers.js';

const { ERROR, STOP, RUNNING, RESUMING } = MigrationState;
/** Where transfers begin. */
const BEGINNINGS: readonly MigrationState[] = [RUNNING, STOP];
/** At the end nothing is wrong any more, and a deadline that passes says no more than that the machine is busy. */
const CALM = { timeoutMs: 20_000 };
const REPORTS = 4;

type MigrateStep = Omit<Extract<Step, { do: 'migrate' }>, 'do' | 'then'>;

export class World {
  readonly #record = new Record();
  readonly #ram = new Ram(this.#record);
  readonly #transfers = new Transfers(this.#record, this.#ram);
  readonly #directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-model-'));
  readonly #source: Side;
  readonly #destination: Side;
  readonly #scenes: Scenes;
  #isMigrating = false;
  /** The last save that was part of a migration was whole, whatever became of the rest. */
  #isSaved = false;

  constructor(nature: Nature) {
    this.#record.note(JSON.stringify(nature));
    const side = (place: Place) =>
      new Side(place, new Machine(this.#directory, place, nature), this.#record, nature);
    this.#source = side('source');
    this.#destination = side('destination');
    this.#scenes = new Scenes(this.#record, this.#transfers, this.#source, this.#destination);
    this.#ram.fill(this.#source.machine.model.ram);
  }

  async begin(): Promise<void> {
    for (const side of this.#sides) {
      await side.machine.start();
      await side.open();
    }
  }

  async step(step: Step): Promise<void> {
    this.#record.note(JSON.stringify(step));
    this.#do(step);
    if (step.then === 'quiet') await this.#isQuiet('a pause');
    else await pass(step.then);
    this.#look();
  }

  /** Ends everything: a migration that nothing disturbs must succeed. Throws what was wrong. */
  async end(how: End | 'failed'): Promise<void> {
    this.#record.note(`end: ${how}`);
    try {
      if (how === 'close') void this.#source.close();
      if (how === 'cut') this.#cut(this.#source);
      for (const { machine } of this.#sides) machine.line.disarm();
      await this.#isQuiet('the end');
      if (how !== 'failed') await this.#migratesAtLast();
    } finally {
      for (const side of this.#sides) await side.close();
      await this.#record.allSettled('closing');
      for (const { machine } of this.#sides) await machine.close();
      this.#record.close();
      rmSync(this.#directory, { recursive: true, force: true });
    }
    if (this.#record.problems.length > 0) throw this.#record.failure();
  }

  get #sides(): Side[] {
    return [this.#source, this.#destination];
  }

  #do(step: Step): void {
    const side = 'where' in step && step.where === 'destination' ? this.#destination : this.#source;
    const { device, guest } = this.#source;
    switch (step.do) {
      case 'open':
        return void side.open();
      case 'close':
        return void side.close();
      case 'cut':
        return this.#cut(side);
      case 'restart':
        side.disturb();
        return void this.#record.call({ label: 'restart', promise: side.restart() });
      case 'reset':
      case 'transition':
        return void side.change(step.do === 'reset' ? undefined : step.to);
      case 'save':
        return device && void this.#transfers.save(this.#source, device, step);
      case 'restore': {
        const target = this.#destination.device;
        if (target === undefined) return;
        if (this.#destination.machine.state === ERROR) void this.#destination.change(undefined);
        return void this.#transfers.restore(this.#destination, target, step);
      }
      case 'migrate':
        return void this.#migrate(step);
      case 'other':
        return void this.#scenes.other(step);
      case 'restore after one that died':
        return this.#isMigrating ? undefined : void this.#scenes.restoreAfter(step.bytes);
      case 'report that fails':
        return this.#isMigrating ? undefined : void this.#scenes.reportFails(step);
      case 'release':
        return this.#transfers.release();
      case 'poke':
        return device && !this.#isMigrating ? void this.#ram.poke(device, step.which) : undefined;
      case 'abort':
        return this.#record.abortOne(step.which);
      case 'fault':
        return side.machine.line.arm(step.fault);
      default:
        return guest && doWithMemory(guest, step);
    }
  }

  #cut(side: Side): void {
    void this.#record.call({ label: 'cut', promise: side.cut() });
  }

  /** All of it: the memory is copied while the device runs, the device stopped, and its state goes over. */
  async #migrate(step: MigrateStep): Promise<void> {
    const [source, destination] = [this.#source, this.#destination];
    const { device, guest } = source;
    const target = destination.device;
    if (this.#isMigrating || device === undefined || guest === undefined || target === undefined) return;
    this.#isMigrating = true;
    try {
      for (const side of [source, destination]) await side.ready();
      if (!guest.isWatched) await guest.watch();
      for (let round = 0; round < step.rounds; round++) await guest.report();
      const saving = source.begin('migrate (save)', device);
      const restoring = destination.begin('migrate (restore)', target);
      const before = Buffer.from(destination.machine.model.ram);
      const abort = step.isAbortable ? new AbortController() : undefined;
      let isDone = false;
      await this.#record.call({
        label: 'migrate',
        abort,
        promise: this.#move(device, target, { preCopy: step.preCopy, signal: abort?.signal }),
        onValue: () => void (isDone = true),
        whyNot: (error) => this.#whyNotMigrate([saving, restoring], error),
      });
      await source.isBack(device);
      await destination.isBack(target);
      if (isDone) await this.#hasMoved(guest, restoring);
      else {
        // A save that has ended leaves the device in STOP; it is for whoever migrates to set it running again.
        if (!this.#isSaved) this.#transfers.isHome(source, saving);
        this.#transfers.isQuiet(destination, restoring, before);
      }
      source.end(saving);
      destination.end(restoring);
      // The source runs on.
      if (this.#isSaved && source.device === device) void source.change(RUNNING);
    } finally {
      this.#isMigrating = false;
    }
  }

  /** The stream is kept as it passes. */
  async #move(
    device: Device,
    target: Device,
    options: { preCopy: boolean; signal?: AbortSignal | undefined; timeoutMs?: number },
  ): Promise<void> {
    const { timeoutMs } = options;
    const chunks: Buffer[] = [];
    this.#isSaved = false;
    const kept = new Transform({
      transform: (chunk: Buffer, _encoding, done) => done(null, (chunks.push(chunk), chunk)),
    });
    const { signal } = options;
    const save = device.migration.save({ preCopy: options.preCopy, chunkBytes: 16_384, timeoutMs, signal });
    const restore = target.migration.restore({ timeoutMs, signal });
    const ends = [save, restore].map((stream) => once(stream, 'close').catch(() => undefined));
    try {
      await pipeline(save, kept, restore);
    } finally {
      // Where one has failed, the other one leaves as well.
      for (const [i, stream] of [save, restore].entries()) if (!stream.closed) await ends[i];
      this.#isSaved = save.readableEnded;
    }
    this.#transfers.isWhole(Buffer.concat(chunks));
    this.#transfers.last = Buffer.concat(chunks);
  }

  /** The destination equals the source: the device's state, and the memory copied by dirty pages. */
  async #hasMoved(guest: Guest, restoring: Operation): Promise<void> {
    if (this.#destination.isClean(restoring, 0))
      this.#transfers.hasArrived(this.#destination, this.#transfers.last!, RUNNING);
    for (let i = 0; i < REPORTS && guest.isWatched && this.#source.guest === guest; i++) {
      if (await guest.report()) break;
    }
  }

  #whyNotMigrate([saving, restoring]: [Operation, Operation], error: unknown): string | undefined {
    if (error instanceof Error && 'code' in error && /PREMATURE_CLOSE|ABORT_ERR/.test(String(error.code)))
      return undefined;
    const ofSource = this.#source.whyNot(saving, error);
    const ofDestination = this.#destination.whyNot(restoring, error);
    const isElsewhere =
      error instanceof MigrationError &&
      (!BEGINNINGS.includes(saving.stateBefore) ||
        ![...BEGINNINGS, RESUMING].includes(restoring.stateBefore));
    return isElsewhere ? undefined : ofSource && ofDestination;
  }

  /** With nothing wrong any more, out of whatever there is. */
  async #migratesAtLast(): Promise<void> {
    for (const side of this.#sides) {
      await this.#opened(side);
      await this.#expect(`the ${side.place} recovers`, this.#recover(side));
    }
    const { device, guest } = this.#source;
    const target = this.#destination.device!;
    await this.#ram.poke(device!, 3);
    if (!guest!.isWatched) await guest!.watch(CALM);
    for (let block = 0; block < 3; block++)
      await guest!.dma({
        block,
        at: 5_000 * block,
        length: 20_000,
        isPosted: block === 1,
        isByMessage: block === 2,
      });
    if (!this.#isStillThere(device!, target)) return;
    await this.#expect('the last migration', this.#move(device!, target, { preCopy: true, ...CALM }));
    if (this.#source.machine.state !== STOP) this.#record.problem('the source is not stopped at the end');
    if (!this.#destination.machine.model.ram.equals(this.#source.machine.model.ram))
      this.#record.problem('the destination is not what the source is');
    while (!guest!.isIdle) await sleep(10);
    let isGood = false;
    for (let i = 0; i < REPORTS && !isGood; i++) isGood = await guest!.report(CALM);
    if (!isGood) this.#record.problem('the last report fails');
    guest!.compare();
    await this.#expect('the source runs on', device!.migration.transition(RUNNING, CALM));
  }

  #isStillThere(...devices: Device[]): boolean {
    return devices.every((device) => this.#sides.some((side) => side.device === device));
  }

  async #opened(side: Side): Promise<void> {
    for (let tries = 0; side.device === undefined && tries < 20; tries++) {
      await side.open(CALM.timeoutMs);
      if (side.device === undefined) await sleep(20);
    }
    if (side.device === undefined) throw this.#failed(`the ${side.place} cannot be opened`);
  }

  /** As the documentation says: out of a transfer that was left by a transition, out of the rest by a reset. */
  async #recover({ device, machine }: Side): Promise<void> {
    if (DEAD_ENDS.includes(machine.state)) await device!.reset(CALM);
    if (machine.state !== RUNNING) await device!.migration.transition(RUNNING, CALM);
  }

  async #expect(what: string, work: Promise<void>): Promise<void> {
    await this.#record.call({ label: what, promise: work, whyNot: () => 'nothing is wrong, and it fails' });
    if (this.#record.problems.length > 0) throw this.#record.failure();
  }

  #failed(problem: string): Error {
    this.#record.problem(problem);
    return this.#record.failure();
  }

  async #isQuiet(what: string): Promise<void> {
    this.#transfers.release();
    for (const { machine } of this.#sides) await this.#record.bounded('a restart', machine.settled());
    await this.#record.allSettled(what);
    for (const side of this.#sides)
      if (side.device !== undefined) await this.#record.bounded('coming back', side.isBack(side.device));
    await this.#record.allSettled(what);
    while (this.#isMigrating) await sleep(1);
  }

  /** What holds at all times. */
  #look(): void {
    for (const { place, machine } of this.#sides) {
      if (machine.isStopped && machine.isCopying)
        this.#record.problem(`the ${place} is stopped, and its DMA goes on`);
    }
  }
}

function doWithMemory(
  guest: Guest,
  step: Extract<Step, { do: 'watch' | 'unwatch' | 'report' | 'dma' | 'plug' | 'unplug' }>,
): void {
  switch (step.do) {
    case 'watch':
      return void guest.watch();
    case 'unwatch':
      return void guest.unwatch();
    case 'report':
      return void guest.report(step);
    case 'dma':
      return void guest.dma(step);
    case 'plug':
      return void guest.plug();
    case 'unplug':
      return void guest.unplug(step.which);
  }
}

async function pass(pause: Exclude<Pause, 'quiet'>): Promise<void> {
  if (pause === 'microtasks') for (let i = 0; i < 4; i++) await Promise.resolve();
  else if (pause === 'a turn') await new Promise((resolve) => setImmediate(resolve));
  else if (pause !== 'nothing') await sleep(pause);
}
