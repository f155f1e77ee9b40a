/** Every command's request and reply, built by hand, with what they say: a session such as no device would have. */
import type { Direction, TracedMessage } from '../../lib/trace/index.js';
import * as w from '../support/wire.js';

export interface Sample {
  bytes: Buffer;
  direction: Direction;
  socket: string;
  fds: number[];
  command: string;
  kind: 'request' | 'reply';
  fields: object;
  /** All of the data, as hexadecimal digits. */
  data?: string;
  errno?: string;
  flags?: string[];
}

const MAIN = '/run/dev.sock';
const TWIN = '/run/dev.sock (twin)';
const START = 1_700_000_000_123_456_789n;
/** Between one message and the next: not whole microseconds. */
const STEP = 12_345n;

const samples: Sample[] = [];
let id = 0x100;

type Extra = Partial<Pick<Sample, 'fds' | 'data' | 'errno' | 'flags' | 'socket' | 'direction'>>;
type Build = (envelope: w.Envelope) => Buffer;

function add(kind: Sample['kind'], command: string, build: Build, fields: object, extra: Extra): void {
  if (kind === 'request') id++;
  samples.push({
    bytes: build({ id }),
    direction: kind === 'request' ? 'sent' : 'received',
    socket: MAIN,
    fds: [],
    command,
    kind,
    fields,
    ...extra,
  });
}

const request = (command: string, build: Build, fields: object = {}, extra: Extra = {}): void =>
  add('request', command, build, fields, extra);
/** To the last request. */
const reply = (command: string, build: Build, fields: object = {}, extra: Extra = {}): void =>
  add('reply', command, build, fields, { flags: ['REPLY'], ...extra });

// --- handshake ------------------------------------------------------------------------------------------------------

const offer = {
  capabilities: { max_msg_fds: 64, pgsizes: 4096, twin_socket: { supported: true }, write_multiple: true },
};
const answer = { capabilities: { max_msg_fds: 8, twin_socket: { supported: true, fd_index: 0 } } };
request('VERSION', (e) => w.versionRequest({ data: offer }, e), { major: 0, minor: 2, version_data: offer });
reply(
  'VERSION',
  (e) => w.versionReply({ minor: 1, data: answer }, e),
  { major: 0, minor: 1, version_data: answer },
  { fds: [21] },
);
request('VERSION', (e) => w.versionRequest({ data: '' }, e), { major: 0, minor: 2 });
reply('VERSION', (e) => w.versionReply({ data: '{}', minor: 0 }, e), {
  major: 0,
  minor: 0,
  version_data: {},
});

// --- what the device is -----------------------------------------------------------------------------------------------

request('DEVICE_GET_INFO', (e) => w.deviceGetInfoRequest({}, e), { argsz: 16 });
reply('DEVICE_GET_INFO', (e) => w.deviceGetInfoReply({ flags: 3, numRegions: 9, numIrqs: 5 }, e), {
  argsz: 16,
  flags: ['RESET', 'PCI'],
  num_regions: 9,
  num_irqs: 5,
});
request('DEVICE_GET_INFO', (e) => w.deviceGetInfoRequest({}, e), { argsz: 16 });
reply('DEVICE_GET_INFO', (e) => w.deviceGetInfoReply({ flags: 0x1fc, numRegions: 1 }, e), {
  argsz: 16,
  flags: ['PLATFORM', 'AMBA', 'CCW', 'AP', 'FSL_MC', 'CAPS', 'CDX'],
  num_regions: 1,
  num_irqs: 0,
});

request('DEVICE_GET_REGION_INFO', (e) => w.regionInfoRequest({ argsz: 4096, index: 7 }, e), {
  argsz: 4096,
  index: 7,
});
reply('DEVICE_GET_REGION_INFO', (e) => w.regionInfoReply({ index: 7, flags: 3, size: 256 }, e), {
  argsz: 32,
  flags: ['READ', 'WRITE'],
  index: 7,
  cap_offset: 0,
  size: 256,
  offset: 0,
});
request('DEVICE_GET_REGION_INFO', (e) => w.regionInfoRequest({ argsz: 4096, index: 0 }, e), {
  argsz: 4096,
  index: 0,
});
reply(
  'DEVICE_GET_REGION_INFO',
  (e) =>
    w.regionInfoReply(
      {
        index: 0,
        size: 0x4000,
        offset: 0x10_0000_0000,
        capabilities: Buffer.concat([
          w.sparseMmap(
            [
              [0x1000, 0x1000],
              [0x3000, 0x800],
            ],
            80,
          ),
          w.regionType(0x8000_1234, 7, 96),
          w.capability(3, 104, w.wire()),
          w.capability(0x99, 112, w.wire()),
          w.sparseMmapFds([
            [0, 0x2000, 0x1000, 0],
            [0x2000, 0, 0x1000, 1],
          ]),
        ]),
      },
      e,
    ),
  {
    argsz: 192,
    flags: ['READ', 'WRITE', 'MMAP', 'CAPS'],
    index: 0,
    cap_offset: 32,
    size: 0x4000,
    offset: 0x10_0000_0000,
    capabilities: {
      sparse_mmap: [
        { offset: 0x1000, size: 0x1000 },
        { offset: 0x3000, size: 0x800 },
      ],
      type: { type: 0x8000_1234, subtype: 7 },
      sparse_mmap_fds: [
        { offset: 0, fd_offset: 0x2000, size: 0x1000, fd_index: 0 },
        { offset: 0x2000, fd_offset: 0, size: 0x1000, fd_index: 1 },
      ],
      others: [
        { name: 'MSIX_MAPPABLE', version: 1 },
        { id: 0x99, version: 1 },
      ],
    },
  },
  { fds: [22, 23] },
);
request('DEVICE_GET_REGION_INFO', (e) => w.regionInfoRequest({ argsz: 32, index: 0 }, e), {
  argsz: 32,
  index: 0,
});
reply(
  'DEVICE_GET_REGION_INFO',
  (e) => w.regionInfoReply({ argsz: 64, index: 0, flags: 7, size: 0x4000 }, e),
  {
    argsz: 64,
    flags: ['READ', 'WRITE', 'MMAP'],
    index: 0,
    cap_offset: 0,
    size: 0x4000,
    offset: 0,
    truncated: true,
  },
);

request('DEVICE_GET_REGION_IO_FDS', (e) => w.regionIoFdsRequest({ argsz: 4096, index: 2 }, e), {
  argsz: 4096,
  index: 2,
});
reply(
  'DEVICE_GET_REGION_IO_FDS',
  (e) =>
    w.regionIoFdsReply(
      {
        index: 2,
        subRegions: [
          w.subRegion({ offset: 0x10, size: 4, fdIndex: 0, type: 0, flags: 1 }, 0, 0, 0xdead_beef_0000_0001n),
          w.subRegion({ offset: 0x20, size: 8, fdIndex: 1, type: 1, flags: 3 }, 0, 0x1234_5678_9abc_def0n, 0),
          w.subRegion({ offset: 0x30, size: 4, fdIndex: 2, type: 2 }, 3, 0x40, 5),
        ],
      },
      e,
    ),
  {
    argsz: 160,
    index: 2,
    count: 3,
    sub_regions: [
      {
        offset: 0x10,
        size: 4,
        fd_index: 0,
        type: 'IOEVENTFD',
        flags: ['DATAMATCH'],
        datamatch: 0xdead_beef_0000_0001n,
      },
      {
        offset: 0x20,
        size: 8,
        fd_index: 1,
        type: 'IOREGIONFD',
        flags: ['PIO', 'POSTED_WRITES'],
        user_data: 0x1234_5678_9abc_def0n,
      },
      {
        offset: 0x30,
        size: 4,
        fd_index: 2,
        type: 'IOEVENTFD_SHADOW',
        flags: [],
        shadow_mem_fd_index: 3,
        shadow_offset: 0x40,
        datamatch: 5n,
      },
    ],
  },
  { fds: [24, 25, 26, 27] },
);
request('DEVICE_GET_REGION_IO_FDS', (e) => w.regionIoFdsRequest({ argsz: 16, index: 2 }, e), {
  argsz: 16,
  index: 2,
});
reply(
  'DEVICE_GET_REGION_IO_FDS',
  (e) =>
    w.regionIoFdsReply(
      { index: 2, subRegions: [w.subRegion({ offset: 8, size: 2, fdIndex: 0, type: 0, flags: 8 }, 0, 7)] },
      e,
    ),
  {
    argsz: 56,
    index: 2,
    count: 1,
    sub_regions: [
      { offset: 8, size: 2, fd_index: 0, type: 'IOEVENTFD', flags: ['VIRTIO_CCW_NOTIFY'], datamatch: 7n },
    ],
  },
  { fds: [28] },
);
request('DEVICE_GET_REGION_IO_FDS', (e) => w.regionIoFdsRequest({ argsz: 16, index: 2 }, e), {
  argsz: 16,
  index: 2,
});
reply('DEVICE_GET_REGION_IO_FDS', (e) => w.regionIoFdsReply({ argsz: 64, index: 2, count: 1 }, e), {
  argsz: 64,
  index: 2,
  count: 1,
  truncated: true,
});

// --- interrupts -------------------------------------------------------------------------------------------------------

request('DEVICE_GET_IRQ_INFO', (e) => w.irqInfoRequest({ index: 2 }, e), { argsz: 16, index: 2 });
reply('DEVICE_GET_IRQ_INFO', (e) => w.irqInfoReply({ index: 2, flags: 0xf, count: 512 }, e), {
  argsz: 16,
  flags: ['EVENTFD', 'MASKABLE', 'AUTOMASKED', 'NORESIZE'],
  index: 2,
  count: 512,
});
request(
  'DEVICE_SET_IRQS',
  (e) => w.setIrqsRequest({ flags: 0x24, index: 2, start: 1, count: 2 }, e),
  { argsz: 20, flags: ['DATA_EVENTFD', 'ACTION_TRIGGER'], index: 2, start: 1, count: 2 },
  { fds: [30, 31] },
);
reply('DEVICE_SET_IRQS', (e) => w.setIrqsReply(e));
request(
  'DEVICE_SET_IRQS',
  (e) => w.setIrqsRequest({ flags: 0x0a, index: 0, count: 3, data: [1, 0, 1] }, e),
  { argsz: 23, flags: ['DATA_BOOL', 'ACTION_MASK'], index: 0, start: 0, count: 3 },
  { data: '010001' },
);
reply('DEVICE_SET_IRQS', (e) => w.setIrqsReply(e));
request('DEVICE_SET_IRQS', (e) => w.setIrqsRequest({ flags: 0x11, index: 0, count: 1 }, e), {
  argsz: 20,
  flags: ['DATA_NONE', 'ACTION_UNMASK'],
  index: 0,
  start: 0,
  count: 1,
});
reply('DEVICE_SET_IRQS', (e) => w.setIrqsReply(e));

// --- regions ----------------------------------------------------------------------------------------------------------

request('REGION_READ', (e) => w.regionReadRequest({ offset: 0x1c, region: 0, count: 4 }, e), {
  offset: 0x1c,
  region: 0,
  count: 4,
});
reply(
  'REGION_READ',
  (e) => w.regionReadReply({ offset: 0x1c, region: 0, data: [1, 2, 3, 4] }, e),
  { offset: 0x1c, region: 0, count: 4 },
  { data: '01020304' },
);
const long = Buffer.from(Array.from({ length: 300 }, (_, i) => i & 0xff));
request(
  'REGION_WRITE',
  (e) => w.regionWriteRequest({ offset: 0x12_3456_7890, region: 1, data: long }, e),
  { offset: 0x12_3456_7890, region: 1, count: 300 },
  { data: long.toString('hex') },
);
reply('REGION_WRITE', (e) => w.regionWriteReply({ offset: 0x12_3456_7890, region: 1, count: 300 }, e), {
  offset: 0x12_3456_7890,
  region: 1,
  count: 300,
});
request(
  'REGION_WRITE',
  (e) => w.regionWriteRequest({ offset: 0x1000, region: 0, data: [9, 0, 0, 0] }, { ...e, flags: 0x10 }),
  { offset: 0x1000, region: 0, count: 4 },
  { data: '09000000', flags: ['NO_REPLY'] },
);
request(
  'REGION_WRITE_MULTI',
  (e) =>
    w.regionWriteMultiRequest(
      [
        { offset: 0x10, region: 0, data: [1, 2, 3, 4] },
        { offset: 0x18, region: 2, data: [255] },
      ],
      2,
      e,
    ),
  {
    wr_cnt: 2,
    wrs: [
      { offset: 0x10, region: 0, count: 4, data: '01020304' },
      { offset: 0x18, region: 2, count: 1, data: 'ff' },
    ],
  },
);
reply('REGION_WRITE_MULTI', (e) => w.regionWriteMultiReply(2, e), { wr_cnt: 2 });

// --- DMA --------------------------------------------------------------------------------------------------------------

request(
  'DMA_MAP',
  (e) => w.dmaMapRequest({ flags: 0xb, offset: 0x20_0000, address: 1n << 52n, size: 0x40_0000 }, e),
  {
    argsz: 32,
    flags: ['READ', 'WRITE', 'FILE_IO'],
    offset: 0x20_0000,
    address: 1n << 52n,
    size: 0x40_0000n,
  },
  { fds: [40] },
);
reply('DMA_MAP', (e) => w.dmaMapReply(e));
request('DMA_MAP', (e) => w.dmaMapRequest({ flags: 5, address: 0x1000, size: 0x1000 }, e), {
  argsz: 32,
  flags: ['READ', 'MMAP'],
  offset: 0,
  address: 0x1000n,
  size: 0x1000n,
});
reply(
  'DMA_MAP',
  (e) => w.errorReply(2, 17, e),
  {},
  {
    errno: 'EEXIST',
    flags: ['REPLY', 'ERROR'],
  },
);
const fromServer: Extra = { socket: TWIN, direction: 'received' };
const fromClient: Extra = { socket: TWIN, direction: 'sent' };
request(
  'DMA_READ',
  (e) => w.dmaReadRequest({ address: 0xffff_0000_0000_1000n, count: 3 }, e),
  { address: 0xffff_0000_0000_1000n, count: 3 },
  fromServer,
);
reply(
  'DMA_READ',
  (e) => w.dmaReadReply({ address: 0xffff_0000_0000_1000n, data: [7, 8, 9] }, e),
  { address: 0xffff_0000_0000_1000n, count: 3 },
  { ...fromClient, data: '070809' },
);
request(
  'DMA_WRITE',
  (e) => w.dmaWriteRequest({ address: 0x2000, data: [0xca, 0xfe] }, e),
  { address: 0x2000n, count: 2 },
  { ...fromServer, data: 'cafe' },
);
reply(
  'DMA_WRITE',
  (e) => w.dmaWriteReply({ address: 0x2000, count: 2 }, e),
  { address: 0x2000n, count: 2 },
  fromClient,
);
request(
  'DMA_WRITE',
  (e) => w.dmaWriteRequest({ address: 0, data: [1] }, e),
  { address: 0n, count: 1 },
  { ...fromServer, data: '01' },
);
reply(
  'DMA_WRITE',
  (e) => w.errorReply(12, 14, e),
  {},
  {
    ...fromClient,
    errno: 'EFAULT',
    flags: ['REPLY', 'ERROR'],
  },
);
const bitmap = { pgsize: 4096, size: 8 };
request('DMA_UNMAP', (e) => w.dmaUnmapRequest({ address: 1n << 52n, size: 0x40_0000, bitmap }, e), {
  argsz: 48,
  flags: ['GET_DIRTY_BITMAP'],
  address: 1n << 52n,
  size: 0x40_0000n,
  bitmap,
});
reply(
  'DMA_UNMAP',
  (e) =>
    w.dmaUnmapReply(
      { address: 1n << 52n, size: 0x40_0000, bitmap: { ...bitmap, data: Buffer.alloc(8, 3) } },
      e,
    ),
  { argsz: 48, flags: ['GET_DIRTY_BITMAP'], address: 1n << 52n, size: 0x40_0000n, bitmap },
  { data: '0303030303030303' },
);
request('DMA_UNMAP', (e) => w.dmaUnmapRequest({ flags: 2, size: 0 }, e), {
  argsz: 24,
  flags: ['ALL'],
  address: 0n,
  size: 0n,
});
reply('DMA_UNMAP', (e) => w.dmaUnmapReply({ flags: 2, size: 0 }, e), {
  argsz: 24,
  flags: ['ALL'],
  address: 0n,
  size: 0n,
});
request('DMA_UNMAP', (e) => w.dmaUnmapRequest({ address: 0x1000 }, e), {
  argsz: 24,
  flags: [],
  address: 0x1000n,
  size: 0x1000n,
});
reply('DMA_UNMAP', (e) => w.reply(3, Buffer.alloc(0), e));

// --- dirty pages, old and new -------------------------------------------------------------------------------------------

request('DIRTY_PAGES', (e) => w.dirtyPagesRequest({ flags: 1 }, e), { argsz: 8, flags: ['START'] });
reply('DIRTY_PAGES', (e) => w.reply(14, Buffer.alloc(0), e));
const range = { iova: 0x10_0000n, size: 0x4_0000n, pgsize: 4096, bitmapSize: 8 };
const rangeFields = { iova: 0x10_0000n, size: 0x4_0000n, bitmap };
request('DIRTY_PAGES', (e) => w.dirtyPagesRequest({ range }, e), {
  argsz: 48,
  flags: ['GET_BITMAP'],
  ...rangeFields,
});
reply(
  'DIRTY_PAGES',
  (e) => w.dirtyPagesReply({ range, bitmap: [1, 0, 0, 0, 0, 0, 0, 0x80] }, e),
  { argsz: 48, flags: ['GET_BITMAP'], ...rangeFields },
  { data: '0100000000000080' },
);
request('DIRTY_PAGES', (e) => w.dirtyPagesRequest({ range, argsz: 8 }, e), {
  argsz: 8,
  flags: ['GET_BITMAP'],
  ...rangeFields,
});
reply('DIRTY_PAGES', (e) => w.dirtyPagesReply({ argsz: 48, flags: 4 }, e), {
  argsz: 48,
  flags: ['GET_BITMAP'],
  truncated: true,
});

const GET = 0x10000;
const SET = 0x20000;
const PROBE = 0x40000;
const logging = {
  page_size: 4096,
  num_ranges: 2,
  ranges: [
    { iova: 0x10_0000n, length: 0x4_0000n },
    { iova: 1n << 40n, length: 1n << 30n },
  ],
};
const loggingBytes = (): w.Wire =>
  w.loggingControl(4096, [
    [0x10_0000, 0x4_0000],
    [1n << 40n, 1n << 30n],
  ]);
for (const build of [w.deviceFeatureRequest, w.deviceFeatureReply]) {
  (build === w.deviceFeatureRequest ? request : reply)(
    'DEVICE_FEATURE',
    (e) => build({ flags: SET | 6, data: loggingBytes() }, e),
    { argsz: 56, feature: 'DMA_LOGGING_START', flags: ['SET'], dma_logging: logging },
  );
}
const report = { iova: 0x10_0000n, length: 0x4_0000n, page_size: 4096 };
request(
  'DEVICE_FEATURE',
  (e) =>
    w.deviceFeatureRequest(
      { argsz: 40, flags: GET | 8, data: w.loggingReport(0x10_0000, 0x4_0000, 4096) },
      e,
    ),
  { argsz: 40, feature: 'DMA_LOGGING_REPORT', flags: ['GET'], dma_logging_report: report },
);
reply(
  'DEVICE_FEATURE',
  (e) =>
    w.deviceFeatureReply(
      { flags: GET | 8, data: w.loggingReport(0x10_0000, 0x4_0000, 4096, [1, 2, 3, 4, 5, 6, 7, 8]) },
      e,
    ),
  { argsz: 40, feature: 'DMA_LOGGING_REPORT', flags: ['GET'], dma_logging_report: report },
  { data: '0102030405060708' },
);
request('DEVICE_FEATURE', (e) => w.deviceFeatureRequest({ flags: SET | 7 }, e), {
  argsz: 8,
  feature: 'DMA_LOGGING_STOP',
  flags: ['SET'],
});
reply('DEVICE_FEATURE', (e) => w.deviceFeatureReply({ flags: SET | 7, data: w.loggingControl(4096) }, e), {
  argsz: 24,
  feature: 'DMA_LOGGING_STOP',
  flags: ['SET'],
  dma_logging: { page_size: 4096, num_ranges: 0, ranges: [] },
});

// --- migration --------------------------------------------------------------------------------------------------------

request('DEVICE_FEATURE', (e) => w.deviceFeatureRequest({ flags: PROBE | GET | SET | 2 }, e), {
  argsz: 8,
  feature: 'MIG_DEVICE_STATE',
  flags: ['GET', 'SET', 'PROBE'],
});
reply('DEVICE_FEATURE', (e) => w.deviceFeatureReply({ flags: PROBE | GET | SET | 2 }, e), {
  argsz: 8,
  feature: 'MIG_DEVICE_STATE',
  flags: ['GET', 'SET', 'PROBE'],
});
request('DEVICE_FEATURE', (e) => w.deviceFeatureRequest({ argsz: 16, flags: GET | 1 }, e), {
  argsz: 16,
  feature: 'MIGRATION',
  flags: ['GET'],
});
reply('DEVICE_FEATURE', (e) => w.deviceFeatureReply({ flags: GET | 1, data: w.wire().u64(7) }, e), {
  argsz: 16,
  feature: 'MIGRATION',
  flags: ['GET'],
  migration: { flags: ['STOP_COPY', 'P2P', 'PRE_COPY'] },
});
const state = w.wire().u32(3).u32(0).build();
request('DEVICE_FEATURE', (e) => w.deviceFeatureRequest({ flags: SET | 2, data: state }, e), {
  argsz: 16,
  feature: 'MIG_DEVICE_STATE',
  flags: ['SET'],
  mig_device_state: { device_state: 'STOP_COPY' },
});
reply('DEVICE_FEATURE', (e) => w.deviceFeatureReply({ flags: SET | 2, data: state }, e), {
  argsz: 16,
  feature: 'MIG_DEVICE_STATE',
  flags: ['SET'],
  mig_device_state: { device_state: 'STOP_COPY' },
});
request('DEVICE_FEATURE', (e) => w.deviceFeatureRequest({ argsz: 16, flags: GET | 2 }, e), {
  argsz: 16,
  feature: 'MIG_DEVICE_STATE',
  flags: ['GET'],
});
reply('DEVICE_FEATURE', (e) => w.errorReply(16, 25, e), {}, { errno: 'ENOTTY', flags: ['REPLY', 'ERROR'] });
request(
  'DEVICE_FEATURE',
  (e) => w.deviceFeatureRequest({ flags: SET | 99, data: [1, 2] }, e),
  { argsz: 10, feature: 'feature 99', flags: ['SET'] },
  { data: '0102' },
);
reply('DEVICE_FEATURE', (e) => w.errorReply(16, 0, e), {}, { errno: 'none', flags: ['REPLY', 'ERROR'] });
request('MIG_DATA_READ', (e) => w.migDataReadRequest({ argsz: 108, size: 100 }, e), {
  argsz: 108,
  size: 100,
});
reply(
  'MIG_DATA_READ',
  // Padded, as libvfio-user does: two bytes count.
  (e) => w.migDataReadReply({ argsz: 10, size: 2, data: [5, 6, 0, 0, 0, 0] }, e),
  { argsz: 10, size: 2 },
  { data: '0506' },
);
request(
  'MIG_DATA_WRITE',
  (e) => w.migDataWriteRequest({ data: [1, 2, 3] }, e),
  { argsz: 11, size: 3 },
  { data: '010203' },
);
reply('MIG_DATA_WRITE', (e) => w.migDataWriteReply(e));

// --- the rest ---------------------------------------------------------------------------------------------------------

request('DEVICE_RESET', (e) => w.deviceResetRequest(e));
reply('DEVICE_RESET', (e) => w.deviceResetReply(e));
request('command 99', (e) => w.request(99, Buffer.from([1, 2, 3]), e), {}, { data: '010203' });
// Some servers send the payload along with an error.
reply(
  'command 99',
  (e) => w.message(99, 0x21, Buffer.from([4]), { ...e, errno: 95 }),
  {},
  { data: '04', errno: 'ENOTSUP', flags: ['REPLY', 'ERROR'] },
);

export const SAMPLES: readonly Sample[] = samples;

/** As a tap or a capture has them. */
export const MESSAGES: readonly TracedMessage[] = samples.map(({ bytes, direction, socket, fds }, i) => ({
  socket,
  direction,
  time: START + BigInt(i) * STEP,
  bytes,
  size: bytes.length,
  fds,
}));
