/** The command line as a whole: verbs, global options, and what becomes of an error. */
import { createRequire } from 'node:module';
import { Command, CommanderError, Option } from 'commander';
import { FAILURE, UsageError, describeError, exitStatus, printable } from './errors.js';
import type { GlobalOptions } from './global-options.js';
import { milliseconds } from './numbers.js';
import { flush, isReaderGone, watchStdout } from './output.js';
import { stop } from './stop-signals.js';
import { wasCaptureLost } from './warnings.js';

type Register = (program: Command) => void;

/**
 * In the order of the help. A verb is one file that registers itself, and one line here. A file is loaded when its verb
 * is asked for: loading all of them takes longer than most verbs do.
 */
const GROUPS: readonly { group: string; verbs: Readonly<Record<string, () => Promise<Register>>> }[] = [
  {
    group: 'Look at a device:',
    verbs: {
      info: async () => (await import('./verbs/info.js')).registerInfo,
      lspci: async () => (await import('./verbs/lspci.js')).registerLspci,
      doctor: async () => (await import('./verbs/doctor.js')).registerDoctor,
      inspect: async () => (await import('./verbs/inspect.js')).registerInspect,
    },
  },
  {
    group: 'Registers and memory:',
    verbs: {
      read: async () => (await import('./verbs/read.js')).registerRead,
      write: async () => (await import('./verbs/write.js')).registerWrite,
      dump: async () => (await import('./verbs/dump.js')).registerDump,
      config: async () => (await import('./verbs/config.js')).registerConfig,
      registers: async () => (await import('./verbs/registers.js')).registerRegisters,
    },
  },
  {
    group: 'Drive a device:',
    verbs: {
      irq: async () => (await import('./verbs/irq.js')).registerIrq,
      reset: async () => (await import('./verbs/reset.js')).registerReset,
      migrate: async () => (await import('./verbs/migrate.js')).registerMigrate,
      repl: async () => (await import('./verbs/repl.js')).registerRepl,
      rpc: async () => (await import('./verbs/rpc.js')).registerRpc,
      nvme: async () => (await import('./verbs/nvme.js')).registerNvme,
      virtio: async () => (await import('./verbs/virtio.js')).registerVirtio,
    },
  },
  {
    group: 'The traffic:',
    verbs: {
      capture: async () => (await import('./verbs/capture.js')).registerCapture,
      proxy: async () => (await import('./verbs/proxy.js')).registerProxy,
      replay: async () => (await import('./verbs/replay.js')).registerReplay,
    },
  },
  {
    group: 'Hardware of this machine:',
    verbs: {
      pci: async () => (await import('./verbs/pci.js')).registerPci,
      serve: async () => (await import('./verbs/serve.js')).registerServe,
    },
  },
  {
    group: 'Without a device of your own:',
    verbs: { emulate: async () => (await import('./verbs/emulate.js')).registerEmulate },
  },
  {
    group: 'More:',
    verbs: {
      bench: async () => (await import('./verbs/bench.js')).registerBench,
      completion: async () => (await import('./verbs/completion.js')).registerCompletion,
    },
  },
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
  tls://HOST:PORT   TLS, with --tls-ca, --tls-cert, --tls-key, --tls-servername
  ssh://USER@HOST/run/dev.sock   a Unix socket of another machine, by ssh
  vsock://CID:PORT  the host of a virtual machine, or one of its guests
or a PCI function of this machine, which the kernel's vfio-pci has (docs/silicon.md):
  pci:0000:01:00.0  or pci:01:00.0

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

vfio-user help VERB, as in help nvme read, or vfio-user VERB --help, says more; docs/cli.md has all of it.`;

/**
 * Runs the command line `argv`, without the program's own name.
 * @returns the exit status; errors have been printed on stderr by then.
 */
export async function run(argv: readonly string[]): Promise<number> {
  const program = await buildProgram(argv[0]);
  watchStdout(stop);
  try {
    const [first, ...words] = argv;
    if (first === 'help' && words.length > 0 && !words.some((word) => word.startsWith('-'))) {
      commandOf(program, words).outputHelp();
    } else await parse(program, argv);
    // Help, and what is printed without being waited for, has to arrive, too.
    await flush();
    return wasCaptureLost() ? FAILURE : 0;
  } catch (error) {
    if (isReaderGone(error)) return READER_GONE;
    // Commander has printed its own errors.
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

/**
 * The command line, ready to parse: with this verb alone, or with all where it is none (an option before the verb, a
 * misspelt one, help, and `completion`, which completes all of them).
 */
export async function buildProgram(verb?: string): Promise<Command> {
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
    .option('--tls-ca <file>', 'tls://: who may have signed its certificate, PEM (those that Node trusts)')
    .option('--tls-cert <file>', 'tls://: our own certificate, PEM')
    .option('--tls-key <file>', 'tls://: the key of --tls-cert, PEM')
    .option('--tls-servername <name>', 'tls://: whose certificate it must be (the host)')
    .option('--verbose', 'print stack traces of errors')
    .option('--no-color', 'no colours (there are none but on a terminal)')
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .addHelpText('after', HELP);
  const isAlone = verb !== 'completion' && GROUPS.some(({ verbs }) => Object.hasOwn(verbs, verb ?? ''));
  for (const { group, verbs } of GROUPS) {
    program.commandsGroup(group);
    for (const [name, load] of Object.entries(verbs)) {
      if (isAlone && name !== verb) continue;
      const register = await load();
      register(program);
    }
  }
  pointToHelp(program, 'vfio-user');
  // Stands in the last of the groups.
  return program.helpCommand('help [verb...]', 'print help for a verb');
}

/** What `help VERB…` is about. @throws UsageError where there is no such verb. */
function commandOf(program: Command, words: readonly string[]): Command {
  let command = program;
  let path = 'vfio-user';
  for (const word of words) {
    const child = command.commands.find((one) => one.name() === word);
    if (child === undefined) throw new UsageError(`${path} has no verb '${word}'; see ${path} --help`);
    command = child;
    path += ` ${word}`;
  }
  return command;
}

/** Wrong usage of a command, and of those below it, names the command's own help. */
function pointToHelp(command: Command, path: string): void {
  command.configureOutput({ outputError: (text, write) => write(usageLine(text, path)) });
  for (const child of command.commands) pointToHelp(child, `${path} ${child.name()}`);
}

/** Commander's `error: …`, with a suggestion on a second line, as one line of ours. */
function usageLine(text: string, path: string): string {
  const line = text
    .trim()
    .replace(/^error: /, '')
    .replace(/\.$/, '')
    .replaceAll(/\s*\n\s*/g, ' ');
  return `vfio-user: ${printable(line)}; see ${path} --help\n`;
}

function packageVersion(): string {
  const require = createRequire(import.meta.url);
  return (require('../../package.json') as { version: string }).version;
}
