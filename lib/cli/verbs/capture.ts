/** `vfio-user capture`: what captures hold. */
import type { Command } from 'commander';
import {
  CaptureReader,
  LatencyTracker,
  LineFormatter,
  describe,
  isMessage,
  type TracedEvent,
  type TracedInterrupt,
} from '../../trace/index.js';
import { printable } from '../errors.js';
import { safeNumber } from '../json.js';
import { size } from '../numbers.js';
import { print } from '../output.js';

interface ShowOptions {
  json: boolean;
  bytes: number;
}

const DEFAULT_BYTES = 32;

const HELP = `
A capture is what connect's capture option and VFIO_USER_CAPTURE=FILE write: pcapng, for Wireshark too (tools/wireshark has the dissector).
With --json each message is one line of JSON; time is in nanoseconds since 1970, latency in nanoseconds.

Examples:
  $ vfio-user capture show dev.pcapng
  $ vfio-user capture show dev.pcapng --bytes 4096 | grep REGION_WRITE
  $ vfio-user capture show dev.pcapng --json | jq 'select(.errno)'`;

export function registerCapture(program: Command): void {
  const capture = program.command('capture').description('look at captured traffic');
  capture
    .command('show')
    .description('print the messages of a capture, one on a line')
    .argument('<FILE>', 'a pcapng file')
    .option('--json', 'print JSON, one object on a line', false)
    .option('--bytes <count>', 'the most bytes of data to show of a message', size, DEFAULT_BYTES)
    .addHelpText('after', HELP)
    .action(show);
}

async function show(path: string, { json, bytes }: ShowOptions): Promise<void> {
  const reader = new CaptureReader(path);
  const format = json ? jsonFormatter(bytes) : lineFormatter(bytes);
  for await (const event of reader.events()) await print(`${format(event)}\n`);
  if (reader.cutBytes > 0) {
    process.stderr.write(`vfio-user: the last ${reader.cutBytes} bytes of ${path} are not a whole block\n`);
  }
  if (reader.skipped > 0) {
    process.stderr.write(`vfio-user: ${reader.skipped} packets of other protocols are not shown\n`);
  }
}

function lineFormatter(previewBytes: number): (event: TracedEvent) => string {
  const lines = new LineFormatter({ previewBytes });
  return (event) => (isMessage(event) ? lines.format(event) : lines.formatInterrupt(event));
}

function jsonFormatter(previewBytes: number): (event: TracedEvent) => string {
  const latencies = new LatencyTracker();
  return (message) => {
    if (!isMessage(message)) return interruptJson(message);
    const { socket, time, direction, fds, bytes, note } = message;
    const latency = latencies.latencyOf(message);
    const description = describe(bytes, { direction, fds, previewBytes });
    const line = { time: time.toString(), socket, ...description, latency, note };
    return printable(JSON.stringify(line, replace));
  };
}

function interruptJson({ time, socket, index, subindex, count }: TracedInterrupt): string {
  return printable(
    JSON.stringify({ time: time.toString(), socket, kind: 'interrupt', index, subindex, count }),
  );
}

function replace(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? safeNumber(value) : value;
}
