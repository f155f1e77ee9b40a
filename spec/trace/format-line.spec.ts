import { describe, expect, test } from '@jest/globals';
import { LineFormatter, formatDuration, formatSeconds, type TracedMessage } from '../../lib/trace/index.js';
import * as w from '../support/wire.js';
import { MESSAGES, SAMPLES } from './samples.js';

const MILLISECOND = 1_000_000n;

function message(bytes: Buffer, more: Partial<TracedMessage> = {}): TracedMessage {
  return {
    socket: '/run/dev.sock',
    direction: 'sent',
    time: 0n,
    bytes,
    size: bytes.length,
    fds: [],
    ...more,
  };
}

/** The line without time and socket. */
function lineOf(bytes: Buffer, more: Partial<TracedMessage> = {}): string {
  return new LineFormatter().format(message(bytes, more)).replace(/^ *0\.000000 dev\.sock /, '');
}

describe('a line', () => {
  test('has time, socket, direction, id, command, fields and the latency of a reply', () => {
    const lines = new LineFormatter();
    const read = { offset: 0x1c, region: 0, count: 4 };
    expect(lines.format(message(w.regionReadRequest(read, { id: 7 }), { time: 5_000n * MILLISECOND }))).toBe(
      '  0.000000 dev.sock → #7 REGION_READ offset=0x1c region=0 count=4',
    );
    const bytes = w.regionReadReply({ ...read, data: [1, 0, 0, 0xff] }, { id: 7 });
    expect(
      lines.format(message(bytes, { direction: 'received', time: 5_000n * MILLISECOND + 22_400n })),
    ).toBe(
      '  0.000022 dev.sock ← #7 REGION_READ reply offset=0x1c region=0 count=4 data=010000ff after 22.4µs',
    );
  });

  test('has addresses in hexadecimal, flags by name, fds', () => {
    expect(
      lineOf(w.dmaMapRequest({ flags: 3, offset: 0x200000, address: 1n << 63n, size: 0x1000 }, { id: 8 }), {
        fds: [12, 13],
      }),
    ).toBe(
      '→ #8 DMA_MAP argsz=32 flags=READ|WRITE offset=0x200000 address=0x8000000000000000 size=0x1000 fds=[12 13]',
    );
  });

  test('has an errno by name', () => {
    expect(lineOf(w.errorReply(2, 17), { direction: 'received' })).toBe('← #1 DMA_MAP reply EEXIST');
    expect(lineOf(w.errorReply(2, 0), { direction: 'received' })).toBe(
      '← #1 DMA_MAP reply error without errno',
    );
    expect(lineOf(w.errorReply(2, 9999), { direction: 'received' })).toBe('← #1 DMA_MAP reply errno 9999');
  });

  test('says that no reply is wanted', () => {
    expect(lineOf(w.regionWriteRequest({ data: [1] }, { flags: 0x10 }))).toBe(
      '→ #1 REGION_WRITE NO_REPLY offset=0x0 region=0 count=1 data=01',
    );
  });

  test('has capabilities as they were sent', () => {
    const data = { capabilities: { max_msg_fds: 8, twin_socket: { supported: true } } };
    expect(lineOf(w.versionRequest({ data }))).toBe(
      '→ #1 VERSION major=0 minor=2 version_data={"capabilities":{"max_msg_fds":8,"twin_socket":{"supported":true}}}',
    );
  });

  test('has structures within each other', () => {
    const bytes = w.regionInfoReply({ size: 0x2000, capabilities: w.sparseMmap([[0x1000, 0x1000]]) });
    expect(lineOf(bytes)).toBe(
      '→ #1 DEVICE_GET_REGION_INFO reply argsz=64 flags=READ|WRITE|MMAP|CAPS index=0 cap_offset=32 size=0x2000 ' +
        'offset=0x0 capabilities={sparse_mmap=[{offset=0x1000 size=0x1000}]}',
    );
    expect(lineOf(w.deviceFeatureReply({ flags: 0x10001, data: w.wire().u64(3) }))).toBe(
      '→ #1 DEVICE_FEATURE reply argsz=16 feature=MIGRATION flags=GET migration={flags=STOP_COPY|P2P}',
    );
  });

  test('counts migration data in decimal', () => {
    expect(lineOf(w.migDataReadRequest({ argsz: 1032, size: 1024 }))).toBe(
      '→ #1 MIG_DATA_READ argsz=1032 size=1024',
    );
  });

  test('says what is wrong', () => {
    expect(lineOf(w.request(9, Buffer.from([1, 2])))).toBe(
      '→ #1 REGION_READ MALFORMED (REGION_READ: the payload is 2 bytes, the region access structure is exactly 16) data=0102',
    );
    expect(lineOf(Buffer.alloc(3))).toContain('MALFORMED');
  });

  test('is cut where a message is long', () => {
    const data = w.regionWriteRequest({ data: Buffer.alloc(4096, 0xab) });
    expect(lineOf(data)).toContain(`data=${'ab'.repeat(32)}… (4096 bytes)`);
    expect(new LineFormatter({ previewBytes: 2 }).format(message(data))).toContain('data=abab… (4096 bytes)');
    const areas = Array.from({ length: 100 }, () => [0, 1] as const);
    const many = w.regionInfoReply({ size: 4096, capabilities: w.sparseMmap(areas) });
    expect(lineOf(many)).toContain('… 84 more]');
    const version = lineOf(w.versionRequest({ data: { capabilities: { long: 'x'.repeat(60_000) } } }));
    expect(version.length).toBeLessThan(1_200);
    expect(version).toContain('characters)');
  });

  test('leaves the terminal alone, whatever the server says', () => {
    const hostile = '\u001b[2J\u009b31m\u202e\n';
    const line = new LineFormatter().format(
      message(w.versionReply({ data: { capabilities: { [hostile]: hostile } } }), { socket: hostile }),
    );
    // eslint-disable-next-line no-control-regex
    expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
    expect(line).toContain('\\u001b[2J');
  });

  test('is one line for every message', () => {
    const lines = new LineFormatter();
    for (const [i, traced] of MESSAGES.entries()) {
      const line = lines.format(traced);
      expect(line).not.toContain('\n');
      expect(line).toContain(SAMPLES[i]!.command);
      expect(line).not.toContain('MALFORMED');
    }
  });

  test('tells of the end', () => {
    expect(new LineFormatter().formatEnd('/run/dev.sock (twin)', 0n, new Error('gone'))).toBe(
      '  0.000000 dev.sock (twin) ended: gone',
    );
  });
});

describe('the latency', () => {
  const ask = (id: number, more: Partial<TracedMessage> = {}): TracedMessage =>
    message(w.deviceResetRequest({ id }), more);
  const answer = (id: number, more: Partial<TracedMessage> = {}): TracedMessage =>
    message(w.deviceResetReply({ id }), { direction: 'received', ...more });

  test('belongs to the reply of the same id, whatever comes between', () => {
    const lines = new LineFormatter();
    lines.format(ask(1, { time: 0n }));
    lines.format(ask(2, { time: 1_000n }));
    expect(lines.format(answer(2, { time: 3_500n }))).toMatch(/after 2\.5µs$/);
    expect(lines.format(answer(1, { time: 9_000n }))).toMatch(/after 9\.0µs$/);
    // Nobody asked for that one.
    expect(lines.format(answer(1, { time: 9_000n }))).not.toContain('after');
  });

  test('keeps directions and sockets apart', () => {
    const lines = new LineFormatter();
    lines.format(ask(1, { time: 0n }));
    lines.format(ask(1, { time: 100n, direction: 'received' }));
    lines.format(ask(1, { time: 200n, socket: 'twin', direction: 'received' }));
    expect(lines.format(answer(1, { time: 1_200n, socket: 'twin', direction: 'sent' }))).toMatch(
      /after 1\.0µs$/,
    );
    expect(lines.format(answer(1, { time: 2_100n, direction: 'sent' }))).toMatch(/after 2\.0µs$/);
    expect(lines.format(answer(1, { time: 3_000n }))).toMatch(/after 3\.0µs$/);
  });

  test('is not waited for where no reply is wanted', () => {
    const lines = new LineFormatter();
    lines.format(message(w.deviceResetRequest({ id: 1, flags: 0x10 })));
    expect(lines.format(answer(1, { time: 5n }))).not.toContain('after');
  });

  test('of very many requests is bounded in memory, and right for the latest', () => {
    const lines = new LineFormatter();
    for (let i = 0; i < 70_000; i++) lines.format(ask(i % 65_536, { socket: `s${i % 2}`, time: BigInt(i) }));
    expect(lines.format(answer(69_999 % 65_536, { socket: 's1', time: 70_999n }))).toMatch(/after 1\.0µs$/);
  });
});

test('durations and seconds are written with microseconds', () => {
  expect(formatSeconds(0n)).toBe('0.000000');
  expect(formatSeconds(1_234_567_891_234n)).toBe('1234.567891');
  expect(formatSeconds(-1_500_000n)).toBe('-0.001500');
  expect(formatDuration(999_949n)).toBe('999.9µs');
  expect(formatDuration(1_204_000n)).toBe('1.204ms');
  expect(formatDuration(5_000_204_000n)).toBe('5.000204s');
});
