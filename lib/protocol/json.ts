/**
 * JSON from a peer that is not trusted: bounded in size and depth, UTF-8 checked, 64-bit integers kept exact.
 */
import { isUtf8 } from 'node:buffer';
import { ProtocolError } from '../errors.js';
import { copy } from './bytes.js';

/** Objects and arrays within each other; the protocol itself uses three levels. */
const MAX_DEPTH = 16;

/**
 * A string, or an integer of 16 digits and more: it may lie above 2^53. Strings are matched so that digits in them are
 * left alone. Only run on text that JSON.parse accepted: every string is closed there, so matching is linear.
 */
const STRING_OR_LONG_INTEGER = /"(?:[^"\\]|\\.)*"|(?<![\w.+-])-?\d{16,}(?![\w.])/g;

/**
 * The value of the JSON text in `bytes[start..end)`. Integers beyond 2^53 come as strings of their digits, because
 * JSON.parse would round them. A member called `__proto__` is a plain own property.
 *
 * @throws ProtocolError for what is not UTF-8, not JSON, or nested deeper than 16 levels.
 */
export function parseJson(message: string, bytes: Buffer, start: number, end: number): unknown {
  const encoded = copy(bytes, start, end);
  if (!isUtf8(encoded)) throw new ProtocolError(`${message}: the version data is not UTF-8`);
  const text = encoded.toString('utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
    if (/\d{16}/.test(text)) value = JSON.parse(quoteLongIntegers(text));
  } catch (cause) {
    throw new ProtocolError(`${message}: the version data is not JSON`, { cause });
  }
  if (isDeeperThan(MAX_DEPTH, value)) {
    throw new ProtocolError(`${message}: the version data is nested deeper than ${MAX_DEPTH} levels`);
  }
  return value;
}

/** A JSON object as opposed to an array, null and everything else. */
export function isJsonObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function quoteLongIntegers(text: string): string {
  return text.replace(STRING_OR_LONG_INTEGER, (token) => {
    return token.startsWith('"') || Number.isSafeInteger(Number(token)) ? token : `"${token}"`;
  });
}

function isDeeperThan(limit: number, value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (limit === 0) return true;
  return Object.values(value).some((inner) => isDeeperThan(limit - 1, inner));
}
