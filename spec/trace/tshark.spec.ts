import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { mkdtempSync, rmSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { tmpdir } from 'node:os';
import { connect } from '../../lib/device/connect.js';
import { EduDevice, serve } from '../../lib/emulator/index.js';
import { errnoName } from '../../lib/errors.js';
import { Command, Feature, MigrationState, commandName } from '../../lib/protocol/constants.js';
import {
  CaptureReader,
  CaptureWriter,
  LatencyTracker,
  describe as describeMessage,
  isMessage,
  type Description,
  type FieldValue,
  type TracedEvent,
  type TracedMessage,
} from '../../lib/trace/index.js';
import * as w from '../support/wire.js';
import { MESSAGES } from './samples.js';
import { column, dissect, hasTshark, tshark, type Packet } from './tshark.js';

/** The dissector's structure for each command's payload. */
const STRUCTURES: Record<string, string> = {
  VERSION: 'version',
  DMA_MAP: 'dma_map',
  DMA_UNMAP: 'dma_unmap',
  DEVICE_GET_INFO: 'device_info',
  DEVICE_GET_REGION_INFO: 'region_info',
  DEVICE_GET_REGION_IO_FDS: 'region_io_fds',
  DEVICE_GET_IRQ_INFO: 'irq_info',
  DEVICE_SET_IRQS: 'set_irqs',
  REGION_READ: 'region_access',
  REGION_WRITE: 'region_access',
  DMA_READ: 'dma_access',
  DMA_WRITE: 'dma_access',
  DIRTY_PAGES: 'dirty_pages',
  REGION_WRITE_MULTI: 'region_write_multi',
  DEVICE_FEATURE: 'device_feature',
  MIG_DATA_READ: 'mig_data',
  MIG_DATA_WRITE: 'mig_data',
};
/** What describe() says by name and tshark by number. */
const NUMBERS: Record<string, number> = {
  IOEVENTFD: 0,
  IOREGIONFD: 1,
  IOEVENTFD_SHADOW: 2,
  ...Feature,
  'feature 99': 99,
};

type Values = Map<string, (string | bigint)[]>;

/** The fields as tshark names them: flags by the names of those that are set, everything else by its values. */
function flatten(value: FieldValue, at: string, into: Values): Values {
  const put = (key: string, ...values: (string | bigint)[]): void =>
    void into.set(key, [...(into.get(key) ?? []), ...values]);
  if (at.endsWith('flags')) {
    for (const flag of value as string[]) put(`${at}_${flag.toLowerCase()}`, 'set');
  } else if (typeof value === 'number' || typeof value === 'bigint') put(at, BigInt(value));
  else if (typeof value === 'string') put(at, valueOf(at, value));
  else if (Array.isArray(value)) for (const entry of value as FieldValue[]) flatten(entry, at, into);
  else if (typeof value === 'object' && value !== null) {
    for (const [name, field] of Object.entries(value)) flatten(field, `${at}_${name}`, into);
  }
  return into;
}

function valueOf(at: string, word: string): string | bigint {
  if (at.endsWith('device_state')) return BigInt(MigrationState[word as keyof typeof MigrationState]);
  return word in NUMBERS ? BigInt(NUMBERS[word]!) : word;
}

/** What tshark must say of a message that describe() describes like this. */
function expected({ command, fields, data }: Description): Values {
  const { version_data: versionData, truncated: _truncated, capabilities, ...plain } = fields;
  const structure = STRUCTURES[command] ?? '';
  const values = flatten(plain, structure, new Map());
  if (capabilities !== undefined) {
    const { others = [], ...known } = capabilities as Record<string, FieldValue>;
    flatten(known, structure, values);
    const ids = [];
    if ('sparse_mmap' in known) ids.push(1n);
    if ('type' in known) ids.push(2n);
    for (const { id = 3 } of others as { id?: number }[]) ids.push(BigInt(id));
    if ('sparse_mmap_fds' in known) ids.push(0x8001n);
    values.set('region_info_capability_id', ids);
  }
  if (versionData !== undefined) values.set('version_version_data', [JSON.stringify(versionData)]);
  if (data !== undefined) values.set('data', [data.preview]);
  return values;
}

/** The same of tshark, for as much as `wanted` has. */
function actual(packet: Packet, wanted: Values): Values {
  const values: Values = new Map();
  for (const [key, of] of wanted) {
    const got = packet.get(key) ?? [];
    if (of[0] === 'set')
      values.set(
        key,
        got.filter((set) => set === true).map(() => 'set'),
      );
    else
      values.set(
        key,
        got.map((value) => normal(String(value), of[0])),
      );
  }
  return values;
}

function normal(value: string, like: string | bigint | undefined): string | bigint {
  if (typeof like === 'bigint') return BigInt(value);
  return value.startsWith('{') ? JSON.stringify(JSON.parse(value)) : value.replaceAll(':', '');
}

/** The flags of the payload that tshark says are set. */
function setFlags(packet: Packet): string[] {
  const names: string[] = [];
  for (const [key, values] of packet) {
    if (!key.startsWith('flags') && values.includes(true)) names.push(key);
  }
  return names.sort();
}

async function capture(file: string, messages: readonly TracedMessage[]): Promise<void> {
  const writer = await CaptureWriter.open({ path: file });
  for (const message of messages) writer.write(message);
  writer.close();
}

/** `frames` are the messages' numbers in the file: interrupts have some of their own. */
function compare(
  packets: readonly Packet[],
  messages: readonly TracedMessage[],
  frames: readonly number[] = messages.map((_, i) => i + 1),
): void {
  expect(packets).toHaveLength(messages.length);
  const latencies = new LatencyTracker();
  const asked = new Map<string, number>();
  for (const [i, message] of messages.entries()) {
    const { bytes, fds, direction, socket } = message;
    const description = describeMessage(bytes, { previewBytes: Infinity });
    const packet = packets[i]!;
    const wanted = expected(description);
    expect([i, actual(packet, wanted)]).toEqual([i, wanted]);
    const flags = [...wanted].filter(([, values]) => values[0] === 'set').map(([key]) => key);
    expect([i, setFlags(packet)]).toEqual([i, flags.sort()]);
    expect([i, commandName(Number(packet.get('command')))]).toEqual([i, description.command]);
    expect(Number(packet.get('id'))).toBe(description.id);
    expect(Number(packet.get('size'))).toBe(description.size);
    expect(packet.get('flags_error')).toEqual([description.errno !== undefined]);
    expect(packet.get('flags_no_reply')).toEqual([description.flags.includes('NO_REPLY')]);
    expect(packet.get('fds')).toEqual(fds.length > 0 ? [fds.join(',')] : undefined);
    const latency = latencies.latencyOf(message);
    const isReply = description.kind === 'reply';
    const key = `${socket} ${(direction === 'sent') !== isReply} ${description.id}`;
    if (!isReply) asked.set(key, frames[i]!);
    else {
      expect(Number(packet.get('request_in'))).toBe(asked.get(key));
      expect(Number(packet.get('time'))).toBeCloseTo(Number(latency) / 1e9, 8);
    }
  }
}

const suite = hasTshark ? describe : describe.skip;

// Skipped tests are listed with their names, and this one's says what is missing.
suite('tshark (of Debian: apt install tshark), with the dissector', () => {
  let directory: string;
  let file: string;
  const MALFORMED = 'vfio_user.malformed || _ws.malformed || _ws.lua.error || vfio_user.cut';

  beforeAll(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
    file = path.join(directory, 'dev.pcapng');
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  test('decodes every command, request and reply, as the library does', async () => {
    await capture(file, MESSAGES);
    compare(await dissect(file, directory), MESSAGES);
    expect(await tshark(file, directory, '-Y', MALFORMED)).toBe('');
  }, 30_000);

  test('decodes a session of the library: handshake, regions, interrupts, DMA by message, an error', async () => {
    const socket = path.join(directory, 's');
    const server = await serve(new EduDevice(), { path: socket });
    const device = await connect(socket, { capture: file, secureDma: true });
    await device.enable();
    const [vector] = await device.irqs.msi.enable(1);
    const buffer = await device.dma.alloc(4096, { addressBits: 28 });
    const bar = device.bar(0);
    await bar.writeUInt64(0x80, buffer.iova);
    await bar.writeUInt64(0x88, 0x40000n);
    await bar.writeUInt64(0x90, 512n);
    await bar.writeUInt64(0x98, 5n);
    await vector.wait({ timeoutMs: 5_000 });
    await bar.writeUInt64(0x80, 0x40000n);
    await bar.writeUInt64(0x88, buffer.iova);
    await bar.writeUInt64(0x98, 7n);
    await vector.wait({ timeoutMs: 5_000 });
    await expect(bar.readUInt8(0)).rejects.toMatchObject({ code: 'EINVAL' });
    await buffer.free();
    await device.reset();
    await device.close();
    await server.close();
    const events: TracedEvent[] = [];
    for await (const event of new CaptureReader(file).events()) events.push(event);
    const messages = events.filter(isMessage);
    const frames = messages.map((message) => events.indexOf(message) + 1);
    const commands = new Set(messages.map(({ bytes }) => describeMessage(bytes).command));
    for (const command of [
      'VERSION',
      'DMA_MAP',
      'DMA_READ',
      'DMA_WRITE',
      'DEVICE_SET_IRQS',
      'DEVICE_RESET',
    ]) {
      expect(commands).toContain(command);
    }
    compare(await dissect(file, directory), messages, frames);
    expect(await column(file, directory, '_ws.col.Info', '-Y', 'vfio_user_irq')).toEqual([
      'interrupt index=1 subindex=0 count=1',
      'interrupt index=1 subindex=0 count=1',
    ]);
    expect(await tshark(file, directory, '-Y', MALFORMED)).toBe('');
  }, 30_000);

  test('links requests to their replies, where it has seen both', async () => {
    await capture(file, MESSAGES);
    const packets = await dissect(file, directory, '-2');
    const answered = packets.map((packet) => Number(packet.get('response_in') ?? 0));
    for (const [i, packet] of packets.entries()) {
      const asked = packet.get('request_in');
      if (asked !== undefined) expect(answered[Number(asked) - 1]).toBe(i + 1);
    }
  }, 30_000);

  test('says in the info column what a line says', async () => {
    const messages = [
      w.regionReadRequest({ offset: 0x1c, region: 0, count: 4 }, { id: 7 }),
      w.regionReadReply({ offset: 0x1c, region: 0, data: [1, 2, 3, 4] }, { id: 7 }),
      w.dmaMapRequest({ address: 0x100000, size: 0x200000 }, { id: 8 }),
      w.errorReply(2, 17, { id: 8 }),
    ].map((bytes, i) => ({ ...MESSAGES[i]!, bytes, size: bytes.length, fds: i === 2 ? [5, 6] : [] }));
    await capture(file, messages);
    expect(await column(file, directory, '_ws.col.Info')).toEqual([
      '#7 REGION_READ offset=0x1c region=0 count=4',
      '#7 REGION_READ reply offset=0x1c region=0 count=4 data=01020304',
      '#8 DMA_MAP argsz=32 flags=READ|WRITE offset=0x0 address=0x100000 size=0x200000 fds=[5 6]',
      '#8 DMA_MAP reply EEXIST',
    ]);
  }, 30_000);

  test('names every errno as the library does', async () => {
    const errnos = [...new Set([...Object.values(constants.errno), 109, 524])];
    await capture(
      file,
      errnos.map((errno) => {
        const bytes = w.errorReply(Command.REGION_READ, errno);
        return { ...MESSAGES[0]!, bytes, size: bytes.length, fds: [] };
      }),
    );
    const infos = await column(file, directory, '_ws.col.Info');
    expect(infos.map((info) => info.replace('#1 REGION_READ reply ', ''))).toEqual(errnos.map(errnoName));
  }, 30_000);

  test('names commands, features and states as the library does', async () => {
    const get = 0x10000;
    const messages = [
      ...Object.values(Command).map((command) => w.request(command, Buffer.alloc(0))),
      ...Object.values(Feature).map((feature) => w.deviceFeatureRequest({ flags: get | 0x40000 | feature })),
      ...Object.values(MigrationState).map((state) =>
        w.deviceFeatureReply({ flags: get | Feature.MIG_DEVICE_STATE, data: w.wire().u32(state).u32(0) }),
      ),
    ];
    await capture(
      file,
      messages.map((bytes) => ({ ...MESSAGES[0]!, bytes, size: bytes.length, fds: [] })),
    );
    const infos = await column(file, directory, '_ws.col.Info');
    const names = [Object.keys(Command), Object.keys(Feature), Object.keys(MigrationState)].flat();
    expect(infos.map((info) => info.split(/[ =}]/))).toEqual(
      names.map((name) => expect.arrayContaining([name])),
    );
  }, 30_000);

  test('says what is malformed, and never stumbles itself', async () => {
    const broken = [
      w.request(9, Buffer.alloc(3)),
      w.regionReadReply({ count: 5, data: [1] }),
      w.dmaWriteRequest({ count: 1n << 60n, data: [1] }),
      w.regionInfoReply({ size: 4096, capabilities: w.sparseMmap([[0, 4096]], 32) }),
      w.regionInfoReply({ size: 4096, capabilities: w.sparseMmap([], 0, 1_000_000) }),
      w.regionIoFdsReply({ argsz: 40, count: 3 }),
      w.regionWriteMultiRequest([], 1n << 50n),
      w.deviceFeatureRequest({ flags: 0x20006, data: w.loggingControl(4096, [], 1 << 30) }),
      w.deviceFeatureRequest({ flags: 0x20002, data: w.wire().u64(8) }),
      w.migDataReadReply({ argsz: 9, size: 0xffffffff, data: [1] }),
      w.deviceResetRequest({ size: 17 }),
      w.deviceResetRequest({ flags: 2 }),
      w.request(1, Buffer.alloc(0)),
      Buffer.alloc(15),
    ];
    await capture(
      file,
      broken.map((bytes) => ({ ...MESSAGES[0]!, bytes, size: bytes.length, fds: [] })),
    );
    const infos = await column(file, directory, '_ws.col.Info');
    expect(infos).toHaveLength(broken.length);
    for (const info of infos) expect(info).toContain('MALFORMED');
    expect(await tshark(file, directory, '-V')).not.toMatch(/\.lua:\d+|Lua Error/i);
  }, 30_000);

  test('survives messages that were damaged at every byte', async () => {
    const damaged = MESSAGES.flatMap((message) => {
      const twins: TracedMessage[] = [];
      for (let at = 16; at < message.bytes.length; at += 3) {
        const bytes = Buffer.from(message.bytes);
        bytes[at]! ^= 0x81;
        twins.push({ ...message, bytes });
      }
      return twins;
    });
    await capture(file, damaged);
    const text = await tshark(file, directory, '-V');
    expect(text.match(/^Frame \d+:/gm)).toHaveLength(damaged.length);
    expect(text).not.toMatch(/\.lua:\d+|Lua Error/i);
  }, 60_000);

  test('says that a message was not captured whole', async () => {
    await capture(file, [{ ...MESSAGES[0]!, bytes: MESSAGES[0]!.bytes.subarray(0, 32) }]);
    expect(await column(file, directory, '_ws.col.Info', '-Y', 'vfio_user.cut')).toHaveLength(1);
  }, 30_000);
});
