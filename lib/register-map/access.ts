/**
 * What reading and writing a field does. The words are those of UVM and of datasheets (W1C: writing 1 clears), the
 * properties those of CMSIS-SVD (`modifiedWriteValues`, `readAction`), IP-XACT and SystemRDL (`onwrite`, `onread`).
 */

import type { AccessData } from './data.js';

/** What a field does with the bits that are written to it. */
export type WriteEffect = (typeof WRITE_EFFECTS)[number];

/**
 * `value`: it takes them. `W1C`, `W1S`, `W1T`: a 1 clears, sets or toggles the bit; `W0C`, `W0S`, `W0T`: a 0 does. `WC`, `WS`: any
 * write clears or sets all of it. `WM`: a write changes it in a way that the map does not tell.
 */
export const WRITE_EFFECTS = ['value', 'W1C', 'W1S', 'W1T', 'W0C', 'W0S', 'W0T', 'WC', 'WS', 'WM'] as const;

/** What reading a field does to it: nothing, or it is cleared, set, or modified in a way that the map does not tell. */
export type ReadEffect = (typeof READ_EFFECTS)[number];

/** All of `ReadEffect`, in words of a map. */
export const READ_EFFECTS = ['none', 'RC', 'RS', 'RM'] as const;

/** What may be done with a field, and what comes of it. */
export interface Access {
  /** Whether reads give its value. */
  readonly readable: boolean;
  /** Whether writes reach it. */
  readonly writable: boolean;
  /** What reads do to it. */
  readonly onRead: ReadEffect;
  /** What writes do to it. */
  readonly onWrite: WriteEffect;
  /** Only the first write after a reset counts. */
  readonly once: boolean;
  /** The device takes back by itself what was written. */
  readonly selfClearing: boolean;
}

/** A field that keeps what is written. */
export const READ_WRITE: Access = {
  readable: true,
  writable: true,
  onRead: 'none',
  onWrite: 'value',
  once: false,
  selfClearing: false,
};

/** The words that say it all in a map: each is the access that it stands for. */
export const ACCESS_WORDS: Readonly<Record<string, Access>> = {
  RW: READ_WRITE,
  RO: { ...READ_WRITE, writable: false },
  WO: { ...READ_WRITE, readable: false },
  NA: { ...READ_WRITE, readable: false, writable: false },
  W1C: { ...READ_WRITE, onWrite: 'W1C' },
  W1S: { ...READ_WRITE, onWrite: 'W1S' },
  W1T: { ...READ_WRITE, onWrite: 'W1T' },
  W0C: { ...READ_WRITE, onWrite: 'W0C' },
  W0S: { ...READ_WRITE, onWrite: 'W0S' },
  W0T: { ...READ_WRITE, onWrite: 'W0T' },
  WC: { ...READ_WRITE, onWrite: 'WC' },
  WS: { ...READ_WRITE, onWrite: 'WS' },
  RC: { ...READ_WRITE, writable: false, onRead: 'RC' },
  RS: { ...READ_WRITE, writable: false, onRead: 'RS' },
};

/** The access in words: `RW`, `RO`, `W1C`, `WO W1C`, `RW RC`, `RW once`, `WO self-clearing`. */
export function accessWords({ readable, writable, onRead, onWrite, once, selfClearing }: Access): string {
  const words: string[] = [];
  if (!writable) words.push(readable ? (onRead === 'RC' || onRead === 'RS' ? onRead : 'RO') : 'NA');
  else {
    if (!readable) words.push('WO');
    if (onWrite !== 'value') words.push(onWrite);
    else if (readable) words.push('RW');
  }
  if (readable && onRead !== 'none' && !words.includes(onRead)) words.push(onRead);
  if (once) words.push('once');
  if (selfClearing) words.push('self-clearing');
  return words.join(' ');
}

/**
 * The bits that change nothing when they are written: `0` for a field of which a 1 does something, `1` where a 0 does; `kept`
 * where it is the value that the field has; undefined where every write does something.
 */
export function neutralBits({ writable, onWrite, selfClearing }: Access): 0 | 1 | 'kept' | undefined {
  if (!writable) return 0;
  switch (onWrite) {
    case 'W1C':
    case 'W1S':
    case 'W1T':
      return 0;
    case 'W0C':
    case 'W0S':
    case 'W0T':
      return 1;
    case 'WC':
    case 'WS':
    case 'WM':
      return undefined;
    case 'value':
      return selfClearing ? 0 : 'kept';
  }
}

/** The access as a map has it; empty where it is what is inherited. */
export function accessData(access: Access, inherited?: Access): AccessData {
  if (inherited !== undefined && isSameAccess(access, inherited)) return {};
  for (const [word, meaning] of Object.entries(ACCESS_WORDS)) {
    if (isSameAccess(access, meaning)) return { access: word };
  }
  const { readable, writable, onRead, onWrite, once, selfClearing } = access;
  return {
    access: writable ? (readable ? 'RW' : 'WO') : readable ? 'RO' : 'NA',
    ...(onRead !== 'none' && { onRead }),
    ...(onWrite !== 'value' && { onWrite }),
    ...(once && { once }),
    ...(selfClearing && { selfClearing }),
  };
}

function isSameAccess(a: Access, b: Access): boolean {
  return accessWords(a) === accessWords(b) && a.onWrite === b.onWrite && a.onRead === b.onRead;
}
