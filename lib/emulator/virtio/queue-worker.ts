/** Takes the requests of one queue, has them carried out, and gives them back: several at a time, in any order. */
import { TurnPace } from '../../turn-share.js';
import type { Chain } from './chain.js';
import type { DeviceQueue } from './device-queue.js';
import type { VirtioVerdict } from './virtio-faults.js';

export interface QueueWorkerHost {
  /** What becomes of the request. */
  verdict(chain: Chain): Promise<VirtioVerdict>;
  /** Carries it out, or gives it the status. How many bytes were written; undefined where it is given back later. */
  execute(chain: Chain, status: number | undefined): Promise<number | undefined>;
  /** The driver is to hear of what was used. */
  interrupt(): void;
  /** The queue cannot go on. */
  onFault(error: unknown): void;
}

export class QueueWorker {
  readonly #queue: DeviceQueue;
  readonly #host: QueueWorkerHost;
  readonly #pace = new TurnPace();
  readonly #timers = new Set<NodeJS.Timeout>();
  #isTaking = false;
  #isAgain = false;
  #isStopped = false;
  /** What touches the driver's memory. */
  #busy = 0;
  #onIdle: (() => void)[] = [];
  /** Used elements are written one after the other. */
  #using: Promise<void> = Promise.resolve();

  constructor(queue: DeviceQueue, host: QueueWorkerHost) {
    this.#queue = queue;
    this.#host = host;
  }

  get isBusy(): boolean {
    return this.#busy > 0;
  }

  begin(wantsNotifications: boolean): void {
    this.#track(this.#queue.begin(wantsNotifications).then(() => this.look()));
  }

  /** There may be something to take. */
  look(): void {
    if (this.#isStopped) return;
    if (this.#isTaking) this.#isAgain = true;
    else this.#track(this.#takeAll());
  }

  /** Gives back what `execute` has left for later. */
  give(chain: Chain, length: number): void {
    this.#track(this.#use(() => this.#queue.use(chain, length)));
  }

  /** Settles when nothing of the driver's memory is touched any more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    if (this.#busy > 0) await new Promise<void>((resolve) => this.#onIdle.push(resolve));
  }

  async #takeAll(): Promise<void> {
    this.#isTaking = true;
    try {
      do {
        this.#isAgain = false;
        for (let chain = await this.#take(); chain !== undefined; chain = await this.#take()) {
          this.#begin(chain, await this.#host.verdict(chain));
          await this.#pace.rest();
        }
      } while (this.#isAgain);
    } finally {
      this.#isTaking = false;
    }
  }

  async #take(): Promise<Chain | undefined> {
    return this.#isStopped ? undefined : this.#queue.take();
  }

  #begin(chain: Chain, verdict: VirtioVerdict): void {
    if (this.#isStopped || verdict === 'hold') return;
    if (verdict === 'silent') this.give(chain, 0);
    else if (typeof verdict === 'object' && 'delayMs' in verdict) {
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        if (!this.#isStopped) this.#track(this.#run(chain, 'pass'));
      }, verdict.delayMs);
      this.#timers.add(timer);
    } else this.#track(this.#run(chain, verdict));
  }

  async #run(chain: Chain, verdict: VirtioVerdict): Promise<void> {
    const fault = typeof verdict === 'object' ? verdict : undefined;
    const status = fault !== undefined && 'status' in fault ? fault.status : undefined;
    const length = await this.#host.execute(chain, status);
    if (length === undefined || verdict === 'lose') return;
    const queue = this.#queue;
    await this.#use(async () => {
      if (fault !== undefined && 'used' in fault) {
        for (const used of fault.used)
          if (used.id === undefined) await queue.use(chain, used.length ?? length);
          else await queue.useId(used.id, used.length ?? length);
        return;
      }
      await queue.use(chain, length);
      if (verdict === 'scribble') await queue.scribble(chain);
      if (fault !== undefined && 'jump' in fault) await queue.jump(fault.jump);
    });
  }

  #use(write: () => Promise<void>): Promise<void> {
    const done = this.#using.then(async () => {
      if (this.#isStopped) return;
      await write();
      if (await this.#queue.wantsInterrupt()) this.#host.interrupt();
    });
    this.#using = done.catch(() => undefined);
    return done;
  }

  #track(work: Promise<void>): void {
    this.#busy++;
    void work
      .catch((error: unknown) => {
        if (!this.#isStopped) this.#host.onFault(error);
      })
      .finally(() => {
        if (--this.#busy === 0) for (const resolve of this.#onIdle.splice(0)) resolve();
      });
  }
}
