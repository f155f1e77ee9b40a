/** Interrupts, which no message shows, in captures and lines. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect } from '../../lib/device/connect.js';
import { EduDevice, serve } from '../../lib/emulator/index.js';
import {
  CaptureError,
  CaptureReader,
  CaptureWriter,
  LineFormatter,
  isMessage,
  type TracedEvent,
} from '../../lib/trace/index.js';
import { MESSAGES } from './samples.js';

let directory: string;
let file: string;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
  file = path.join(directory, 'dev.pcapng');
});

afterEach(() => rmSync(directory, { recursive: true }));

async function events(): Promise<TracedEvent[]> {
  const all: TracedEvent[] = [];
  for await (const event of new CaptureReader(file).events()) all.push(event);
  return all;
}

const INTERRUPT = { socket: 'dev', time: 12_345n, index: 2, subindex: 2047, count: Number.MAX_SAFE_INTEGER };

describe('an interrupt', () => {
  test('stands between the messages of a capture, and is none of them', async () => {
    const written = [MESSAGES[0]!, INTERRUPT, MESSAGES[1]!];
    const writer = await CaptureWriter.open({ path: file });
    for (const event of written) writer.write(event);
    writer.close();
    expect(await events()).toEqual(written);
    const messages = [];
    const reader = new CaptureReader(file);
    for await (const message of reader) messages.push(message);
    expect([messages, reader.skipped]).toEqual([[MESSAGES[0], MESSAGES[1]], 0]);
  });

  test('that is damaged is a CaptureError', async () => {
    const writer = await CaptureWriter.open({ path: file });
    writer.write(INTERRUPT);
    writer.close();
    const sound = readFileSync(file);
    const count = Buffer.alloc(8);
    count.writeBigUInt64LE(BigInt(INTERRUPT.count));
    const at = sound.indexOf(count);
    for (const value of [0n, 1n << 60n]) {
      sound.writeBigUInt64LE(value, at);
      writeFileSync(file, sound);
      await expect(events()).rejects.toThrow(CaptureError);
    }
  });

  test('is a line', () => {
    const line = new LineFormatter().formatInterrupt({ ...INTERRUPT, count: 1 });
    expect(line).toBe('  0.000000 dev ← interrupt index=2 subindex=2047 count=1');
  });

  test('of a device is in its trace and its capture, where its count was read', async () => {
    await using server = await serve(new EduDevice(), { path: path.join(directory, 'socket') });
    const lines: string[] = [];
    const device = await connect(server.path!, { capture: file, trace: (line) => void lines.push(line) });
    await device.enable();
    const [vector] = await device.irqs.msi.enable(1);
    await device.bar(0).writeUInt32(0x60, 1);
    await vector.wait();
    await device.close();
    expect(lines.filter((line) => line.includes('interrupt index=1 subindex=0 count=1'))).toHaveLength(1);
    const seen = (await events()).filter((event) => !isMessage(event));
    expect(seen).toEqual([
      { socket: server.path, time: expect.any(BigInt), index: 1, subindex: 0, count: 1 },
    ]);
  });
});
