/**
 * DMA buffers under any interleaving of alloc, close, abort, use, unmapAll and a server that answers, refuses or is slow. No
 * two buffers that live ever share a byte; each call settles once; and when all are closed all bytes can be had again.
 *
 * spec/support/model-run.ts has the environment that runs a failure again.
 */
import { test } from '@jest/globals';
import fc from 'fast-check';
import type { DmaBuffer } from '../../lib/device/dma.js';
import { DmaBatchError, TimeoutError } from '../../lib/errors.js';
import { assertModel, modelRun } from '../support/model-run.js';
import { DmaDevice, turn, until } from './dma-device.js';

const ARENA = 2 << 20;
const LARGE = 3 << 20;
const EIO = 5;
const RUN = modelRun({ seed: 5_000, runs: 200, lanes: 4 });

type Step =
  | { do: 'alloc'; size: number }
  | { do: 'close'; which: number; timeoutMs: number | undefined }
  | { do: 'abort' | 'begin' | 'end' | 'abort and end' | 'end and abort'; which: number }
  | { do: 'server'; how: 'serves' | 'refuses' | 'is silent' }
  | { do: 'answer' }
  | { do: 'unmapAll' }
  | { do: 'turn' };

const which = fc.nat(63);
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('alloc' as const),
      size: fc.constantFrom(64, 4096, 1 << 20, LARGE),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('close' as const),
      which,
      timeoutMs: fc.constantFrom(undefined, 1, 3, Infinity),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constantFrom('abort', 'begin', 'begin', 'end', 'abort and end', 'end and abort'),
      which,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('server' as const),
      how: fc.constantFrom('serves', 'refuses', 'is silent'),
    }),
  },
  { weight: 5, arbitrary: fc.record({ do: fc.constantFrom('answer', 'unmapAll', 'turn', 'turn', 'turn') }) },
);

const ALL = 'UNMAP 0x0+0x0';

interface Held {
  buffer: DmaBuffer;
  uses: number;
  /** A close of it has resolved: its bytes may be another's. */
  isReturned: boolean;
  /** Its mapping was, or was to be, taken away. */
  wasReleased: boolean;
  abort: AbortController;
}

interface Range {
  iova: bigint;
  size: number;
}

function overlap(one: Range, other: Range): boolean {
  return one.iova < other.iova + BigInt(other.size) && other.iova < one.iova + BigInt(one.size);
}

class World {
  readonly #device: DmaDevice;
  readonly #held: Held[] = [];
  /** Of these nobody knows whether the server has them: an unmapAll was given up. */
  readonly #reserved: Range[] = [];
  readonly #problems: string[] = [];
  #waiting = 0;

  constructor(device: DmaDevice) {
    this.#device = device;
    this.#serve('serves');
  }

  async step(step: Step): Promise<void> {
    switch (step.do) {
      case 'alloc':
        this.#alloc(step.size);
        break;
      case 'unmapAll':
        this.#unmapAll();
        break;
      case 'turn':
        await turn(1);
        break;
      case 'answer':
        this.#answer();
        break;
      case 'server':
        this.#serve(step.how);
        break;
      case 'close':
        this.#with(step.which, (held) => this.#close(held, step.timeoutMs));
        break;
      default:
        this.#with(step.which, (held) => {
          if (step.do.startsWith('abort')) held.abort.abort(new Error('aborted'));
          if (step.do === 'begin') this.#begin(held);
          if (step.do.includes('end')) this.#end(held);
          if (step.do.endsWith('abort')) held.abort.abort(new Error('aborted'));
        });
    }
    this.#check();
  }

  /** Everything is let go of; then all bytes can be had. */
  async finish(): Promise<void> {
    this.#serve('serves');
    while (this.#device.silenced.length > 0) this.#answer();
    for (const held of this.#held) while (held.uses > 0) this.#end(held);
    await until(() => this.#waiting === 0, 'each call settles');
    for (const held of this.#held) {
      // The first may be of a DMA_UNMAP under way, which is refused.
      await held.buffer.close().catch(() => held.buffer.close());
      if (!held.buffer.isClosed) this.#problems.push('a buffer is not closed');
    }
    await this.#takeAll();
    if (this.#problems.length > 0) throw new Error(this.#problems.join('\n'));
  }

  #with(number: number, work: (held: Held) => void): void {
    const held = this.#held[number % Math.max(1, this.#held.length)];
    if (held !== undefined) work(held);
  }

  #serve(how: 'serves' | 'refuses' | 'is silent'): void {
    const fate = { serves: undefined, refuses: EIO, 'is silent': 'silence' as const }[how];
    this.#device.fate = (line) => {
      if (line === ALL && how === 'serves') this.#device.maps.clear();
      return line.startsWith('UNMAP') ? fate : undefined;
    };
  }

  #alloc(size: number): void {
    const allocated = this.#device.dma.alloc(size).then((buffer) => {
      const held = { buffer, uses: 0, isReturned: false, wasReleased: false, abort: new AbortController() };
      buffer.onRelease(() => (held.wasReleased = true));
      this.#held.push(held);
      this.#check();
    });
    this.#follow(allocated);
  }

  #close(held: Held, timeoutMs: number | undefined): void {
    if (held.abort.signal.aborted) held.abort = new AbortController();
    const closing = held.buffer.close({ timeoutMs, signal: held.abort.signal });
    this.#follow(
      closing.then(() => {
        if (held.uses > 0 && !held.wasReleased) this.#problems.push('closed while it is used');
        held.isReturned = true;
      }),
    );
  }

  #begin(held: Held): void {
    if (held.buffer.isClosed) return;
    held.buffer.beginUse();
    held.uses++;
  }

  #end(held: Held): void {
    if (held.uses === 0) return;
    held.uses--;
    held.buffer.endUse();
  }

  #unmapAll(): void {
    const known = [...this.#device.maps.values()].map(({ address, size }) => ({ iova: address, size }));
    const unmapped = this.#device.dma.unmapAll({ timeoutMs: 5 }).catch((error: unknown) => {
      const isKnown = error instanceof DmaBatchError;
      const unclear = isKnown
        ? error.failures.filter((failure) => failure.error instanceof TimeoutError)
        : known;
      this.#reserved.push(...unclear);
    });
    this.#follow(unmapped);
  }

  #follow(call: Promise<unknown>): void {
    this.#waiting++;
    const done = () => void this.#waiting--;
    call.then(done, done);
  }

  #answer(): void {
    const late = this.#device.silenced.shift();
    if (late !== undefined) this.#device.peer.refuse(late, EIO);
  }

  /** A buffer lives until a close has resolved, and as long as it is used after one that was given up. */
  #check(): void {
    const living = this.#held
      .filter(({ buffer, uses, isReturned, wasReleased }) => {
        return !isReturned && (!buffer.isClosed || (uses > 0 && !wasReleased));
      })
      .map(({ buffer }) => buffer)
      .sort((one, other) => (one.iova < other.iova ? -1 : 1));
    for (const [i, buffer] of living.entries()) {
      const before = living[i - 1];
      if (before !== undefined && overlap(before, buffer))
        this.#problems.push(`two buffers share bytes at 0x${buffer.iova.toString(16)}`);
    }
  }

  /** The shared mappings that are in use are empty, so all of them is given out before another is made. */
  async #takeAll(): Promise<void> {
    this.#device.takeLog();
    const taken: DmaBuffer[] = [];
    while (this.#device.log.length === 0) {
      const next = await this.#device.dma.alloc(ARENA);
      if (taken.some((other) => overlap(other, next))) this.#problems.push('bytes were given out twice');
      taken.push(next);
    }
    const maps = [...this.#device.maps.values()].map(({ address, size }) => ({ iova: address, size }));
    for (const { buffer } of this.#held) {
      const isKept = maps.some((map) => overlap(map, buffer));
      const ways = [...taken, ...this.#reserved];
      if (isKept && buffer.size < LARGE && !ways.some((range) => overlap(range, buffer)))
        this.#problems.push(`the bytes at 0x${buffer.iova.toString(16)} did not come back`);
    }
  }
}

const property = fc.asyncProperty(
  fc.array(anyStep, { minLength: 1, maxLength: 60, size: 'max' }),
  async (steps) => {
    const device = await DmaDevice.open({ arenaBytes: ARENA, timeoutMs: 1_000 });
    try {
      const world = new World(device);
      for (const step of steps) await world.step(step);
      await world.finish();
    } finally {
      device.close();
    }
  },
);

test(
  `no two buffers share a byte, and all come back (VFIO_USER_MODEL_SEED=${RUN.seed})`,
  () => assertModel(property, RUN),
  RUN.runs * 1_000,
);
