/** Register maps out of files, in any of the four formats. */
import { readFileSync, statSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { byteArray, wrongType } from '../fields.js';
import type { RegisterMapData } from './data.js';
import { RegisterMapError, type ImportWarning } from './error.js';
import { Import } from './import.js';
import { importIpXact } from './ip-xact.js';
import { RegisterMap } from './map.js';
import { importSvd } from './svd.js';
import { importSystemRdl } from './system-rdl.js';
import { XML_LIMITS, decodeText, parseXml } from './xml.js';

/** What a file was. */
export type RegisterMapFormat = 'json' | 'svd' | 'ip-xact' | 'systemrdl';

/** A map, and what of its file it does not say. */
export interface LoadedRegisterMap {
  /** The map. */
  readonly map: RegisterMap;
  /** What the file was. */
  readonly format: RegisterMapFormat;
  /** What of the file the map does not say, or says otherwise, in the file's order. */
  readonly warnings: readonly ImportWarning[];
}

/**
 * Reads a register map: this package's JSON, CMSIS-SVD, IP-XACT (2009 or 2014), or the JSON that a SystemRDL compiler writes.
 * The content says which.
 * @throws RegisterMapError for what makes no sense or asks for too much; what reading the file throws.
 *
 * @example
 * ```ts
 * const { map, warnings } = await loadRegisterMap('uart.svd');
 * for (const { message, line } of warnings) console.warn(`uart.svd:${line}: ${message}`);
 * ```
 */
export async function loadRegisterMap(path: string): Promise<LoadedRegisterMap> {
  if (typeof path !== 'string') throw wrongType('loadRegisterMap: path', 'a string', path);
  const { size } = await stat(path);
  requireSize(path, size);
  return parseRegisterMap(await readFile(path));
}

/** `loadRegisterMap`, blocking. */
export function readRegisterMapSync(path: string | URL): LoadedRegisterMap {
  const { size } = statSync(path);
  requireSize(String(path), size);
  return parseRegisterMap(readFileSync(path));
}

function requireSize(path: string, size: number): void {
  if (size <= XML_LIMITS.bytes) return;
  throw new RegisterMapError(`${path} has ${size} bytes; at most ${XML_LIMITS.bytes} are read`);
}

/**
 * As `loadRegisterMap`, of what a file has in it.
 * @throws RegisterMapError for what makes no sense or asks for too much; TypeError for what are no bytes.
 */
export function parseRegisterMap(content: Uint8Array | string): LoadedRegisterMap {
  const text =
    typeof content === 'string' ? content : decodeText(byteArray('parseRegisterMap: content', content));
  const work = new Import();
  const isXml = /^\s*</.test(text.slice(0, 1000).replace(/^\ufeff/, ''));
  const [format, data] = isXml ? fromXml(text.replace(/^\ufeff/, ''), work) : fromJson(text, work);
  return { map: RegisterMap.from(data), format, warnings: work.finish() };
}

function fromXml(text: string, work: Import): [RegisterMapFormat, RegisterMapData] {
  const root = parseXml(text);
  if (root.name === 'device') return ['svd', importSvd(root, work)];
  if (root.name === 'component') return ['ip-xact', importIpXact(root, work)];
  throw new RegisterMapError(
    `<${root.name.slice(0, 40)}> is neither CMSIS-SVD's <device> nor IP-XACT's <component>`,
    root.line,
  );
}

function fromJson(text: string, work: Import): [RegisterMapFormat, RegisterMapData] {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new RegisterMapError(`neither XML nor JSON: ${(error as Error).message}`);
  }
  if (typeof data === 'object' && data !== null && Object.hasOwn(data, 'format')) {
    return ['json', data as RegisterMapData];
  }
  return ['systemrdl', importSystemRdl(data, work)];
}
