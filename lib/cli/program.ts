/** The command line as a whole: verbs, global options, and what becomes of an error. */
import { createRequire } from 'node:module';
import { Command, CommanderError, Option } from 'commander';
import { FAILURE, describeError, exitStatus, printable } from './errors.js';
import type { GlobalOptions } from './global-options.js';
import { milliseconds } from './numbers.js';
import { registerNvme } from './nvme.js';
import { flush, isReaderGone, watchStdout } from './output.js';
import { stop } from './signals.js';
import { registerBench } from './verbs/bench.js';
import { registerCapture } from './verbs/capture.js';
import { registerCompletion } from './verbs/completion.js';
import { registerConfig } from './verbs/config.js';
import { registerDoctor } from './verbs/doctor.js';
import { registerDump } from './verbs/dump.js';
import { registerEmulate } from './verbs/emulate.js';
import { registerInfo } from './verbs/info.js';
import { registerIrq } from './verbs/irq.js';
import { registerLspci } from './verbs/lspci.js';
import { registerMigrate } from './verbs/migrate.js';
import { registerProxy } from './verbs/proxy.js';
import { registerRead } from './verbs/read.js';
import { registerRepl } from './verbs/repl.js';
import { registerReplay } from './verbs/replay.js';
import { registerReset } from './verbs/reset.js';
import { registerWrite } from './verbs/write.js';
import { wasCaptureLost } from './warnings.js';

type Register = (program: Command) => void;

/** In the order of the help. A verb is one file that registers itself, and one line here. */
const VERBS: readonly { group: string; verbs: readonly Register[] }[] = [
  { group: 'Look at a device:', verbs: [registerInfo, registerLspci, registerDoctor] },
  {
    group: 'Registers and memory:',
    verbs: [registerRead, registerWrite, registerDump, registerConfig],
  },
  {
    group: 'Drive a device:',
    verbs: [registerIrq, registerReset, registerMigrate, registerRepl, registerNvme],
  },
  { group: 'The traffic:', verbs: [registerCapture, registerProxy, registerReplay] },
  { group: 'Without a device of your own:', verbs: [registerEmulate] },
  { group: 'More:', verbs: [registerBench, registerCompletion] },
];

const DEFAULT_TIMEOUT_MS = 5_000;
/** What a shell says of a program that SIGPIPE ended, which Node ignores. */
const READER_GONE = 141;

const HELP = `
SOCKET is where the server listens:
  /run/dev.sock     a Unix socket's path
  @name             an abstract Unix socket
  fd:3              a connected socket that this process inherits
  tcp:HOST:PORT     TCP, or tcp:PORT on this machine: no shared memory, no interrupts

REGION is bar0 to bar5, rom, config or vga, or an index. Numbers are decimal, or hexadecimal after 0x.

Try it without a device of your own:
  $ vfio-user emulate edu --socket /tmp/edu.sock &
  $ vfio-user info /tmp/edu.sock                                    what is it?
  $ vfio-user read /tmp/edu.sock bar0 0 --enable                    the identification register
  $ vfio-user write /tmp/edu.sock bar0 4 0x12345678 --enable
  $ vfio-user config /tmp/edu.sock COMMAND=0x6:0x6                  as setpci does
  $ vfio-user irq watch /tmp/edu.sock --count 1 --write bar0:0x60=1
  $ vfio-user repl /tmp/edu.sock                                    JavaScript, with the device open

What goes over the wire: VFIO_USER_TRACE=1 prints it; a program's capture, or that of vfio-user proxy --capture FILE, is
shown by vfio-user capture show FILE.

Environment:
  VFIO_USER_TRACE=1  print each message on stderr, decoded
  NO_COLOR           no colours at all, if not empty
  FORCE_COLOR        colours where there is no terminal, too, if not empty; 0 for none
  XDG_STATE_HOME     where repl keeps its history (~/.local/state)

Exit status: 0 success, 1 failure, 2 wrong usage, and 141 when whoever reads the output has gone (| head). 0 says that all
that was asked for was done.

vfio-user help VERB, or vfio-user VERB --help, says more; docs/cli.md has all of it.`;

/**
 * Runs the command line `argv`, without the program's own name.
 * @returns the exit status; errors have been told on stderr by then.
 */
export async function run(argv: readonly string[]): Promise<number> {
  const program = buildProgram();
  watchStdout(stop);
  try {
    await parse(program, argv);
    // Help, and what is printed without being waited for, has to arrive, too.
    await flush();
    return wasCaptureLost() ? FAILURE : 0;
  } catch (error) {
    if (isReaderGone(error)) return READER_GONE;
    // Commander has told its own errors.
    if (!(error instanceof CommanderError)) {
      const { verbose } = program.opts<GlobalOptions>();
      process.stderr.write(`${describeError(error, verbose)}\n`);
    }
    return exitStatus(error);
  }
}

/** Help is no error. */
async function parse(program: Command, argv: readonly string[]): Promise<void> {
  try {
    await program.parseAsync(argv, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError) || error.exitCode !== 0) throw error;
  }
}

/** All of the command line, ready to parse. */
export function buildProgram(): Command {
  const program = new Command('vfio-user')
    .description('Looks at and drives PCI devices that live in other processes, over the vfio-user protocol.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .usage('[options] <verb> ...')
    .option('--timeout <ms>', 'how long to wait for the server, each time', milliseconds, DEFAULT_TIMEOUT_MS)
    .option('--wait', 'wait for the socket to appear, within the timeout')
    .addOption(
      new Option('--mmap <policy>', "which of the server's files may be mapped")
        .choices(['always', 'sealed', 'never'])
        .default('always'),
    )
    .option('--quirks <file>', 'what this server does not do as it should, as JSON: see doctor')
    .option('--verbose', 'print stack traces of errors')
    .option('--no-color', 'no colours (there are none but on a terminal)')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError: (text, write) => write(usageLine(text)) })
    .exitOverride()
    .addHelpText('after', HELP);
  for (const { group, verbs } of VERBS) {
    program.commandsGroup(group);
    for (const register of verbs) register(program);
  }
  // Stands in the last of the groups.
  return program.helpCommand('help [verb]', 'print help for a verb');
}

/** Commander's `error: …`, with a suggestion on a second line, as one line of ours. */
function usageLine(text: string): string {
  const line = text
    .trim()
    .replace(/^error: /, '')
    .replaceAll(/\s*\n\s*/g, ' ');
  return `vfio-user: ${printable(line)}; see vfio-user --help\n`;
}

function packageVersion(): string {
  const require = createRequire(import.meta.url);
  return (require('../../package.json') as { version: string }).version;
}
