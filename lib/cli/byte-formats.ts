/** Bytes on their way to a person, a file or a program. */
import { toJson } from './json.js';
import type { AccessWidth } from './numbers.js';
import { hex } from './format-text.js';

export type Format = 'hex' | 'dump' | 'raw' | 'json';
export const FORMATS: readonly Format[] = ['hex', 'dump', 'raw', 'json'];

/** What was read: where from, and the width of a value. */
export interface Source {
  region: string;
  offset: number;
  length: number;
  width: AccessWidth;
}

/** Takes the bytes as they come, in chunks of whole values and lines but for the last one. */
export interface Formatter {
  push(chunk: Buffer): string | Buffer;
  end(): string;
}

/** JSON is made in memory. */
export const MAX_JSON_BYTES = 1 << 24;

const BYTES_A_LINE = 16;

export function formatter(format: Format, source: Source): Formatter {
  switch (format) {
    case 'hex':
      return { push: (chunk) => hexLines(chunk, source.width), end: () => '' };
    case 'dump':
      return dumpFormatter(source.offset);
    case 'raw':
      return { push: (chunk) => chunk, end: () => '' };
    case 'json':
      return jsonFormatter(source);
  }
}

/** One little-endian value a line. */
function hexLines(chunk: Buffer, width: AccessWidth): string {
  return values(chunk, width)
    .map((value) => `${hex(value, 2 * width)}\n`)
    .join('');
}

function dumpFormatter(start: number): Formatter {
  let offset = start;
  return {
    push(chunk) {
      const lines: string[] = [];
      for (let at = 0; at < chunk.length; at += BYTES_A_LINE, offset += BYTES_A_LINE) {
        lines.push(dumpLine(offset, chunk.subarray(at, at + BYTES_A_LINE)));
      }
      return lines.join('');
    },
    end: () => '',
  };
}

function dumpLine(offset: number, bytes: Buffer): string {
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0'));
  const [left, right] = [digits.slice(0, 8).join(' '), digits.slice(8).join(' ')];
  const text = Array.from(bytes, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.'));
  return `${offset.toString(16).padStart(8, '0')}  ${left.padEnd(23)}  ${right.padEnd(23)}  |${text.join('')}|\n`;
}

function jsonFormatter(source: Source): Formatter {
  const chunks: Buffer[] = [];
  return {
    push(chunk) {
      chunks.push(chunk);
      return '';
    },
    end() {
      const bytes = Buffer.concat(chunks);
      return `${toJson({ ...source, values: values(bytes, source.width), bytes })}\n`;
    },
  };
}

function values(bytes: Buffer, width: AccessWidth): (number | bigint)[] {
  return Array.from({ length: bytes.length / width }, (_, i) =>
    width === 8 ? bytes.readBigUInt64LE(8 * i) : bytes.readUIntLE(width * i, width),
  );
}
