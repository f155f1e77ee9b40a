/**
 * Captures that Wireshark's tools have rewritten read as they were: all that the format in between holds.
 */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { CaptureReader, CaptureWriter, isMessage, type TracedEvent } from '../../lib/trace/index.js';
import { Scratch, vfioUser } from '../cli/cli.js';
import { MESSAGES } from '../trace/samples.js';

jest.setTimeout(120_000);

const TOOLS = ['editcap', 'mergecap', 'reordercap'];
const HAS_TOOLS = TOOLS.every((tool) => spawnSync(tool, ['--version']).status === 0);

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

/** Messages and interrupts of several sockets, a microsecond apart, since not every format has nanoseconds. */
const EVENTS: TracedEvent[] = [
  ...MESSAGES.map((message, i) => ({
    ...message,
    socket: `/run/dev-${i % 3}.sock`,
    time: 1_700_000_000_000_000_000n + BigInt(i) * 1_000n,
    ...(i % 5 === 0 && { note: `note ${i}` }),
  })),
  { socket: '/run/dev-0.sock', time: 1_700_000_001_000_000_000n, index: 2, subindex: 3, count: 4 },
];

async function write(name: string, events: readonly TracedEvent[]): Promise<string> {
  const path = scratch.path(name);
  const writer = await CaptureWriter.open({ path });
  for (const event of events) writer.write(event);
  writer.close();
  return path;
}

async function read(path: string): Promise<TracedEvent[]> {
  const events: TracedEvent[] = [];
  const reader = new CaptureReader(path);
  for await (const event of reader.events()) events.push(event);
  expect([reader.cutBytes, reader.skipped]).toEqual([0, 0]);
  return events;
}

function run(tool: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(tool, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${tool} ${args.join(' ')}: ${stderr}`);
}

/** What classic pcap holds of an event. */
function inPcap(event: TracedEvent): TracedEvent {
  if (!isMessage(event)) return { ...event, socket: 'interface 0' };
  const { note: _note, ...rest } = event;
  return { ...rest, socket: 'interface 0', fds: [] };
}

(HAS_TOOLS ? describe : describe.skip)(
  "captures that Wireshark's tools rewrote (needs editcap, mergecap, reordercap)",
  () => {
    test('editcap, pcapng to pcapng', async () => {
      const from = await write('from.pcapng', EVENTS);
      const to = scratch.path('to.pcapng');
      run('editcap', '-F', 'pcapng', from, to);
      expect(await read(to)).toEqual(EVENTS);
      run('editcap', '-r', from, scratch.path('some.pcapng'), '3-7');
      expect(await read(scratch.path('some.pcapng'))).toEqual(EVENTS.slice(2, 7));
    });

    test.each(['pcap', 'nsecpcap'])('editcap to %s', async (format) => {
      const from = await write('from.pcapng', EVENTS);
      const to = scratch.path('to.pcap');
      run('editcap', '-F', format, from, to);
      expect(await read(to)).toEqual(EVENTS.map(inPcap));
      const back = scratch.path('back.pcapng');
      run('editcap', '-F', 'pcapng', to, back);
      expect(await read(back)).toEqual(EVENTS.map(inPcap));
    });

    test('editcap that cuts packets keeps how long they were', async () => {
      const from = await write('from.pcapng', EVENTS.slice(0, -1));
      const to = scratch.path('to.pcapng');
      run('editcap', '-s', '48', from, to);
      const messages = (await read(to)).filter(isMessage);
      expect(messages.map(({ size }) => size)).toEqual(EVENTS.filter(isMessage).map(({ size }) => size));
      expect(Math.max(...messages.map(({ bytes }) => bytes.length))).toBe(48 - 20);
    });

    test('mergecap of two puts them in order, with their sockets', async () => {
      const halves = [0, 1].map((half) => EVENTS.filter((_, i) => i % 2 === half));
      const files = [await write('even.pcapng', halves[0]!), await write('odd.pcapng', halves[1]!)];
      const to = scratch.path('to.pcapng');
      run('mergecap', '-w', to, ...files);
      expect(await read(to)).toEqual(EVENTS);
      run('mergecap', '-F', 'pcap', '-w', to, ...files);
      expect(await read(to)).toEqual(EVENTS.map(inPcap));
    });

    test('reordercap puts them in order', async () => {
      const to = scratch.path('to.pcapng');
      const ofOne = EVENTS.filter(({ socket }) => socket === '/run/dev-0.sock');
      run('reordercap', await write('one.pcapng', [...ofOne].reverse()), to);
      expect(await read(to)).toEqual(ofOne);
      // It takes several sockets where all of them are described in front, as mergecap does it.
      const parts = [0, 1, 2].map((n) => EVENTS.filter(({ socket }) => socket === `/run/dev-${n}.sock`));
      const files = await Promise.all(parts.map((part, n) => write(`dev-${n}.pcapng`, part)));
      run('mergecap', '-a', '-w', scratch.path('merged.pcapng'), ...files);
      expect(await read(scratch.path('merged.pcapng'))).toEqual(parts.flat());
      run('reordercap', scratch.path('merged.pcapng'), to);
      expect(await read(to)).toEqual(EVENTS);
    });

    test('and capture show prints of each what it prints of ours', async () => {
      const from = await write('from.pcapng', EVENTS);
      const { stdout } = await vfioUser('capture', 'show', from);
      const edited = scratch.path('to.pcapng');
      run('editcap', from, edited);
      expect(await vfioUser('capture', 'show', edited)).toMatchObject({ status: 0, stdout, stderr: '' });
      writeFileSync(`${edited}.gz`, gzipSync(readFileSync(edited)));
      expect(await vfioUser('capture', 'show', `${edited}.gz`)).toMatchObject({
        status: 0,
        stdout,
        stderr: '',
      });
    });
  },
);
