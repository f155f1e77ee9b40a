/**
 * Runs one of the targets of `fuzz/targets`, for tools/fuzz.cjs:
 *
 *     main.js TARGET CORPUS FINDINGS SECONDS SEED      fuzz; new inputs go to FINDINGS, so does one that fails
 *     main.js TARGET FILE                              run that one input
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Finding, Fuzzer } from './engine/fuzzer.js';
import { Random } from './engine/random.js';
import type { Target } from './engine/target.js';
import { codec } from './targets/codec.js';
import { connection } from './targets/connection.js';
import { device } from './targets/device.js';
import { emulator } from './targets/emulator.js';
import { framer } from './targets/framer.js';
import { proxy } from './targets/proxy.js';
import { replay } from './targets/replay.js';
import { text } from './targets/text.js';

const TARGETS: readonly Target[] = [codec, framer, connection, device, text, emulator, replay, proxy];

const [name, from, findings, seconds, seed] = process.argv.slice(2);
const target = TARGETS.find((one) => one.name === name);
if (target === undefined || from === undefined) throw new Error(`there is no target ${String(name)}`);

let current: Error | undefined;
for (const event of ['unhandledRejection', 'uncaughtException']) {
  process.on(event, (reason: unknown) => {
    current ??= reason instanceof Error ? reason : new Error(String(reason));
  });
}
/** What was thrown into the loop, and what a promise that nobody looks at was rejected with, is a finding as well. */
const watched: Target = {
  ...target,
  run: async (input) => {
    await target.run(input);
    if (current !== undefined)
      throw new Error('thrown into the loop, or an unhandled rejection', { cause: current });
  },
};

if (findings === undefined) await watched.run(readFileSync(from));
else await fuzz(from, findings, Number(seconds), Number(seed));

async function fuzz(corpus: string, output: string, time: number, start: number): Promise<void> {
  const inputs = readAll(corpus).concat(readAll(output));
  mkdirSync(output, { recursive: true });
  const fuzzer = new Fuzzer(watched, inputs, new Random(start));
  try {
    const { runs, blocks, found } = await fuzzer.run(time * 1000);
    for (const input of found) save(output, input);
    console.log(`${target!.name}: ${runs} runs, ${blocks} blocks reached, ${found.length} new inputs`);
  } catch (error) {
    if (!(error instanceof Finding)) throw error;
    const file = save(output, error.input, 'failed-');
    console.error(`${target!.name}: ${error.message}\nthe input is in ${file}`);
    process.exitCode = 1;
  }
}

function readAll(directory: string): Buffer[] {
  let names: string[] = [];
  try {
    names = readdirSync(directory).filter((file) => !file.startsWith('failed-'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return names.sort().map((file) => readFileSync(path.join(directory, file)));
}

function save(directory: string, input: Buffer, prefix = ''): string {
  const hash = createHash('sha1').update(input).digest('hex').slice(0, 16);
  const file = path.join(directory, prefix + hash);
  writeFileSync(file, input);
  return file;
}
