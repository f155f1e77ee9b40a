/** `id-ns`: Identify Namespace. */
import { Fields, NAMESPACE } from '../../nvme/layouts.js';
import { int, type JsonC } from './json-c.js';
import { hexC } from './text.js';

type Field = keyof typeof NAMESPACE;

const HEADS: readonly Field[] = [
  'nsfeat',
  'nlbaf',
  'flbas',
  'mc',
  'dpc',
  'dps',
  'nmic',
  'rescap',
  'fpi',
  'dlfeat',
];
const ATOMICS: readonly Field[] = ['nawun', 'nawupf', 'nacwu', 'nabsn', 'nabo', 'nabspf', 'noiob'];
/** Only where NSFEAT bit 4 says that they are there. */
const PREFERRED: readonly Field[] = ['npwg', 'npwa', 'npdg', 'npda', 'nows'];
const COPY: readonly Field[] = ['mssrl', 'mcl', 'msrc', 'nulbaf', 'anagrpid'];
/** Of the first ones, those that are printed as plain numbers. */
const PLAIN: readonly Field[] = ['nlbaf', 'dlfeat'];
const OPTIMAL_PERFORMANCE = 1 << 4;
const MOST_FORMATS = 64;
const FORMAT_BYTES = 4;

interface Format {
  ms: number;
  ds: number;
  rp: number;
}

export function namespaceJson(bytes: Buffer): JsonC {
  const at = new Fields(bytes, NAMESPACE);
  const numbers = (names: readonly Field[]) =>
    names.map((name): [string, JsonC] => [name, int(at.number(name))]);
  return Object.fromEntries([
    ...(['nsze', 'ncap', 'nuse'] as const).map((name): [string, JsonC] => [name, at.bigint(name)]),
    ...numbers(HEADS),
    ...numbers(ATOMICS),
    ['nvmcap', at.bigint('nvmcap').toString()],
    ...numbers(['nsattr', 'nvmsetid']),
    ...numbers(hasPreferred(at) ? PREFERRED : []),
    ...numbers(COPY),
    ...numbers(['endgid']),
    ['eui64', at.bytes('eui64').toString('hex')],
    ['nguid', at.bytes('nguid').toString('hex')],
    ['lbafs', formatsOf(at).map(({ ms, ds, rp }) => ({ ms, ds, rp }))],
  ]);
}

export function namespaceText(bytes: Buffer, nsid: number): string {
  const at = new Fields(bytes, NAMESPACE);
  const line = (name: string, value: string) => `${name.padEnd(8)}: ${value}`;
  const plain = (name: Field) => line(name, at.number(name).toString());
  const flbas = at.number('flbas');
  const inUse = ((flbas & 0x60) >> 1) | (flbas & 0xf);
  const lines = [
    `NVME Identify Namespace ${int(nsid)}:`,
    ...(['nsze', 'ncap', 'nuse'] as const).map((name) => line(name, hexC(at.bigint(name)))),
    ...HEADS.map((name) => (PLAIN.includes(name) ? plain(name) : line(name, hexC(at.number(name))))),
    ...ATOMICS.map(plain),
    line('nvmcap', at.bigint('nvmcap').toString()),
    ...(hasPreferred(at) ? PREFERRED.map(plain) : []),
    ...COPY.map(plain),
    `nsattr\t: ${at.number('nsattr')}`,
    plain('nvmsetid'),
    plain('endgid'),
    line('nguid', at.bytes('nguid').toString('hex')),
    line('eui64', at.bytes('eui64').toString('hex')),
    ...formatsOf(at, at.number('nulbaf')).map(({ ms, ds, rp }, i) => {
      const size = `ms:${String(ms).padEnd(3)} lbads:${String(ds).padEnd(2)} rp:${hexC(rp)}`;
      return `lbaf ${String(i).padStart(2)} : ${size} ${i === inUse ? '(in use)' : ''}`;
    }),
  ];
  return `${lines.join('\n')}\n`;
}

function hasPreferred(at: Fields<typeof NAMESPACE>): boolean {
  return (at.number('nsfeat') & OPTIMAL_PERFORMANCE) !== 0;
}

function formatsOf(at: Fields<typeof NAMESPACE>, more = 0): Format[] {
  const bytes = at.bytes('lbaf');
  const count = Math.min(at.number('nlbaf') + 1 + more, MOST_FORMATS);
  return Array.from({ length: count }, (_, i) => ({
    ms: bytes.readUInt16LE(i * FORMAT_BYTES),
    ds: bytes[i * FORMAT_BYTES + 2]!,
    rp: bytes[i * FORMAT_BYTES + 3]!,
  }));
}
