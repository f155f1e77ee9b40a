/** `vfio-user inspect`: a device, or a capture, in a browser. */
import { statSync } from 'node:fs';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { VfioUserError, type Device, type Vector } from '../../index.js';
import { withDevice } from '../global-options.js';
import { CaptureSubject } from '../inspector/capture-subject.js';
import { DeviceSubject, tapMessages } from '../inspector/device-subject.js';
import { InspectorServer } from '../inspector/server.js';
import type { Subject } from '../inspector/subject.js';
import { toJsonLine } from '../json.js';
import { size } from '../numbers.js';
import { print } from '../output.js';
import { loadPlacement, MAP_DESCRIPTION, MAP_FLAGS, mapOption, type MapOption } from '../register-map.js';
import { untilStopped } from '../stop-signals.js';

interface InspectOptions {
  map?: MapOption;
  host: string;
  port: number;
  irqs?: (typeof INDEXES)[number];
  allowWrites: boolean;
  enable: boolean;
  json: boolean;
}

const INDEXES = ['intx', 'msi', 'msix'] as const;
const LOOPBACK = '127.0.0.1';
const MAX_PORT = 65_535;
const MOST_VECTORS = 64;

const HELP = `
Prints an address, for the browser of this machine; whoever has it may use it. Ends when it is interrupted (^C).

Of a device it shows regions, interrupts, config space, the registers of a map, and the messages that the inspector itself exchanges
with it. Registers that change by being read are never read, and memory is read where the page is told to. Nothing is written without
--allow-writes. A file is a capture: its messages, interrupts and DMA regions on one time axis, and the registers that were touched.

Examples:
  $ vfio-user inspect /run/dev.sock --map uart.svd
  $ vfio-user inspect /run/dev.sock --map uart.svd --irqs msix --enable --allow-writes
  $ vfio-user inspect run.pcapng --map uart.svd
  $ ssh -L 8080:127.0.0.1:8080 lab vfio-user inspect /run/dev.sock --port 8080`;

export function registerInspect(program: Command): void {
  program
    .command('inspect')
    .description('look at a device, or at a capture, in a browser')
    .argument('<SOCKET>', 'where the server listens; or a capture, a pcapng or pcap file')
    .option(MAP_FLAGS, MAP_DESCRIPTION, mapOption)
    .option('--host <address>', 'where to listen: this machine alone where nothing is said', LOOPBACK)
    .option('--port <port>', 'the port; any that is free where nothing is said', portNumber, 0)
    .addOption(
      new Option('--irqs <index>', 'enable these interrupts, and show when they come').choices(INDEXES),
    )
    .option('--enable', 'first do what a host does: assign BARs, set memory, I/O and bus-master bits', false)
    .option('--allow-writes', 'let the page write registers', false)
    .option('--json', 'print the address as JSON', false)
    .addHelpText('after', HELP)
    .action(inspect);
}

async function inspect(source: string, options: InspectOptions, command: Command): Promise<void> {
  const placement = options.map === undefined ? undefined : await loadPlacement(options.map);
  if (statSync(source, { throwIfNoEntry: false })?.isFile() === true)
    return serve(await CaptureSubject.read(source, placement), options);
  const { log, stop } = tapMessages(placement);
  try {
    await withDevice(command, source, async (device) => {
      const { allowWrites: allowsWrites, enable, irqs } = options;
      const subject = new DeviceSubject(device, log, { endpoint: source, placement, allowsWrites });
      if (enable) await device.enable();
      if (irqs !== undefined) subject.watch(await enableAll(device, irqs));
      await serve(subject, options);
    });
  } finally {
    stop();
  }
}

function enableAll(device: Device, index: (typeof INDEXES)[number]): Promise<Vector[]> {
  const irqs = device.irqs[index];
  if (irqs.count === 0)
    throw new VfioUserError('ERR_VFIO_USER_UNSUPPORTED', `the device has no ${irqs.name} interrupts`);
  return irqs.enable({ start: 0, count: Math.min(irqs.count, MOST_VECTORS) });
}

async function serve(subject: Subject, { host, port, json }: InspectOptions): Promise<void> {
  const stopped = untilStopped();
  await using server = await InspectorServer.listen(subject, host, port);
  await print(json ? toJsonLine({ url: server.url }) : `${server.url}\n`);
  await stopped;
}

function portNumber(text: string): number {
  const port = size(text);
  if (port > MAX_PORT) throw new InvalidArgumentError(`It is at most ${MAX_PORT}.`);
  return port;
}
