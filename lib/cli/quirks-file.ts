/** `--quirks FILE`: what a server does not do as it should, as `vfio-user doctor` says it. */
import { readFile } from 'node:fs/promises';
import { checkQuirks } from '../device/quirks.js';
import type { Quirks } from '../index.js';
import { UsageError } from './errors.js';

/** A report of the doctor's, of which the `quirks` are wanted. */
interface Report {
  format: unknown;
  quirks: Quirks;
}

/**
 * Reads quirks, or the quirks of a whole report (`doctor --json`).
 * @throws UsageError for what is no JSON, or makes no sense; what reading the file throws.
 */
export async function readQuirks(file: string | undefined): Promise<Quirks | undefined> {
  if (file === undefined) return undefined;
  const text = await readFile(file, 'utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new UsageError(`${file} is no JSON`);
  }
  const quirks = isReport(value) ? value.quirks : (value as Quirks);
  try {
    checkQuirks(quirks);
  } catch (error) {
    throw new UsageError(`${file}: ${(error as Error).message}`);
  }
  return quirks;
}

function isReport(value: unknown): value is Report {
  return typeof value === 'object' && value !== null && 'format' in value && 'quirks' in value;
}
