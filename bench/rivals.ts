/** The rivals that are built here: the C floor with its target, and the `vfio_user` crate's Client. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { OUTPUT, ROOT } from './paths.js';

const REFERENCE = path.join(ROOT, 'bench/reference');
const CRATE = path.join(ROOT, 'bench/rivals/rust');
const CRATE_TARGET = path.join(OUTPUT, 'rust');
export const CRATE_CLIENT = path.join(CRATE_TARGET, 'release/vfio-user-rival');
/** Crates are fetched the first time. */
const CARGO_TIMEOUT_MS = 300_000;

export const compiler = process.env['CC'] ?? 'cc';
const cargo = process.env['CARGO'] ?? 'cargo';

/** A reference program, compiled where it is missing or older than its source. */
export function reference(name: 'floor' | 'target' | 'many'): string {
  const binary = path.join(OUTPUT, name);
  const sources = [path.join(REFERENCE, `${name}.c`), path.join(REFERENCE, 'wire.h')];
  if (!isOlder(binary, sources)) return binary;
  mkdirSync(OUTPUT, { recursive: true });
  compile(sources[0]!, binary);
  return binary;
}

/** What the reference target answers to DEVICE_GET_INFO: that it can be reset; then, that it is a PCI device too. */
const PLAIN_INFO = '{16, 1, REGIONS, IRQS}';
const PCI_INFO = '{16, 3, REGIONS, IRQS}';

/** The reference target but for that one flag: the crate's Client talks to nothing that has it not. */
export function pciTarget(): string {
  const binary = path.join(OUTPUT, 'target-pci');
  const original = path.join(REFERENCE, 'target.c');
  if (!isOlder(binary, [original, path.join(REFERENCE, 'wire.h')])) return binary;
  mkdirSync(OUTPUT, { recursive: true });
  const source = readFileSync(original, 'utf8');
  if (!source.includes(PLAIN_INFO)) throw new Error(`${original} does not say what it is where it did`);
  writeFileSync(`${binary}.c`, source.replace(PLAIN_INFO, PCI_INFO));
  compile(`${binary}.c`, binary);
  return binary;
}

function compile(source: string, binary: string): void {
  const result = spawnSync(compiler, ['-O2', '-I', REFERENCE, '-o', binary, source], { encoding: 'utf8' });
  if (result.status === 0) return;
  throw new Error(`${compiler} cannot compile ${source}: ${result.error?.message ?? result.stderr}`);
}

let crateProblem: { reason: string | undefined } | undefined;

/** Builds the crate's client once. Why there is none, in one line; undefined where there is one. */
export function missingCrateClient(): string | undefined {
  crateProblem ??= { reason: buildCrateClient() };
  return crateProblem.reason;
}

function buildCrateClient(): string | undefined {
  const sources = ['Cargo.toml', 'Cargo.lock', 'src/main.rs'].map((name) => path.join(CRATE, name));
  if (!isOlder(CRATE_CLIENT, sources)) return undefined;
  if (versionOf(cargo) === undefined) return 'there is no cargo to build it with';
  process.stderr.write('building the vfio_user crate’s client\n');
  const result = spawnSync(cargo, ['build', '--release', '--locked', '--target-dir', CRATE_TARGET], {
    cwd: CRATE,
    encoding: 'utf8',
    timeout: CARGO_TIMEOUT_MS,
  });
  if (result.status === 0) return undefined;
  const lines = (result.error?.message ?? result.stderr).trim().split('\n');
  return `cargo cannot build it: ${lines.find((line) => line.startsWith('error')) ?? lines.at(-1)}`;
}

function isOlder(binary: string, sources: readonly string[]): boolean {
  const built = existsSync(binary) ? statSync(binary).mtimeMs : 0;
  return sources.some((source) => statSync(source).mtimeMs > built);
}

/** The first line of `command --version`; undefined where there is no such command. */
export function versionOf(command: string): string | undefined {
  const { status, stdout } = spawnSync(command, ['--version'], { encoding: 'utf8' });
  return status === 0 ? stdout.split('\n')[0] : undefined;
}

/** Of the crate, as it is locked. */
export function crateVersion(): string {
  const lock = readFileSync(path.join(CRATE, 'Cargo.lock'), 'utf8');
  return /name = "vfio_user"\nversion = "([^"]+)"/.exec(lock)?.[1] ?? 'unknown';
}
