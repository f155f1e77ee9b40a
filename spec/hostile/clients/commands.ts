/** Every field of every command that a client sends, wrong one at a time; and what the emulator answers. */
import { constants } from 'node:os';
import * as w from '../../support/wire.js';
import { PAGE, emptyFile, eventfd, memory, type Outcome } from './session.js';

const { EINVAL, ENOENT, ENOTSUP, ENOSYS } = constants.errno;
const MOST = 0xffff_ffff;
const MOST_64 = 0xffff_ffff_ffff_ffffn;
const MIB = 1 << 20;

/** Its own fields wrong: a name, the command, what it is answered, and what comes along. */
export type Case = [name: string, request: Buffer, outcome: Outcome, fds?: () => number[]];

const none = Buffer.alloc(0);
/** Cut short, and with a byte more. */
const cuts = (what: string, request: Buffer, longer: Outcome = EINVAL): Case[] => {
  const payload = w.payloadOf(request);
  const command = request.readUInt16LE(2);
  return [
    [`${what} without a payload`, w.request(command, none), EINVAL],
    [`${what} a byte short`, w.request(command, payload.subarray(0, -1)), EINVAL],
    [`${what} with a byte more`, w.request(command, Buffer.concat([payload, Buffer.of(0)])), longer],
  ];
};

const map = w.dmaMapRequest;
const aFile =
  (size = 4 * PAGE) =>
  () => [memory(size)];

const DMA_MAP: Case[] = [
  ...cuts('DMA_MAP', map()),
  ...[0, 31, 33, MOST].map((argsz): Case => [`argsz ${argsz}`, map({ argsz }), argsz < 32 ? EINVAL : 'ok']),
  ['flags 0', map({ flags: 0 }), EINVAL],
  ['flags that nobody knows', map({ flags: MOST }), EINVAL],
  ['FILE_IO', map({ flags: 7 }), EINVAL],
  ['an offset without an fd', map({ offset: PAGE }), EINVAL],
  ['an offset that is no page', map({ offset: 1 }), EINVAL, aFile()],
  ['an offset past the file', map({ offset: 4 * PAGE }), EINVAL, aFile()],
  ['offset 2^64-4096', map({ offset: MOST_64 - 4095n }), EINVAL, aFile()],
  ['offset 2^53', map({ offset: 1n << 53n }), EINVAL, aFile()],
  ['size 0', map({ size: 0 }), EINVAL],
  ['size 0 with an fd', map({ size: 0 }), EINVAL, aFile()],
  ['a size that is no page', map({ size: 100 }), EINVAL],
  ['an address that is no page', map({ address: 1 }), EINVAL],
  ['size 2^64-4096 at 4096, all that there is', map({ address: PAGE, size: MOST_64 - 4095n }), 'ok'],
  ['an end past 2^64', map({ address: MOST_64 - 4095n, size: 2 * PAGE }), EINVAL],
  ['size 2^63 of a file', map({ size: 1n << 63n }), EINVAL, aFile()],
  ['a file that is too short', map({ size: 2 * PAGE }), EINVAL, aFile(PAGE)],
  ['an empty file', map(), EINVAL, () => [emptyFile()]],
  ['an eventfd', map(), EINVAL, () => [eventfd()]],
  ['two fds', map(), EINVAL, () => [memory(PAGE), memory(PAGE)]],
  ['17 fds', map(), EINVAL, () => Array.from({ length: 17 }, () => memory(PAGE))],
];

const unmap = w.dmaUnmapRequest;
const bitmap = (pgsize: number | bigint, size: number | bigint): Buffer =>
  unmap({ bitmap: { pgsize, size } });

const DMA_UNMAP: Case[] = [
  ...cuts('DMA_UNMAP', unmap()),
  ...[0, 23, MOST].map((argsz): Case => [`argsz ${argsz}`, unmap({ argsz }), argsz < 24 ? EINVAL : ENOENT]),
  ['what is not mapped', unmap(), ENOENT],
  ['flags that nobody knows', unmap({ flags: 0xfc }), EINVAL],
  ['ALL with an address', unmap({ flags: 2, address: PAGE, size: 0 }), EINVAL],
  ['ALL with a size', unmap({ flags: 2, size: PAGE }), EINVAL],
  ['ALL and a bitmap', unmap({ flags: 3, size: 0, bitmap: { pgsize: PAGE, size: 8 } }), EINVAL],
  ['ALL of nothing', unmap({ flags: 2, size: 0 }), 'ok'],
  ['a bitmap that is not tracked', bitmap(PAGE, 8), EINVAL],
  ['a bitmap whose structure is missing', unmap({ flags: 1 }), EINVAL],
  ['a bitmap of pages of 3 bytes', bitmap(3, 8), EINVAL],
  ['a bitmap of pages of no bytes', bitmap(0, 8), EINVAL],
  ['a bitmap of pages of 2^63 bytes', bitmap(1n << 63n, 8), EINVAL],
  ['a bitmap of 2^31 bytes', unmap({ argsz: MOST, bitmap: { pgsize: PAGE, size: 2 ** 31 } }), EINVAL],
  ['size 0', unmap({ size: 0 }), ENOENT],
  ['an end past 2^64', unmap({ address: MOST_64, size: 2 }), EINVAL],
  ['with an fd that it has no use for', unmap({ flags: 2, size: 0 }), 'ok', () => [eventfd()]],
];

const INFO: Case[] = [
  ...cuts('GET_INFO', w.deviceGetInfoRequest(), 'ok'),
  ...[0, 15].map((argsz): Case => [`GET_INFO argsz ${argsz}`, w.deviceGetInfoRequest({ argsz }), EINVAL]),
  ['GET_INFO argsz 2^32-1', w.deviceGetInfoRequest({ argsz: MOST }), 'ok'],
  [
    'GET_INFO with everything set',
    w.deviceGetInfoRequest({ flags: MOST, numRegions: MOST, numIrqs: MOST }),
    'ok',
  ],
  ...cuts('GET_REGION_INFO', w.regionInfoRequest(), 'ok'),
  ...[0, 31].map((argsz): Case => [`GET_REGION_INFO argsz ${argsz}`, w.regionInfoRequest({ argsz }), EINVAL]),
  ['GET_REGION_INFO argsz 2^32-1', w.regionInfoRequest({ argsz: MOST }), 'ok'],
  ...[9, 1000, MOST].map((index): Case => [
    `GET_REGION_INFO ${index}`,
    w.regionInfoRequest({ index }),
    EINVAL,
  ]),
  ...cuts('GET_REGION_IO_FDS', w.regionIoFdsRequest(), 'ok'),
  ...[0, 15].map((argsz): Case => [
    `GET_REGION_IO_FDS argsz ${argsz}`,
    w.regionIoFdsRequest({ argsz }),
    EINVAL,
  ]),
  ...[9, MOST].map((index): Case => [`GET_REGION_IO_FDS ${index}`, w.regionIoFdsRequest({ index }), EINVAL]),
  ...cuts('GET_IRQ_INFO', w.irqInfoRequest(), 'ok'),
  ...[0, 15].map((argsz): Case => [`GET_IRQ_INFO argsz ${argsz}`, w.irqInfoRequest({ argsz }), EINVAL]),
  ...[5, MOST].map((index): Case => [`GET_IRQ_INFO ${index}`, w.irqInfoRequest({ index }), EINVAL]),
];

const irqs = w.setIrqsRequest;
const vectors = (count: number) => () => Array.from({ length: count }, () => eventfd());
const MSIX = 2;

const SET_IRQS: Case[] = [
  ...cuts('SET_IRQS', irqs({ flags: 0x21, count: 0 })),
  ...[0, 19].map((argsz): Case => [`argsz ${argsz}`, irqs({ argsz }), EINVAL]),
  ...[0, 0x1, 0x20, 0x3, 0x7, 0x27, 0x38, 0x29, 0x31, 0x18, MOST, 0x40].map((flags): Case => [
    `flags 0x${flags.toString(16)}`,
    irqs({ flags, index: MSIX, count: 1 }),
    EINVAL,
  ]),
  ...[5, MOST].map((index): Case => [`index ${index}`, irqs({ index, count: 1 }), EINVAL]),
  ['a count past the end', irqs({ index: MSIX, count: 5 }), EINVAL],
  ['a start past the end', irqs({ index: MSIX, start: 5, count: 1 }), EINVAL],
  ['start and count past 2^32', irqs({ index: MSIX, start: MOST, count: MOST }), EINVAL],
  ['count 2^32-1', irqs({ index: MSIX, count: MOST }), EINVAL],
  ['BOOL without its bytes', irqs({ flags: 0x22, index: MSIX, count: 4 }), EINVAL],
  ['BOOL with too many', irqs({ flags: 0x22, index: MSIX, count: 1, data: [1, 1] }), EINVAL],
  ['BOOL of 2^32-1, argsz alike', irqs({ argsz: MOST, flags: 0x22, index: MSIX, count: MOST }), EINVAL],
  ['fewer eventfds than it counts', irqs({ flags: 0x24, index: MSIX, count: 2 }), EINVAL, vectors(1)],
  ['more eventfds than it counts', irqs({ flags: 0x24, index: MSIX, count: 1 }), EINVAL, vectors(2)],
  ['a file for an eventfd', irqs({ flags: 0x24, index: MSIX, count: 1 }), EINVAL, aFile()],
  ['eventfds that it does not ask for', irqs({ flags: 0x21, index: MSIX, count: 1 }), EINVAL, vectors(3)],
  ['eventfds that tell of masking', irqs({ flags: 0x0c, index: MSIX, count: 1 }), 'ok', vectors(1)],
];

const read = w.regionReadRequest;
const write = w.regionWriteRequest;
const data = Buffer.alloc(4);

const REGIONS: Case[] = [
  ...cuts('REGION_READ', read({ count: 4 })),
  ...[1, 100, MOST].map((region): Case => [
    `READ of region ${region}`,
    read({ region, count: 1 << 17 }),
    EINVAL,
  ]),
  ['READ past the end', read({ region: 2, offset: 0xffff, count: 2 }), EINVAL],
  ['READ at 2^64-1', read({ region: 2, offset: MOST_64, count: 1 }), EINVAL],
  ['READ at 2^53', read({ region: 2, offset: 1n << 53n, count: 1 }), EINVAL],
  ['READ of nothing', read({ region: 2, count: 0 }), 'ok'],
  ['READ of 2^32-1', read({ region: 2, count: MOST }), EINVAL],
  ['READ of 1 MiB and one', read({ region: 2, count: MIB + 1 }), EINVAL],
  ...cuts('REGION_WRITE', write({ region: 2, data })),
  ...[100, MOST].map((region): Case => [`WRITE of region ${region}`, write({ region, data }), EINVAL]),
  ['WRITE past the end', write({ region: 2, offset: 0xfffd, data }), EINVAL],
  ['WRITE at 2^64-1', write({ region: 2, offset: MOST_64, data }), EINVAL],
  ['WRITE of nothing', write({ region: 2, data: none }), 'ok'],
  ['WRITE with less than it says', write({ region: 2, count: 8, data }), EINVAL],
  ['WRITE with more than it says', write({ region: 2, count: 2, data }), EINVAL],
  ['WRITE of 2^32-1', write({ region: 2, count: MOST, data }), EINVAL],
  ['WRITE with fds', write({ region: 2, data }), 'ok', vectors(3)],
];

const multi = w.regionWriteMultiRequest;
const one = { offset: 0, region: 2, data: [1, 2, 3, 4] };

const MULTI: Case[] = [
  ...cuts('WRITE_MULTI', multi([one])),
  ['of none', multi([]), 'ok'],
  ['that counts more', multi([one], 2), EINVAL],
  ['that counts fewer', multi([one, one], 1), EINVAL],
  ['that counts 2^64-1', multi([one], MOST_64), EINVAL],
  ['that counts 2^60, whose bytes wrap', multi([one], 1n << 60n), EINVAL],
  ['of 9 bytes', multi([{ ...one, count: 9 }]), EINVAL],
  ['of no bytes', multi([{ ...one, data: [] }]), EINVAL],
  ['past the end', multi([{ ...one, offset: MOST_64 }]), EINVAL],
  ['of no region', multi([{ ...one, region: MOST }]), EINVAL],
];

const feature = w.deviceFeatureRequest;
const [GET, SET, PROBE] = [0x10000, 0x20000, 0x40000];
const [MIGRATION, STATE, START, STOP, REPORT] = [1, 2, 6, 7, 8];
export const start = (control: w.Wire, argsz?: number): Buffer =>
  feature({ flags: SET | START, data: control, ...(argsz !== undefined && { argsz }) });

const FEATURES: Case[] = [
  ['FEATURE without a payload', w.request(16, none), EINVAL],
  ['FEATURE of 7 bytes', w.request(16, Buffer.alloc(7)), EINVAL],
  ...[0, 7].map((argsz): Case => [`FEATURE argsz ${argsz}`, feature({ argsz }), EINVAL]),
  ['no operation', feature({ flags: MIGRATION }), EINVAL],
  ['GET and SET', feature({ flags: GET | SET | MIGRATION }), EINVAL],
  ['PROBE of what is not there', feature({ flags: PROBE | GET | 0x7777 }), ENOTSUP],
  ['GET of what is not there', feature({ flags: GET | 0x7777 }), ENOTSUP],
  ['SET of what can only be read', feature({ flags: SET | MIGRATION, data: Buffer.alloc(8) }), EINVAL],
  ['SET of a feature of another size', feature({ flags: SET | 1000, data: Buffer.alloc(9) }), EINVAL],
  ['GET that its argsz has no room for', feature({ argsz: 8, flags: GET | 1000 }), EINVAL],
  ...[7, 8, 99, MOST].map((state): Case => {
    const bytes = w.wire().u32(state).u32(0);
    return [`state ${state}`, feature({ flags: SET | STATE, data: bytes }), EINVAL];
  }),
  ['a state of 3 bytes', feature({ flags: SET | STATE, data: Buffer.alloc(3) }), EINVAL],
  ['START without data', start(w.wire()), EINVAL],
  ...[0, 3, MOST].map((size): Case => [`START, pages of ${size}`, start(w.loggingControl(size)), EINVAL]),
  ['START that counts ranges that are not there', start(w.loggingControl(PAGE, [], 1)), EINVAL],
  ['START that counts 2^32-1', start(w.loggingControl(PAGE, [], MOST)), EINVAL],
  ['START with a range past 2^64', start(w.loggingControl(PAGE, [[MOST_64, 2]])), EINVAL],
  ['START by GET', feature({ flags: GET | START, data: w.loggingControl(PAGE) }), EINVAL],
  [
    'REPORT before START',
    feature({ argsz: MIB, flags: GET | REPORT, data: w.loggingReport(0, PAGE, PAGE) }),
    EINVAL,
  ],
  ['REPORT of 3 bytes', feature({ flags: GET | REPORT, data: Buffer.alloc(3) }), EINVAL],
  ['STOP by PROBE alone', feature({ flags: PROBE | STOP }), 'ok'],
];

/** Once a log has been started. */
const report = (
  iova: bigint | number,
  length: bigint | number,
  page: bigint | number,
  argsz = MOST,
): Buffer => feature({ argsz, flags: GET | REPORT, data: w.loggingReport(iova, length, page) });
export const REPORTS: Case[] = [
  ['of 2^64-1 bytes', report(0, MOST_64, PAGE), EINVAL],
  ['of 1 TiB in single bytes', report(0, 1n << 40n, 1), EINVAL],
  ['of nothing', report(0, 0, PAGE), EINVAL],
  ['past 2^64', report(MOST_64, 2, PAGE), EINVAL],
  ['in pages of 3', report(0, PAGE, 3), EINVAL],
  ['in pages of 0', report(0, PAGE, 0), EINVAL],
  ['in pages of 2^63', report(0, PAGE, 1n << 63n), EINVAL],
  ['that its argsz has no room for', report(0, PAGE, PAGE, 32), EINVAL],
  ['a second START', start(w.loggingControl(PAGE)), EINVAL],
];

const OTHERS: Case[] = [
  ['MIG_DATA_READ without a payload', w.request(17, none), EINVAL],
  ['MIG_DATA_READ of nothing', w.migDataReadRequest({ size: 0 }), EINVAL],
  ['MIG_DATA_READ of 2^32-1', w.migDataReadRequest({ argsz: MOST, size: MOST }), EINVAL],
  ['MIG_DATA_READ argsz 0', w.migDataReadRequest({ argsz: 0, size: 4 }), EINVAL],
  ['MIG_DATA_READ while it runs', w.migDataReadRequest({ size: 4 }), EINVAL],
  ['MIG_DATA_WRITE without a payload', w.request(18, none), EINVAL],
  ['MIG_DATA_WRITE with less than it says', w.migDataWriteRequest({ size: 8, data }), EINVAL],
  ['MIG_DATA_WRITE with more than it says', w.migDataWriteRequest({ size: 2, data }), EINVAL],
  ['MIG_DATA_WRITE while it runs', w.migDataWriteRequest({ data }), EINVAL],
  ['DIRTY_PAGES that is not offered', w.dirtyPagesRequest(), ENOTSUP],
  ['RESET with a payload', w.request(13, Buffer.alloc(4)), EINVAL],
  ['RESET with fds', w.deviceResetRequest(), 'ok', vectors(2)],
  ['a second VERSION', w.versionRequest(), EINVAL],
  ['DMA_READ, which is the server’s', w.dmaReadRequest({ count: 4 }), EINVAL],
  ['DMA_WRITE, which is the server’s', w.dmaWriteRequest({ data }), EINVAL],
  ...[0, 19, 99, 0xffff].map((command): Case => [
    `command ${command}`,
    w.request(command, Buffer.alloc(40)),
    ENOSYS,
  ]),
];

export const LEGACY: Case[] = [
  ['without a payload', w.request(14, none), EINVAL],
  ...[0, 7].map((argsz): Case => [`argsz ${argsz}`, w.dirtyPagesRequest({ argsz }), EINVAL]),
  ...[0, 3, 5, 8, MOST].map((flags): Case => [`flags ${flags}`, w.dirtyPagesRequest({ flags }), EINVAL]),
  ['GET_BITMAP without a range', w.dirtyPagesRequest({ flags: 4 }), EINVAL],
  ...(
    [
      [0, PAGE, PAGE, 8],
      [0, PAGE, 0, 8],
      [0, PAGE, 3, 8],
      [0, MOST_64, PAGE, 8],
      [MOST_64, 2, PAGE, 8],
      [0, 0, PAGE, 0],
    ] as const
  ).map(([iova, size, pgsize, bitmapSize]): Case => {
    const range = { iova, size, pgsize, bitmapSize };
    return [`GET_BITMAP ${iova} ${size} ${pgsize}`, w.dirtyPagesRequest({ range }), EINVAL];
  }),
];

export const TABLES: [string, Case[]][] = [
  ['DMA_MAP', DMA_MAP],
  ['DMA_UNMAP', DMA_UNMAP],
  ['information', INFO],
  ['SET_IRQS', SET_IRQS],
  ['region access', REGIONS],
  ['WRITE_MULTI', MULTI],
  ['DEVICE_FEATURE', FEATURES],
  ['other commands', OTHERS],
];
