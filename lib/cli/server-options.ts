/** What verbs that serve a device have in common: where it listens and for whom, who is told when it does, and how it ends. */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  constants,
  lchownSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeSync,
} from 'node:fs';
import { InvalidArgumentError, type Command } from 'commander';
import { VfioUserError } from '../errors.js';
import type { EmulatorServer } from '../emulator/index.js';
import { listeningAddress } from './endpoint.js';
import { UsageError } from './errors.js';
import { addMetricsOption, serveMetrics, type MetricsAddress } from './metrics-server.js';
import { size } from './numbers.js';
import { print } from './output.js';
import { untilStopped } from './stop-signals.js';

export interface ServerOptions {
  socket: string;
  mode?: number;
  group?: string;
  readyFd?: number;
  exitWithParent?: boolean;
  metrics?: MetricsAddress;
}

/** Where to listen, as `serve` takes it. */
export interface Where {
  readonly path: string;
  readonly mode: number;
}

const DEFAULT_MODE = 0o600;
const OF_GROUP = 0o070;
const MODE = /^0?[0-7]{3}$/;
/** Names of getent(1) and numbers. */
const GROUP = /^[\w.@$-]+$/;
const FIRST_READY_FD = 3;
const O_ACCMODE = 3;
const { O_RDONLY } = constants;
/** A parent that is gone is noticed so late, in milliseconds. */
const PARENT_MS = 250;

export function addServerOptions(command: Command): Command {
  command
    .requiredOption('--socket <path>', 'where to listen: a path, or @name for an abstract socket')
    .option('--mode <mode>', 'permissions of the socket file, octal: 600 where nothing is said', fileMode)
    .option(
      '--group <group>',
      'the group of the socket file, by name or number; it wants a --mode such as 660',
      groupName,
    )
    .option(
      '--ready-fd <fd>',
      'once it listens, a line is written to this inherited fd, and it is closed',
      readyFd,
    )
    .option('--exit-with-parent', 'end when the process that started this one has ended');
  return addMetricsOption(command);
}

/** What is checked, and found. */
interface Checked {
  readonly path: string;
  readonly gid: number | undefined;
}

/**
 * Before there is a device.
 * @throws UsageError for options that make no sense together; VfioUserError where there is no such group.
 */
export function checkServerOptions({ socket, mode, group, readyFd: fd }: ServerOptions): Checked {
  const path = listeningAddress(socket);
  if (path.startsWith('\0') && (mode !== undefined || group !== undefined)) {
    throw new UsageError(`'${socket}' is an abstract name, which has no --mode and no --group`);
  }
  const gid = group === undefined ? undefined : groupId(group);
  if (fd !== undefined) checkReadyFd(fd);
  return { path, gid };
}

/**
 * Serves until it is interrupted, or the server ends. What `begin` gives is closed by then.
 * @throws what `checkServerOptions` throws; what listening throws.
 */
export async function runServer(
  options: ServerOptions,
  begin: (where: Where) => Promise<EmulatorServer>,
): Promise<void> {
  const { path, gid } = checkServerOptions(options);
  const { mode = DEFAULT_MODE, readyFd: fd } = options;
  const ends = [untilStopped()];
  if (options.exitWithParent === true) ends.push(untilParentEnds());
  // With another group nobody else of our own gets in meanwhile.
  await using server = await begin({ path, mode: gid === undefined ? mode : mode & ~OF_GROUP });
  await using _metrics = await serveMetrics(options.metrics, () => server.metrics());
  if (gid !== undefined) giveToGroup(path, gid, mode);
  await print(`listening on ${options.socket}\n`);
  if (fd !== undefined) tellReady(fd);
  await Promise.race([...ends, server.closed]);
}

function giveToGroup(path: string, gid: number, mode: number): void {
  try {
    lchownSync(path, -1, gid);
    chmodSync(path, mode);
  } catch (cause) {
    const { code = 'EPERM' } = cause as NodeJS.ErrnoException;
    const why =
      code === 'EPERM' ? 'only root, and members of that group, can do that' : (cause as Error).message;
    throw new VfioUserError(code, `${path} cannot be given to group ${gid}: ${why}`, { cause });
  }
}

/** @throws VfioUserError where there is no such group. */
function groupId(group: string): number {
  if (/^\d+$/.test(group)) return Number(group);
  // It knows of groups that are in no file (LDAP, systemd-userdb); not every machine has it.
  const { status, stdout, error } = spawnSync('getent', ['group', group], { encoding: 'utf8' });
  const lines = error === undefined ? (status === 0 ? stdout : '') : readFileSync('/etc/group', 'utf8');
  const line = lines.split('\n').find((one) => one.startsWith(`${group}:`));
  const gid = line?.split(':')[2];
  if (gid !== undefined && /^\d+$/.test(gid)) return Number(gid);
  throw new VfioUserError('ENOENT', `there is no group ${group}: \`groupadd --system ${group}\` makes one`);
}

/** So that it fails at once, and not when everything is done. */
function checkReadyFd(fd: number): void {
  const file = inheritedFile(fd);
  if (file === undefined) throw new UsageError(`--ready-fd: this process has inherited no fd ${fd}`);
  if (file.startsWith('anon_inode:') || isOurOwnPipe(fd, file))
    throw new UsageError(`--ready-fd: fd ${fd} is this process's own (${file}), and was not inherited`);
  if ((flagsOf(fd) & O_ACCMODE) === O_RDONLY)
    throw new UsageError(`--ready-fd: fd ${fd} (${file}) cannot be written`);
}

/** What the fd is, as /proc says: `pipe:[1234]`, a path; undefined where there is none. */
function inheritedFile(fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return undefined;
  }
}

/** Node has pipes of its own, of which it holds both ends; of one that was inherited somebody else has the other end. */
function isOurOwnPipe(fd: number, file: string): boolean {
  if (!file.startsWith('pipe:')) return false;
  return readdirSync('/proc/self/fd').some((other) => {
    const number = Number(other);
    return number !== fd && number > 2 && inheritedFile(number) === file;
  });
}

/** The flags that it was opened with. */
function flagsOf(fd: number): number {
  const [, octal = '0'] = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? [];
  return Number.parseInt(octal, 8);
}

function tellReady(fd: number): void {
  try {
    writeSync(fd, 'ready\n');
  } catch (error) {
    // Nobody waits any more.
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  }
  closeSync(fd);
}

/** The kernel gives it another one then, which nobody is told of. */
function untilParentEnds(): Promise<void> {
  const parent = process.ppid;
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (process.ppid === parent) return;
      clearInterval(timer);
      resolve();
    }, PARENT_MS);
    timer.unref();
  });
}

function fileMode(text: string): number {
  if (!MODE.test(text)) throw new InvalidArgumentError('It is three octal digits, such as 660.');
  return Number.parseInt(text, 8);
}

function readyFd(text: string): number {
  const fd = size(text);
  if (fd < FIRST_READY_FD || fd > 0x7fff_ffff) throw new InvalidArgumentError('It is 3 or more.');
  return fd;
}

/** What getent(1) is given must be no option of its own. */
function groupName(text: string): string {
  if (!GROUP.test(text) || text.startsWith('-'))
    throw new InvalidArgumentError('It is the name or the number of a group.');
  return text;
}
