/** `--quirks FILE`: what a server does not do as it should, as `vfio-user doctor` says it. */
import { readFile } from 'node:fs/promises';
import type { Quirks } from '../index.js';
import { UsageError } from './errors.js';

/** A report of the doctor's, of which the `quirks` are wanted. */
interface Report {
  format: unknown;
  quirks: Quirks;
}

/**
 * Reads quirks, or the quirks of a whole report (`doctor --json`). Whether they make sense is for `connect` to check.
 * @throws UsageError for what is no JSON; what reading the file throws.
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
  return isReport(value) ? value.quirks : (value as Quirks);
}

function isReport(value: unknown): value is Report {
  return typeof value === 'object' && value !== null && 'format' in value && 'quirks' in value;
}
