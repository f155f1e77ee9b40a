import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ReplacementFile, targetOf, type ReplacementOptions } from '../../lib/files/index.js';

/** The library, as a process of its own loads it. */
const FILES = new URL('../../dist/files/index.js', import.meta.url).href;

let directory: string;
let file: string;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
  file = path.join(directory, 'file');
});

afterEach(() => rmSync(directory, { recursive: true }));

function begin(text: string, options?: ReplacementOptions): ReplacementFile {
  const replacement = ReplacementFile.open(targetOf(file), options);
  writeSync(replacement.fd, text);
  return replacement;
}

function replace(text: string, options?: ReplacementOptions): void {
  const replacement = begin(text, options);
  replacement.commit();
  closeSync(replacement.fd);
}

const modeOf = (name: string): number => statSync(name).mode & 0o777;
const partials = (): string[] => readdirSync(directory).filter((name) => name.endsWith('.partial'));

describe('a replacement', () => {
  test('is not there until it is whole, and what was there is', () => {
    writeFileSync(file, 'before');
    const replacement = begin('after');
    expect(readFileSync(file, 'utf8')).toBe('before');
    expect(partials()).toEqual([expect.stringMatching(/^file\.[0-9a-f]{12}\.partial$/)]);
    expect(replacement.isPending).toBe(true);
    replacement.commit();
    closeSync(replacement.fd);
    expect(readFileSync(file, 'utf8')).toBe('after');
    expect(partials()).toEqual([]);
    expect(replacement.isPending).toBe(false);
  });

  test('that is discarded leaves what was there', () => {
    writeFileSync(file, 'before');
    const replacement = begin('after');
    replacement.discard();
    replacement.discard();
    replacement.commit();
    closeSync(replacement.fd);
    expect(readFileSync(file, 'utf8')).toBe('before');
    expect(readdirSync(directory)).toEqual(['file']);
  });

  test.each([0o600, 0o640, 0o444, 0o755])('keeps the permissions of what was there (%o)', (mode) => {
    writeFileSync(file, 'before');
    chmodSync(file, mode);
    const replacement = begin('after');
    // Nobody else reads what is not whole.
    expect(modeOf(path.join(directory, partials()[0]!))).toBe(0o600);
    replacement.commit();
    closeSync(replacement.fd);
    expect(modeOf(file)).toBe(mode);
  });

  test('of nothing has the usual permissions, and a private one is private', () => {
    replace('new');
    writeFileSync(path.join(directory, 'other'), '');
    expect(modeOf(file)).toBe(modeOf(path.join(directory, 'other')));
    replace('private', { isPrivate: true });
    expect(modeOf(file)).toBe(0o600);
  });

  test('goes where a link leads, and the link stays', () => {
    const real = path.join(directory, 'real');
    writeFileSync(real, 'before');
    symlinkSync('real', file);
    replace('after');
    expect(readFileSync(real, 'utf8')).toBe('after');
    expect(readdirSync(directory).sort()).toEqual(['file', 'real']);
  });

  test('takes another name, and replaces a link of that name', () => {
    const victim = path.join(directory, 'victim');
    const other = path.join(directory, 'other');
    writeFileSync(victim, 'untouched');
    symlinkSync('victim', other);
    const replacement = begin('part');
    replacement.moveTo(other);
    closeSync(replacement.fd);
    expect(readFileSync(victim, 'utf8')).toBe('untouched');
    expect(readFileSync(other, 'utf8')).toBe('part');
    expect(existsSync(file)).toBe(false);
  });
});

describe('a name that is refused', () => {
  test('a directory, one that is not there, a link that leads nowhere', () => {
    mkdirSync(file);
    expect(() => targetOf(file)).toThrow(`${file} is a directory`);
    expect(() => ReplacementFile.open(targetOf(path.join(directory, 'none/file')))).toThrow(/ENOENT.*open/);
    expect(() => targetOf(path.join(directory, 'none/'))).toThrow('is the name of a directory');
    const dangling = path.join(directory, 'dangling');
    symlinkSync('nowhere', dangling);
    expect(() => targetOf(dangling)).toThrow(`${dangling} is a link that leads nowhere`);
  });
});

describe('a process that ends with a replacement under way', () => {
  /** What it does then; `hear` makes it hear the signal once itself, before the file is there. */
  async function endOf(then: string, hear = ''): Promise<[code: number | null, signal: string | null]> {
    writeFileSync(file, 'before');
    const script = `
      const { ReplacementFile, targetOf } = await import(${JSON.stringify(FILES)});
      ${hear}
      ReplacementFile.open(targetOf(${JSON.stringify(file)}));
      console.log('open');
      setTimeout(() => {}, 60_000);
      ${then}
    `;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await once(child.stdout, 'data');
    if (then === '') child.kill('SIGTERM');
    const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
    expect(readdirSync(directory)).toEqual(['file']);
    expect(readFileSync(file, 'utf8')).toBe('before');
    return [code, signal];
  }

  test('leaves none behind: by exit, by an exception', async () => {
    expect(await endOf('process.exit(3)')).toEqual([3, null]);
    expect(await endOf('throw new Error()')).toEqual([1, null]);
  });

  test('nor by a signal, which ends it as it would have', async () => {
    expect(await endOf('')).toEqual([null, 'SIGTERM']);
    expect(await endOf("process.kill(process.pid, 'SIGINT')")).toEqual([null, 'SIGINT']);
  });

  test('and one that hears the signal itself decides', async () => {
    const hear = "process.once('SIGTERM', () => setTimeout(() => process.exit(7), 50));";
    expect(await endOf('', hear)).toEqual([7, null]);
  });
});
