/**
 * Worker threads with a device each, at full speed: `workers.js PATH WORKERS SECONDS`. Prints one line of JSON: the reads
 * of all, of the slowest, and of one alone.
 */
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { connect } from 'vfio-user';

const SLICE = 64;

interface Outcome {
  reads: number;
  /** Answers that were another's. */
  wrong: number;
}

/** Blocking reads of a value of one's own, with a turn of the loop now and then. */
async function drive(path: string, seconds: number, own: number): Promise<Outcome> {
  const device = await connect(path);
  const bar = device.bar(0);
  await bar.writeUInt32(4, own);
  const end = performance.now() + seconds * 1e3;
  const outcome = { reads: 0, wrong: 0 };
  while (performance.now() < end) {
    for (let i = 0; i < SLICE; i++) if (bar.readUInt32Sync(4) !== own) outcome.wrong++;
    outcome.reads += SLICE;
    await new Promise((resolve) => setImmediate(resolve));
  }
  await device.close();
  return outcome;
}

async function inWorkers(path: string, count: number, seconds: number): Promise<Outcome[]> {
  const script = fileURLToPath(import.meta.url);
  const workers = Array.from({ length: count }, (_, i) => {
    const worker = new Worker(script, { workerData: { path, seconds, own: i + 1 } });
    return { message: once(worker, 'message'), exit: once(worker, 'exit') };
  });
  return Promise.all(
    workers.map(async ({ message, exit }) => {
      const [outcome] = (await message) as [Outcome];
      await exit;
      return outcome;
    }),
  );
}

if (isMainThread) {
  const [path, workersText, secondsText] = process.argv.slice(2);
  const [workers, seconds] = [Number(workersText), Number(secondsText)];
  const [alone] = await inWorkers(path!, 1, seconds);
  const outcomes = await inWorkers(path!, workers, seconds);
  const reads = outcomes.reduce((sum, outcome) => sum + outcome.reads, 0);
  const figures = {
    workers: outcomes.length,
    readsPerSecond: Math.round(reads / seconds),
    leastReads: Math.min(...outcomes.map((outcome) => outcome.reads)),
    mostReads: Math.max(...outcomes.map((outcome) => outcome.reads)),
    alonePerSecond: Math.round(alone!.reads / seconds),
    wrong: outcomes.reduce((sum, outcome) => sum + outcome.wrong, 0),
  };
  console.log(JSON.stringify(figures));
} else {
  const { path, seconds, own } = workerData as { path: string; seconds: number; own: number };
  parentPort!.postMessage(await drive(path, seconds, own));
}
