/** `vfio-user capture`: what captures hold. */
import type { Command } from 'commander';
import {
  CaptureError,
  CaptureReader,
  LatencyTracker,
  LineFormatter,
  describe,
  isMessage,
  type TracedEvent,
  type TracedInterrupt,
} from '../../trace/index.js';
import { registerOf } from '../../trace/format-line.js';
import { printable } from '../errors.js';
import { safeNumber } from '../json.js';
import { size } from '../numbers.js';
import { print } from '../output.js';
import type { RegisterPlacement } from '../../registers/index.js';
import { MAP_DESCRIPTION, MAP_FLAGS, loadPlacement, mapOption, type MapOption } from '../register-map.js';

interface ShowOptions {
  json: boolean;
  bytes: number;
  map?: MapOption;
}

const DEFAULT_BYTES = 32;
/** In place of a file's name. */
const STDIN = '-';

const HELP = `
A capture is what connect's capture option and VFIO_USER_CAPTURE=FILE write: pcapng, for Wireshark too (tools/wireshark has the dissector).
What Wireshark's tools make of it is read as well: classic pcap, which has no names of sockets and no file descriptors, and
both compressed by gzip. The exit status is 1 for what is no capture, for one that was cut, after what of it is whole, and
where no packet is of vfio-user.
With --json each message is one line of JSON; time is in nanoseconds since 1970, latency in nanoseconds.

Examples:
  $ vfio-user capture show dev.pcapng
  $ vfio-user capture show dev.pcapng --bytes 4096 | grep REGION_WRITE
  $ vfio-user capture show dev.pcapng --json | jq 'select(.errno)'
  $ vfio-user capture show dev.pcapng --map uart.svd
  $ ssh host cat dev.pcapng | vfio-user capture show -`;

export function registerCapture(program: Command): void {
  const capture = program.command('capture').description('look at captured traffic');
  capture
    .command('show')
    .description('print the messages of a capture, one on a line')
    .argument('<FILE>', 'a pcapng or pcap file, also compressed by gzip; - for stdin')
    .option('--json', 'print JSON, one object on a line', false)
    .option(MAP_FLAGS, MAP_DESCRIPTION, mapOption)
    .option('--bytes <count>', 'the most bytes of data to show of a message', size, DEFAULT_BYTES)
    .addHelpText('after', HELP)
    .action(show);
}

async function show(path: string, { json, bytes, map }: ShowOptions): Promise<void> {
  const placement = map === undefined ? undefined : await loadPlacement(map);
  const name = path === STDIN ? 'stdin' : path;
  const reader = new CaptureReader(path === STDIN ? process.stdin : path);
  const format = json ? jsonFormatter(bytes, placement) : lineFormatter(bytes, placement);
  let shown = 0;
  for await (const event of reader.events()) {
    await print(`${format(event)}\n`);
    shown++;
  }
  const { skipped, cutBytes } = reader;
  if (skipped > 0 && shown > 0) note(`${skipped} packets of other protocols are not shown`);
  if (cutBytes > 0) throw new CaptureError(`the last ${cutBytes} bytes of ${name} are not a whole block`);
  if (shown > 0) return;
  if (skipped > 0) throw new CaptureError(`none of the ${skipped} packets of ${name} is of vfio-user`);
  note(`there are no packets in ${name}`);
}

function note(text: string): void {
  process.stderr.write(`vfio-user: ${printable(text)}\n`);
}

function lineFormatter(
  previewBytes: number,
  placement: RegisterPlacement | undefined,
): (event: TracedEvent) => string {
  const lines = new LineFormatter({ previewBytes, registers: placement });
  return (event) => (isMessage(event) ? lines.format(event) : lines.formatInterrupt(event));
}

function jsonFormatter(
  previewBytes: number,
  placement: RegisterPlacement | undefined,
): (event: TracedEvent) => string {
  const latencies = new LatencyTracker();
  return (message) => {
    if (!isMessage(message)) return interruptJson(message);
    const { socket, time, direction, fds, bytes, note } = message;
    const latency = latencies.latencyOf(message);
    const description = describe(bytes, { direction, fds, previewBytes });
    const register = registerOf(bytes, placement);
    const line = { time: time.toString(), socket, ...description, latency, note, register };
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
