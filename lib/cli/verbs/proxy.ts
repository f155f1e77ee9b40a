/** `vfio-user proxy`: between a client and a server. */
import { stat } from 'node:fs/promises';
import { Option, type Command } from 'commander';
import { proxy, type ListenAddress, type ProxyOptions, type ServerAddress } from '../../proxy/index.js';
import { UsageError, printable } from '../errors.js';
import {
  DEVICE_FAULTS_HELP,
  addFaultOptions,
  faultPlanOf,
  namesOf,
  reportText,
  type FaultOptions,
} from '../fault-options.js';
import { addMetricsOption, serveMetrics, type MetricsAddress } from '../metrics-server.js';
import { addressOf, endpointOf, pciFunctionOf } from '../endpoint.js';
import { tlsOf, type GlobalOptions } from '../global-options.js';
import { byteSize, length, size } from '../numbers.js';
import { print } from '../output.js';
import { describeEvent, summaryOf } from '../proxy-report.js';
import { serveLocally } from '../serve-locally.js';
import { untilStopped } from '../stop-signals.js';

interface Options extends FaultOptions {
  listen: string;
  connect: string;
  log?: boolean;
  capture?: string;
  rotateBytes?: number;
  rotateFiles?: number;
  twin: 'interpose' | 'pass';
  interrupts?: boolean;
  malformed: 'close' | 'pass';
  maxMessage?: number;
  maxClients?: number;
  spin?: number;
  metrics?: MetricsAddress;
}

const HELP = `
Clients connect to --listen as though it were the server. --listen and --connect are a path, @name for an abstract
socket, or tcp:HOST:PORT (where no file descriptors pass); --connect may be pci:ADDRESS, too. Each client gets a connection of its own to the server when its
first message has come. With --max-clients at once the next 64 wait; who says nothing goes, after 5 s or when others wait.
Log lines and the summary at the end go to stdout, what happens besides to stderr. Runs until it is interrupted.
Log lines that come faster than they are read are left out, 4 MiB wait, and a line says how many; a capture has them all,
so a FIFO's slow reader slows down clients and server.

A fault is NAME or NAME:member=value,…; --faults reads a JSON file, {"seed": 1, "faults": [{"fault": "drop", …}]}.
  delay:ms=50                 it and what follows arrives later
  drop                        it does not arrive
  split:pieces=3,ms=10        in pieces with pauses; at=8+16 cuts at offsets
  duplicate                   it arrives twice
  corrupt:offset=20,xor=0xff  a byte of it is changed; bits=3 turns random bits
  withhold-fd:fd=0            without a file descriptor of its, or without any (fd=all)
  errno:errno=EIO             a request is answered with an error, and does not arrive
  disconnect:bytes=8          so much of it arrives, then both sides are disconnected
Which messages: direction=to-server|to-client  command=REGION_READ  kind=request|reply  socket=main|twin,
and of those: nth=3 | every=10 | probability=0.01, at most times=5.
${DEVICE_FAULTS_HELP}
A region with such a fault is not mapped, and with faults of DMA memory is not shared: all comes by message.

Examples:
  $ vfio-user proxy --listen /tmp/front.sock --connect /run/dev.sock --log
  $ vfio-user proxy --listen /tmp/front.sock --connect /run/dev.sock --capture dev.pcapng --rotate-bytes 64M
  $ vfio-user proxy --listen @front --connect tcp:host:4420
  $ vfio-user proxy --listen @front --connect @dev --fault drop:command=REGION_READ,kind=reply,nth=3
  $ vfio-user proxy --listen @front --connect @dev --fault delay:ms=20,probability=0.1 --seed 7
  $ vfio-user proxy --listen @front --connect @dev --map uart.svd --fault stuck-bits:register=STATUS.READY,value=0`;

export function registerProxy(program: Command): void {
  const command = program
    .command('proxy')
    .description('stand between clients and a server: log, capture, disturb')
    .requiredOption('--listen <address>', 'where clients connect to')
    .requiredOption('--connect <address>', 'where the server listens')
    .option('--log', 'print a line for each message')
    .option('--capture <file>', 'write all messages to a pcapng file')
    .option(
      '--rotate-bytes <size>',
      'begin a new capture file at this size; the old one becomes FILE.1',
      byteSize,
    )
    .option('--rotate-files <count>', 'how many old capture files to keep (9)', size);
  addFaultOptions(command)
    .addOption(
      new Option('--twin <how>', "the socket for the server's own requests: seen, or passed on")
        .choices(['interpose', 'pass'])
        .default('interpose'),
    )
    .option('--interrupts', 'see interrupts too; so it is with --log or --capture')
    .option('--no-interrupts', 'pass eventfds on as they are')
    .addOption(
      new Option('--malformed <how>', 'after a header that makes no sense')
        .choices(['close', 'pass'])
        .default('close'),
    )
    .option('--max-message <size>', 'the largest message that makes sense (1 MiB and 4 KiB)', byteSize)
    .option('--max-clients <count>', 'clients at once; others wait (64)', length)
    .option('--spin <us>', 'microseconds to look for the next message before sleeping (50); 0 never', size);
  addMetricsOption(command).addHelpText('after', HELP).action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const globals = command.optsWithGlobals<GlobalOptions>();
  const { timeout, wait = false } = globals;
  const tls = await tlsOf(globals);
  checkTogether(options);
  const names = await namesOf(options);
  const faults = await faultPlanOf(options, names);
  const stopped = untilStopped();
  const pci = pciFunctionOf(options.connect);
  await using local = pci === undefined ? undefined : await serveLocally(pci);
  await using server = await start({
    ...(faults !== undefined && { faults }),
    ...traceOf(options),
    ...(names !== undefined && { registers: names }),
    listen: listenAddress(options.listen),
    connect: local?.path ?? serverAddress(options.connect),
    timeoutMs: timeout,
    waitForSocket: wait,
    ...(tls !== undefined && { tls }),
    twinSocket: options.twin,
    malformed: options.malformed,
    ...(options.maxMessage !== undefined && { maxMessageBytes: options.maxMessage }),
    ...(options.maxClients !== undefined && { maxClients: options.maxClients }),
    ...(options.spin !== undefined && { spinUs: options.spin }),
    onEvent: (event) => {
      process.stderr.write(`${printable(describeEvent(event))}\n`);
    },
  });
  await using _metrics = await serveMetrics(options.metrics, () => server.metrics());
  await print(`listening on ${printable(shownAddress(options.listen, server.address))}\n`);
  if (local === undefined) await warnWithoutServer(options.connect, wait);
  await stopped;
  await server.close();
  await print(`${[summaryOf(server.counters), reportText(faults?.report())].filter(Boolean).join('\n')}\n`);
}

/** Options that contradict each other are wrong usage. */
async function start(options: ProxyOptions): ReturnType<typeof proxy> {
  try {
    return await proxy(options);
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

function checkTogether({ capture, rotateBytes, rotateFiles }: Options): void {
  if (capture === undefined && (rotateBytes ?? rotateFiles) !== undefined) {
    throw new UsageError('--rotate-bytes and --rotate-files need --capture');
  }
  if (rotateFiles !== undefined && rotateBytes === undefined) {
    throw new UsageError('--rotate-files needs --rotate-bytes');
  }
}

function traceOf({ log, capture, rotateBytes, rotateFiles, interrupts }: Options): Partial<ProxyOptions> {
  return {
    trace: log === true ? process.stdout : undefined,
    capture: capture === undefined ? undefined : { path: capture, rotateBytes, rotateFiles },
    ...(interrupts !== undefined && { interrupts }),
  };
}

function listenAddress(text: string): ListenAddress {
  const { kind } = addressOf(text);
  if (kind !== 'unix' && kind !== 'tcp')
    throw new UsageError('--listen takes a path, @name or tcp:HOST:PORT');
  return text;
}

function serverAddress(text: string): ServerAddress {
  endpointOf(text);
  if (addressOf(text).kind === 'fd')
    throw new UsageError('--connect takes an address that can be connected to again');
  return text;
}

/** As it was given; TCP with the port that it got. */
function shownAddress(given: string, address: string): string {
  return given.startsWith('tcp:') ? `tcp:${address}` : given;
}

/** Only looked for: some servers do not survive a connection that is closed at once. */
async function warnWithoutServer(connect: string, wait: boolean): Promise<void> {
  const address = addressOf(connect);
  if (wait || address.kind !== 'unix' || address.path.startsWith('\0')) return;
  const isThere = await stat(address.path).then(
    () => true,
    () => false,
  );
  if (isThere) return;
  process.stderr.write(
    `vfio-user: nothing is at ${printable(connect)} yet: clients are refused until there is\n`,
  );
}
