/** A SCSI host driven over a real socket: units found, read and written, errors by name, events; and hosts that lie. */
import { describe, expect, test } from '@jest/globals';
import {
  MemoryStore,
  onNthRequest,
  VirtioScsiDevice,
  type VirtioScsiDeviceOptions,
  type VirtioVerdict,
} from '../../lib/emulator/index.js';
import {
  decodeSense,
  ScsiError,
  VirtioDeviceError,
  VirtioScsi,
  type VirtioScsiOptions,
} from '../../lib/virtio/index.js';
import { cleanup, errorOf, linked, pattern, until } from './fixture.js';

const BYTES = 4 << 20;

class LyingHost extends VirtioScsiDevice {
  lie: (response: Buffer) => void = () => undefined;

  protected override finish(response: Buffer): Buffer {
    this.lie(response);
    return response;
  }
}

async function opened(
  emulated: Partial<VirtioScsiDeviceOptions> = {},
  driver: VirtioScsiOptions = {},
): Promise<{ scsi: VirtioScsi; host: LyingHost; store: MemoryStore }> {
  const store = new MemoryStore(BYTES);
  const host = new LyingHost({ units: [{ store }], ...emulated });
  const { device } = await linked(host);
  const scsi = await VirtioScsi.open(device, driver);
  cleanup(() => scsi.close().catch(() => undefined));
  return { scsi, host, store };
}

/** Of the request queues, which are behind the control and event queues: buffers for events may be taken at any time. */
function onNthCommand(n: number, verdict: VirtioVerdict): NonNullable<VirtioScsiDevice['intercept']> {
  const nth = onNthRequest(n, verdict);
  return (request) => (request.queue < 2 ? 'pass' : nth(request));
}

const WAYS: [string, Partial<VirtioScsiDeviceOptions>, VirtioScsiOptions][] = [
  ['split', {}, {}],
  ['packed, by MSI-X', {}, { ring: 'packed', completion: 'interrupt' }],
  ['without indirect descriptors', {}, { indirect: false, entries: 16 }],
  ['by INTx, two queues', { vectors: 0, queues: 2 }, { completion: 'interrupt', queues: 2 }],
];

describe.each(WAYS)('a host, %s', (_name, emulated, driver) => {
  test('reads what was written, of all lengths, many at once', async () => {
    const { scsi, store } = await opened({ ...emulated, maxSectors: 64 }, driver);
    expect(scsi.maxTransferBytes).toBe(32_768);
    const unit = scsi.unit(0);
    let lba = 3;
    await Promise.all(
      [1, 2, 8, 9, 64, 65, 600].map(async (blocks, i) => {
        const at = lba;
        lba += blocks + 1;
        const data = pattern(blocks * 512, i + 1);
        await unit.write(at, data);
        expect((await unit.read(at, blocks)).equals(data)).toBe(true);
        expect(store.read(at * 512, data.length).equals(data)).toBe(true);
      }),
    );
    await unit.synchronizeCache();
  });

  test('a disk that comes and goes is told of, and its new size taken', async () => {
    const { scsi, host } = await opened(emulated, driver);
    const events: unknown[] = [];
    scsi.on('hotplug', (event) => events.push(event)).on('change', (event) => events.push(event));
    await scsi.unit(0).capacity();
    host.insert({ store: new MemoryStore(BYTES), target: 2, lun: 1 });
    await until(() => events.length === 1);
    cleanup(() => host.remove(2, 1));
    host.replaceStore(new MemoryStore(2 * BYTES));
    await until(() => events.length === 2);
    expect(events).toEqual([
      { target: 2, lun: 1, reason: 'added' },
      { target: 0, lun: 0, asc: 0x2a, ascq: 9 },
    ]);
    const last = (2 * BYTES) / 512 - 1;
    await scsi.unit(0).write(last, pattern(512));
    expect(await errorOf(scsi.unit(0).read(last + 1, 1))).toBeInstanceOf(RangeError);
  });
});

test('a scan finds what is there; INQUIRY, its pages and capacities say what', async () => {
  const store = () => new MemoryStore(BYTES);
  const { scsi } = await opened({
    units: [
      { store: store(), serial: 'S-1' },
      { store: store(), target: 5, lun: 3, blockSize: 4096, readOnly: true, product: 'read-only' },
      { store: store(), target: 5, lun: 7 },
    ],
  });
  const found = await scsi.scan();
  expect(found.map(({ unit }) => [unit.target, unit.lun])).toEqual([
    [0, 0],
    [5, 3],
    [5, 7],
  ]);
  const [first, second] = found;
  expect(second!.inquiry).toMatchObject({ vendor: 'vfiouser', product: 'read-only', deviceType: 0 });
  expect(await first!.unit.pages()).toEqual([0, 0x80, 0x83]);
  expect(await first!.unit.serialNumber()).toBe('S-1');
  expect(await first!.unit.designators()).toEqual([
    { codeSet: 2, association: 0, type: 1, value: 'vfiouserS-1' },
  ]);
  expect(await second!.unit.capacity()).toEqual({ blocks: BYTES / 4096, blockSize: 4096 });
  await first!.unit.testReady();
  const { data, residual } = await scsi.command({
    target: 0,
    cdb: Buffer.from([0x12, 0, 0, 0, 99, 0]),
    dataIn: 99,
  });
  expect([data.length, residual]).toEqual([36, 63]);
});

test('what is not carried out is said by name', async () => {
  const { scsi, host } = await opened({
    units: [{ store: new MemoryStore(BYTES), readOnly: true }],
  });
  const unit = scsi.unit(0);
  await unit.testReady();
  expect(await errorOf(unit.write(0, pattern(512)))).toMatchObject({
    code: 'ERR_SCSI_DATA_PROTECT',
    message: expect.stringContaining('write protected (0x7/0x27/0x0)'),
  });
  expect(await errorOf(scsi.unit(3).inquiry())).toMatchObject({ code: 'ERR_VIRTIO_BAD_TARGET' });
  expect(await errorOf(scsi.unit(0, 4).inquiry())).toMatchObject({
    sense: { keyName: 'ILLEGAL_REQUEST', asc: 0x25 },
  });
  const read = Buffer.from([0x28, 0, 0xff, 0, 0, 0, 0, 0, 1, 0]);
  expect(await errorOf(scsi.command({ target: 0, cdb: read, dataIn: 512 }))).toMatchObject({
    name: 'ScsiError',
    sense: { meaning: 'logical block address out of range' },
  });
  host.intercept = onNthCommand(1, { status: 8 });
  expect(await errorOf(unit.testReady())).toMatchObject({ code: 'ERR_SCSI_BUSY', sense: undefined });
  host.intercept = onNthCommand(1, { status: 2 });
  expect(await errorOf(unit.read(0, 1))).toMatchObject({ code: 'ERR_SCSI_MEDIUM_ERROR' });
  expect(await errorOf(unit.read(8192, 1))).toBeInstanceOf(RangeError);
  expect(await errorOf(scsi.command({ target: 0, cdb: Buffer.alloc(33) }))).toBeInstanceOf(RangeError);
});

test('a command that does not come back ends in a reset, after which it is carried out once more', async () => {
  const { scsi, host, store } = await opened({}, { timeoutMs: 200 });
  await scsi.unit(0).capacity();
  let count = 0;
  // WRITE(10): it is lost once.
  host.intercept = ({ queue }) => (queue === 2 && ++count === 1 ? 'hold' : 'pass');
  const error = await scsi
    .unit(0)
    .write(1, pattern(512))
    .then(
      () => undefined,
      (failure: unknown) => failure,
    );
  // It had its deadline before the reset: it is answered when that is over.
  expect(error).toMatchObject({ code: 'ETIMEDOUT' });
  await scsi.unit(0).write(1, pattern(512, 3));
  expect(store.read(512, 512).equals(pattern(512, 3))).toBe(true);
  expect(scsi.state).toBe('live');
});

describe('a host that lies', () => {
  const lies: [string, (response: Buffer) => void][] = [
    ['about the length of sense data', (bytes) => bytes.writeUInt32LE(97, 0) && bytes.writeUInt8(2, 10)],
    ['about what was not transferred', (bytes) => bytes.writeUInt32LE(4097, 4)],
    ['by giving back no response', (bytes) => bytes.fill(0xff)],
  ];

  test.each(lies)('%s is believed in nothing', async (_name, lie) => {
    const { scsi, host } = await opened();
    await scsi.unit(0).capacity();
    host.lie = lie;
    expect(await errorOf(scsi.unit(0).read(0, 8))).toBeInstanceOf(VirtioDeviceError);
    expect(await scsi.closed).toMatchObject({ code: 'ERR_VIRTIO_DEVICE' });
  });

  const used: [string, VirtioVerdict][] = [
    ['more bytes than there is room for', { used: [{ length: 108 + 4096 + 1 }] }],
    ['fewer bytes than it read', { used: [{ length: 108 + 4095 }] }],
    ['no bytes', { used: [{ length: 0 }] }],
    ['another request', { used: [{ id: 77 }] }],
    ['nothing written', 'silent'],
  ];
  test.each(used)('in the used ring, %s, is believed in nothing', async (_name, verdict) => {
    const { scsi, host } = await opened({}, { entries: 64 });
    await scsi.unit(0).capacity();
    host.intercept = onNthCommand(1, verdict);
    expect(await errorOf(scsi.unit(0).read(0, 8))).toBeInstanceOf(VirtioDeviceError);
    expect(scsi.state).toBe('failed');
  });

  test('that leaves a part of a write out, and says that all is well, has not written', async () => {
    const { scsi, host } = await opened();
    await scsi.unit(0).capacity();
    host.lie = (bytes) => bytes.writeUInt32LE(512, 4);
    expect(await errorOf(scsi.unit(0).write(0, pattern(4096)))).toMatchObject({
      message: expect.stringContaining('512 of 4096 bytes were not transferred'),
    });
  });

  test('about an event buffer that it does not have ends', async () => {
    const { scsi, host } = await opened();
    host.intercept = ({ queue }) => (queue === 1 ? 'silent' : 'pass');
    await scsi.reset();
    expect(await scsi.closed).toBeInstanceOf(VirtioDeviceError);
  });
});

describe('sense data', () => {
  const fixed = Buffer.from('f00003000012340a00000000110000000000', 'hex');
  const descriptor = Buffer.from('7205210000000c00000a800000000000001234', 'hex');

  test('fixed and descriptor format', () => {
    expect(decodeSense(fixed)).toMatchObject({
      keyName: 'MEDIUM_ERROR',
      meaning: 'unrecovered read error',
      information: 0x1234n,
      isDeferred: false,
    });
    expect(decodeSense(descriptor)).toMatchObject({
      keyName: 'ILLEGAL_REQUEST',
      asc: 0x21,
      isDeferred: false,
    });
    expect(decodeSense(Buffer.from('7206990100000000', 'hex'))?.meaning).toBe('ASC 0x99 ASCQ 0x01');
    expect(decodeSense(Buffer.from('7303110000000000', 'hex'))?.isDeferred).toBe(true);
  });

  test('cut anywhere, and what is none', () => {
    for (const bytes of [fixed, descriptor])
      for (let length = 0; length < bytes.length; length++) decodeSense(bytes.subarray(0, length));
    expect(decodeSense(Buffer.alloc(0))).toBeUndefined();
    expect(decodeSense(Buffer.alloc(18))).toBeUndefined();
    expect(new ScsiError('READ', 0x28, Buffer.alloc(0)).code).toBe('ERR_SCSI_TASK_SET_FULL');
  });
});
