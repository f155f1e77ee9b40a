/**
 * The longest turns of the event loop while very much waits: `turns.js PATH KIND COUNT`. Prints a line of JSON, with the time
 * of the longest turn and the processor time that this thread had in one, which other processes do not lengthen, in
 * milliseconds. Making the calls is the caller's own turn, and does not count.
 *
 *     deadlines, defaults     COUNT register reads that are never answered, each with a deadline of its own, or with none
 *     aborted                 the same, given up by one signal
 *     nvme                    COUNT NVMe reads that are never completed, with deadlines of their own
 *     zeroes                  one writeZeroes of all that there is, given up after COUNT milliseconds
 */
import { readFileSync } from 'node:fs';
import { connect, type CallOptions, type Device } from 'vfio-user';
import { NvmeController } from 'vfio-user/nvme';

const [path, kind, countText] = process.argv.slice(2);
const count = Number(countText);
const SILENT = 0x10;
const TIMEOUT_MS = 1_000;

/** Nanoseconds on a processor, of this thread (proc(5), schedstat). */
function threadNs(): number {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ', 1)[0]);
}

class Turns {
  longestMs = 0;
  longestProcessorMs = 0;
  turns = 0;
  #isOver = false;
  #at = performance.now();
  #ns = threadNs();

  begin(): this {
    this.#at = performance.now();
    this.#ns = threadNs();
    setImmediate(() => this.#turn());
    return this;
  }

  end(): void {
    this.#isOver = true;
  }

  #turn(): void {
    const now = performance.now();
    const ns = threadNs();
    this.longestMs = Math.max(this.longestMs, now - this.#at);
    this.longestProcessorMs = Math.max(this.longestProcessorMs, (ns - this.#ns) / 1e6);
    this.turns++;
    this.#at = now;
    this.#ns = ns;
    if (!this.#isOver) setImmediate(() => this.#turn());
  }
}

/** How many ended, by the error's name. */
async function outcomes(calls: Promise<unknown>[]): Promise<Record<string, number>> {
  const ends: Record<string, number> = {};
  const settled = calls.map((call) =>
    call.then(
      () => (ends['done'] = (ends['done'] ?? 0) + 1),
      (error: Error) => (ends[error.name] = (ends[error.name] ?? 0) + 1),
    ),
  );
  // A caller's Promise.all over so many is a turn of its own.
  for (const end of settled) await end;
  return ends;
}

/** The same, with the turns that follow that of the caller's. */
async function watched(calls: Promise<unknown>[], turns: Turns): Promise<Record<string, number>> {
  const ends = outcomes(calls);
  await new Promise(setImmediate);
  turns.begin();
  return ends;
}

async function registers(device: Device, turns: Turns): Promise<Record<string, number>> {
  const abort = new AbortController();
  const options: CallOptions | undefined =
    kind === 'deadlines'
      ? { timeoutMs: TIMEOUT_MS }
      : kind === 'aborted'
        ? { signal: abort.signal }
        : undefined;
  const bar = device.bar(0);
  const calls = Array.from({ length: count }, () => bar.readUInt32(SILENT, options));
  const ends = watched(calls, turns);
  if (kind === 'aborted') {
    await new Promise((resolve) => setTimeout(resolve, TIMEOUT_MS / 2));
    abort.abort(new Error('given up'));
  }
  return ends;
}

async function nvme(device: Device, turns: Turns): Promise<Record<string, number>> {
  const controller = await NvmeController.open(device);
  const queue = await controller.createQueue();
  const abort = new AbortController();
  if (kind === 'zeroes') {
    turns.begin();
    const zeroes = queue.writeZeroes(0, queue.namespace.blocks, { signal: abort.signal });
    setTimeout(() => abort.abort(new Error('given up')), count);
    return outcomes([zeroes]);
  }
  const calls = Array.from({ length: count }, () => queue.read(0, 1, { timeoutMs: TIMEOUT_MS }));
  return watched(calls, turns);
}

// No default deadline passes before those of `aborted` are given up, nor one of a controller that is brought up.
const device = await connect(path!, { timeoutMs: kind === 'aborted' ? 60_000 : 2 * TIMEOUT_MS });
const turns = new Turns();
const ends = await (kind === 'nvme' || kind === 'zeroes' ? nvme(device, turns) : registers(device, turns));
turns.end();
const { longestMs, longestProcessorMs } = turns;
console.log(
  JSON.stringify({
    kind,
    count,
    longestMs,
    longestProcessorMs,
    turns: turns.turns,
    ends,
    rssMib: process.memoryUsage.rss() / 2 ** 20,
  }),
);
process.exit();
