/**
 * Who else could have put a Unix socket where we found it, or can use it. The socket's permissions are all the
 * authentication that the protocol has, so what weakens them is told.
 *
 * Of the way to a socket every directory counts: who may write in one can put another socket, or another directory, in its
 * place, unless the sticky bit leaves each file to its owner. Below a directory that others cannot enter the permissions
 * for all mean nothing. Groups are how a client and a server of different users share a socket: they are not looked at.
 */
import { realpathSync, statSync, type Stats } from 'node:fs';
import path from 'node:path';
import { VfioUserError } from '../errors.js';
import { native } from '../native.js';

/** What is done about a socket that others can replace or use: a warning of the process, an error, nothing. */
export type SocketPermissions = 'warn' | 'refuse' | 'ignore';

export interface PermissionOptions {
  /** Default `'warn'`. */
  socketPermissions?: SocketPermissions | undefined;
  /** The user that the server runs as, where it is neither ours nor root. */
  serverUid?: number | undefined;
}

/** The `code` of the warning. */
export const SOCKET_PERMISSIONS_WARNING = 'VFIO_USER_SOCKET_PERMISSIONS';
/** The `code` of the error. */
export const SOCKET_PERMISSIONS_ERROR = 'ERR_VFIO_USER_SOCKET_PERMISSIONS';

const WRITABLE_BY_ALL = 0o002;
const ENTERED_BY_ALL = 0o001;
const STICKY = 0o1000;

/** What was warned of: a server that comes and goes is told of once. */
const told = new Set<string>();
const MOST_TOLD = 1024;

/**
 * Looks at the socket behind `socket`, a path or an abstract name (which begins with NUL), that `fd` is connected to.
 * @throws VfioUserError (`ERR_VFIO_USER_SOCKET_PERMISSIONS`) where it is to be refused.
 */
export function checkSocketPermissions(
  socket: string,
  name: string,
  fd: number,
  { socketPermissions = 'warn', serverUid }: PermissionOptions,
): void {
  if (socketPermissions === 'ignore') return;
  const trusted = new Set([0, process.geteuid?.() ?? 0]);
  if (serverUid !== undefined) trusted.add(serverUid);
  const risks = serverRisks(fd, trusted);
  if (!socket.startsWith('\0')) risks.push(...pathRisks(socket, trusted));
  if (risks.length === 0) return;
  const message = `the server behind ${name} may not be yours: ${[...new Set(risks)].join('; ')}`;
  if (socketPermissions === 'refuse') throw new VfioUserError(SOCKET_PERMISSIONS_ERROR, message);
  if (told.has(message)) return;
  if (told.size >= MOST_TOLD) told.clear();
  told.add(message);
  process.emitWarning(message, { type: 'VfioUserWarning', code: SOCKET_PERMISSIONS_WARNING });
}

/** Who listened, as the kernel knows it. */
function serverRisks(fd: number, trusted: ReadonlySet<number>): string[] {
  const peer = native().peerCredentials(fd);
  if (typeof peer === 'number' || trusted.has(peer[1])) return [];
  return [`it runs as user ${peer[1]}`];
}

function pathRisks(socket: string, trusted: ReadonlySet<number>): string[] {
  const risks: string[] = [];
  const given = path.resolve(socket);
  let isReachable = true;
  // A link can be replaced where it is, and what it leads to where that is.
  for (const one of new Set([given, realPath(given)])) {
    isReachable = true;
    for (const directory of ancestors(one)) {
      const stats = look(directory);
      if (stats === undefined) break;
      if (!trusted.has(stats.uid))
        risks.push(`${directory} belongs to user ${stats.uid}, who can replace what is in it`);
      if (isReachable && (stats.mode & WRITABLE_BY_ALL) !== 0 && (stats.mode & STICKY) === 0) {
        risks.push(`everybody can replace what is in ${directory} (mode ${octal(stats)}, not sticky)`);
      }
      isReachable &&= (stats.mode & ENTERED_BY_ALL) !== 0;
    }
  }
  const stats = look(given);
  // A server may take its socket away once somebody has connected.
  if (stats === undefined) return risks;
  if (!trusted.has(stats.uid)) risks.push(`the socket belongs to user ${stats.uid}`);
  if (isReachable && (stats.mode & WRITABLE_BY_ALL) !== 0)
    risks.push(`everybody can connect to it (mode ${octal(stats)})`);
  return risks;
}

/** The directories on the way to a file, from the root on. */
function ancestors(file: string): string[] {
  const directory = path.dirname(file);
  return directory === file ? [] : [...ancestors(directory), directory];
}

function realPath(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    return file;
  }
}

function look(file: string): Stats | undefined {
  try {
    return statSync(file);
  } catch {
    return undefined;
  }
}

function octal({ mode }: Stats): string {
  return (mode & 0o7777).toString(8).padStart(4, '0');
}
