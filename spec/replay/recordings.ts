/** Recordings that specs write message by message, and a directory for them. */
import { afterEach, beforeEach } from '@jest/globals';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { CaptureWriter, type TracedEvent } from '../../lib/trace/index.js';
import * as w from '../support/wire.js';

export let directory: string;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
});

afterEach(() => rmSync(directory, { recursive: true }));

export function file(name = 'dev.pcapng'): string {
  return path.join(directory, name);
}

/** Where, which way, what, with how many fds. `socket` is `dev` and the times a microsecond apart unless they are given. */
export interface Line {
  socket?: string;
  sent?: Buffer;
  received?: Buffer;
  interrupt?: [index: number, subindex: number, count: number];
  fds?: number;
  /** Bytes of the message on the wire, where not all of them were captured. */
  size?: number;
  time?: bigint;
}

/** Writes a capture. */
export async function record(lines: readonly Line[], name?: string): Promise<string> {
  const writer = await CaptureWriter.open({ path: file(name) });
  lines.forEach((line, i) => writer.write(eventOf(line, BigInt(i) * 1_000n)));
  writer.close();
  return file(name);
}

function eventOf(line: Line, time: bigint): TracedEvent {
  const { socket = 'dev', sent, received, interrupt, fds = 0 } = line;
  if (interrupt !== undefined) {
    const [index, subindex, count] = interrupt;
    return { socket, time: line.time ?? time, index, subindex, count };
  }
  const bytes = (sent ?? received)!;
  return {
    socket,
    time: line.time ?? time,
    direction: sent === undefined ? 'received' : 'sent',
    bytes,
    size: line.size ?? bytes.length,
    fds: Array.from({ length: fds }, (_, i) => i + 3),
  };
}

const DATA = { capabilities: { max_msg_fds: 8, max_data_xfer_size: 1048576 } };

/** What each recording begins with: VERSION and its reply. */
export function handshake(socket = 'dev'): Line[] {
  return [
    { socket, sent: w.versionRequest({ data: DATA }, { id: 1 }) },
    { socket, received: w.versionReply({ data: DATA }, { id: 1 }) },
  ];
}

/** REGION_READ of four bytes at `offset`, and what was there. */
export function read(id: number, offset: number, value: number): Line[] {
  const data = Buffer.alloc(4);
  data.writeUInt32LE(value);
  return [
    { sent: w.regionReadRequest({ offset, region: 0, count: 4 }, { id }) },
    { received: w.regionReadReply({ offset, region: 0, data }, { id }) },
  ];
}

export function write(id: number, offset: number, value: number): Line[] {
  const data = Buffer.alloc(4);
  data.writeUInt32LE(value);
  return [
    { sent: w.regionWriteRequest({ offset, region: 0, data }, { id }) },
    { received: w.regionWriteReply({ offset, region: 0, count: 4 }, { id }) },
  ];
}
