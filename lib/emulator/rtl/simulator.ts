/**
 * What the bridge has the simulator do, one thing after the other: accesses first and, while nobody has one, the clock, as long
 * as the device has something to do and somebody is there to see it.
 */
import { DeviceError, EIO, ETIMEDOUT } from '../device-error.js';
import {
  FrameStatus,
  beatFrame,
  emptyAnswer,
  readAnswer,
  resetFrame,
  runAnswer,
  runFrame,
  type Beat,
  type Frame,
} from './frames.js';
import { RtlError } from './rtl-error.js';
import type { SimulatorLink } from './simulator-link.js';

interface Job {
  readonly run: () => Promise<void>;
  readonly reject: (error: RtlError) => void;
}

export class Simulator {
  readonly #link: SimulatorLink;
  /** Cycles of the clock in one RUN; 0 where it never runs by itself. */
  readonly #runCycles: number;
  /** Whether anybody is there. */
  readonly #isWatched: () => boolean;
  readonly #jobs: Job[] = [];
  #isBusy = false;
  #isIdle = true;
  #reason: RtlError | undefined;

  constructor(link: SimulatorLink, runCycles: number, isWatched: () => boolean) {
    this.#link = link;
    this.#runCycles = runCycles;
    this.#isWatched = isWatched;
    void link.ended.then((reason) => this.#end(reason));
  }

  /** In picoseconds. */
  get time(): bigint {
    return this.#link.time;
  }

  /** @throws DeviceError, RtlError */
  async read(beat: Beat): Promise<bigint> {
    return this.#do(() => this.#exchange(beatFrame(beat), `READ ${placeOf(beat)}`, readAnswer));
  }

  /** @throws DeviceError, RtlError */
  async write(beat: Beat, data: bigint): Promise<void> {
    return this.#do(() => this.#exchange(beatFrame(beat, data), `WRITE ${placeOf(beat)}`, emptyAnswer));
  }

  /** `then` is called before anything else happens. @throws DeviceError, RtlError */
  async reset(then: () => void | Promise<void> = () => undefined): Promise<void> {
    return this.#do(async () => {
      await this.#exchange(resetFrame(), 'RESET', emptyAnswer);
      await then();
    });
  }

  /** Runs the clock for so many cycles. @throws RtlError */
  async advance(cycles: number): Promise<void> {
    const slice = Math.max(this.#runCycles, 1);
    for (let left = cycles; left > 0; left -= slice) {
      await this.#do(() => this.#run(Math.min(left, slice), false));
    }
  }

  /** Something has begun, or somebody has come. */
  wake(): void {
    this.#isIdle = false;
    this.#pumpSoon();
  }

  #do<T>(work: () => Promise<T>): Promise<T> {
    if (this.#reason !== undefined) return Promise.reject(lost(this.#reason));
    return new Promise<T>((resolve, reject) => {
      this.#jobs.push({ run: () => work().then(resolve, reject), reject });
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#isBusy) return;
    const job = this.#jobs.shift();
    if (job === undefined) return;
    void this.#occupy(() => job.run());
  }

  async #occupy(work: () => Promise<void>): Promise<void> {
    this.#isBusy = true;
    await work();
    this.#isBusy = false;
    this.#pump();
    this.#pumpSoon();
  }

  /** An access of several beats is not interrupted by the clock: its next one is there by then. */
  #pumpSoon(): void {
    setImmediate(() => {
      if (this.#isBusy || this.#isIdle || this.#runCycles === 0 || this.#reason !== undefined) return;
      // Its end is told of by `ended`.
      if (this.#isWatched()) void this.#occupy(() => this.#run(this.#runCycles, true).catch(() => undefined));
    });
  }

  async #run(cycles: number, untilIdle: boolean): Promise<void> {
    const { isIdle } = await this.#exchange(
      runFrame(cycles, untilIdle),
      `RUN of ${cycles} cycles`,
      runAnswer,
    );
    this.#isIdle = isIdle;
  }

  async #exchange<T>(request: Buffer, what: string, decode: (frame: Frame) => T): Promise<T> {
    const frame = await this.#link.exchange(request, what);
    this.#isIdle = false;
    switch (frame.status) {
      case FrameStatus.OK:
        return this.#decoded(() => decode(frame));
      case FrameStatus.ERROR:
        throw new DeviceError(EIO, `${what}: the device answered an error`);
      case FrameStatus.TIMEOUT:
        throw new DeviceError(ETIMEDOUT, `${what}: the device was not ready in time`);
      default:
        return this.#decoded(() => {
          throw new RtlError(`${what}: the simulator answered status ${frame.status}`);
        });
    }
  }

  /** What is malformed ends it. */
  #decoded<T>(decode: () => T): T {
    try {
      return decode();
    } catch (error) {
      this.#link.end(error as RtlError);
      throw error;
    }
  }

  #end(reason: RtlError): void {
    this.#reason = reason;
    for (const { reject } of this.#jobs.splice(0)) reject(reason);
  }
}

/** Who waited hears it from the link; to those who come later it is one error like any other. */
function lost(reason: RtlError): DeviceError {
  return new DeviceError(EIO, reason.message, { cause: reason });
}

function placeOf({ region, offset }: Beat): string {
  return `at 0x${offset.toString(16)} of BAR ${region}`;
}
