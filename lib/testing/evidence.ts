/** What a failed test leaves behind: files that say what the device was, and what was said to it. */
import { copyFile, mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { inspect } from 'node:util';
import type { FaultReport } from '../faults/index.js';
import type { RegisterPlacement } from '../registers/index.js';
import type { Register } from '../registers/index.js';
import { isReadSafe, isReadable } from '../register-map/values.js';
import { CaptureReader, LineFormatter, isMessage } from '../trace/index.js';

/** A file for a test's report. */
export interface RigAttachment {
  /** `capture.pcapng`, `registers.txt`, `messages.txt`, `faults.json`, `server.log`, `error.txt`, `waveform.vcd`. */
  readonly name: string;
  /** Where it is. */
  readonly path: string;
  /** Its media type. */
  readonly contentType: string;
}

/** How long each read of a register may take, of a device that may have failed. */
const READ_MS = 500;
/** The last messages that are shown. */
const MOST_LINES = 200;
const MOST_NAME = 80;
/** Files of the rig's directory that are kept. */
const KEPT = /^(?:capture.*|server\.log|simulator\.log|waveform\.\w+)$/;
const MOST_NUMBERED = 10_000;
const TYPES: Readonly<Record<string, string>> = {
  '.pcapng': 'application/x-pcapng',
  '.txt': 'text/plain',
  '.log': 'text/plain',
  '.vcd': 'text/plain',
  '.json': 'application/json',
};

/** All that can be read without changing it; what is not as after a reset is marked. Lines, without the last line break. */
export async function registerDump(
  placement: RegisterPlacement,
  bound: (name: string) => Register,
): Promise<string> {
  const lines: string[] = [];
  for (const { name, register } of placement.registers) {
    if (!isReadable(register) || !isReadSafe(register)) {
      lines.push(`  ${name}: not read`);
      continue;
    }
    try {
      const one = bound(name);
      const value = await one.read({ timeoutMs: READ_MS });
      const { reset, resetMask } = register;
      const isAsReset = reset === undefined || ((BigInt(value) ^ reset) & resetMask) === 0n;
      const was = isAsReset
        ? ''
        : ` (after a reset ${one.format(register.bits === 64 ? reset : Number(reset))})`;
      lines.push(`${isAsReset ? ' ' : '*'} ${name}: ${one.format(value)}${was}`);
    } catch (error) {
      lines.push(`  ${name}: ${(error as Error).message}`);
      const { name: kind } = error as Error;
      // Nobody answers: the others would take as long.
      if (kind === 'TimeoutError' || kind === 'ClosedError') break;
    }
  }
  return lines.join('\n');
}

/** What is written down. */
export interface Evidence {
  /** The test's name. */
  readonly name: string;
  readonly outputDir: string;
  /** Where the captures, and the server's output, are. */
  readonly directory: string;
  readonly error: unknown;
  readonly registers: string | undefined;
  readonly placement: RegisterPlacement | undefined;
  readonly faults: FaultReport | undefined;
}

/** Writes it to a directory of its own, which no other rig has, of this process or another. */
export async function writeEvidence(evidence: Evidence): Promise<RigAttachment[]> {
  const into = await makeDirectory(evidence.outputDir, evidence.name);
  const { directory, error, registers, faults, placement } = evidence;
  // A framework may have made something else of the error, or of its cause.
  const texts: [string, string | undefined][] = [
    ['error.txt', error === undefined ? undefined : inspect(error)],
    ['registers.txt', registers],
    ['messages.txt', await lastMessages(directory, placement)],
    ['faults.json', faults && `${JSON.stringify(faults, undefined, 2)}`],
  ];
  const names: string[] = [];
  for (const [name, text] of texts) {
    if (text === undefined || text === '') continue;
    await writeFile(path.join(into, name), `${text}\n`);
    names.push(name);
  }
  for (const name of await keptFiles(directory)) {
    await copyFile(path.join(directory, name), path.join(into, name));
    names.push(name);
  }
  return names.map((name) => ({
    name,
    path: path.join(into, name),
    contentType: TYPES[path.extname(name)] ?? 'application/octet-stream',
  }));
}

/** Captures in their order, the server's output, and what a simulator leaves. */
async function keptFiles(directory: string): Promise<string[]> {
  const names = await readdir(directory);
  const kept = names.filter((name) => KEPT.test(name)).sort();
  const sizes = await Promise.all(kept.map(async (name) => (await stat(path.join(directory, name))).size));
  return kept.filter((_, i) => sizes[i] !== 0);
}

async function lastMessages(
  directory: string,
  placement: RegisterPlacement | undefined,
): Promise<string | undefined> {
  const captures = (await keptFiles(directory)).filter((name) => name.endsWith('.pcapng'));
  const lines: string[] = [];
  for (const name of captures) {
    const formatter = new LineFormatter({ registers: placement });
    try {
      for await (const event of new CaptureReader(path.join(directory, name)).events()) {
        lines.push(isMessage(event) ? formatter.format(event) : formatter.formatInterrupt(event));
        if (lines.length > MOST_LINES) lines.shift();
      }
    } catch (error) {
      lines.push(`${name}: ${(error as Error).message}`);
    }
  }
  return lines.length === 0 ? undefined : lines.join('\n');
}

/** Made by exactly one: shards may have tests of one name. */
async function makeDirectory(outputDir: string, name: string): Promise<string> {
  await mkdir(outputDir, { recursive: true });
  const plain =
    name
      .replaceAll(/[^\w.-]+/g, '-')
      .replaceAll(/^[-.]+|-+$/g, '')
      .slice(0, MOST_NAME) || 'rig';
  for (let number = 1; number <= MOST_NUMBERED; number++) {
    const directory = path.join(outputDir, number === 1 ? plain : `${plain}-${number}`);
    try {
      await mkdir(directory);
      return path.resolve(directory);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
  throw new RangeError(`${outputDir} has ${MOST_NUMBERED} directories called ${plain}: remove some`);
}
