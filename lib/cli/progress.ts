/** A bar on stderr for transfers that take a while, where somebody looks at it. */
import { SingleBar } from 'cli-progress';

/** Less than this is over before a bar says anything. */
const LEAST_BYTES = 1 << 20;

/** Between two looks of a clock. */
const CLOCK_MS = 500;

const STYLE = { stream: process.stderr, clearOnComplete: true, hideCursor: true } as const;
const NOBODY: Progress = { add: () => {}, say: () => {}, stop: () => {} };

export interface Progress {
  add(bytes: number): void;
  /** Some words about what is going on. */
  say(what: string): void;
  stop(): void;
}

export function startProgress(totalBytes: number): Progress {
  if (process.stderr.isTTY !== true || totalBytes < LEAST_BYTES) return NOBODY;
  const bar = new SingleBar({
    ...STYLE,
    format: '[{bar}] {percentage}%  {value} of {total} bytes, {eta_formatted} left{note}',
  });
  bar.start(totalBytes, 0, { note: '' });
  return progressOf(bar);
}

/** The same for what nobody knows the size of beforehand. */
export function startCounter(): Progress {
  if (process.stderr.isTTY !== true) return NOBODY;
  const bar = new SingleBar({ ...STYLE, format: '{value} bytes, {duration_formatted}{note}' });
  // It stays below its total, at which a bar ends.
  bar.start(Number.MAX_SAFE_INTEGER, 0, { note: '' });
  return progressOf(bar);
}

function progressOf(bar: SingleBar): Progress {
  return {
    add: (bytes) => bar.increment(bytes),
    say: (what) => bar.update({ note: `, ${what}` }),
    stop: () => bar.stop(),
  };
}

/** Says what is going on, and since when, for what takes long and does not say how far it is. */
export function startClock(what: string): Progress {
  if (process.stderr.isTTY !== true) return NOBODY;
  const bar = new SingleBar({ ...STYLE, format: '{what}, {duration_formatted}{note}' });
  bar.start(Number.MAX_SAFE_INTEGER, 0, { what, note: '' });
  const timer = setInterval(() => bar.update({ what }), CLOCK_MS);
  timer.unref();
  const progress = progressOf(bar);
  return {
    ...progress,
    stop: () => {
      clearInterval(timer);
      progress.stop();
    },
  };
}
