/**
 * A file that takes the place of another one as a whole: it is written under a name of its own, and renamed.
 *
 * ```
 *   open ──▶ NAME.0123456789ab.partial, new and open ── commit ──▶ NAME; what was there is gone
 *                         │
 *                         └─ discard, exit, fatal signal ──▶ removed; what was there stays
 * ```
 *
 * Libraries exist (write-file-atomic and others), but they take the content as one piece, and open a name that others can
 * foresee without O_EXCL, so that a link there is followed.
 */
import { randomBytes } from 'node:crypto';
import {
  accessSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  lstatSync,
  openSync,
  realpathSync,
  renameSync,
  statSync,
  unlinkSync,
  type Stats,
} from 'node:fs';
import path from 'node:path';
import { VfioUserError } from '../errors.js';

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
const PRIVATE = 0o600;
/** Less what the umask forbids. */
const USUAL = 0o666;
const PERMISSIONS = 0o777;
const SUFFIX_BYTES = 6;

/** Where a name leads: links are resolved, since who names a link means the file behind it. */
export interface Target {
  readonly path: string;
  /** Undefined where nothing is there. */
  readonly stats: Stats | undefined;
}

export interface ReplacementOptions {
  /** For the owner alone, whatever the permissions were. Otherwise those of what is replaced, or the usual ones. */
  isPrivate?: boolean;
}

/**
 * @throws what the file system says, EACCES for a file that this user must not write;
 * VfioUserError for a directory and a link that leads nowhere.
 */
export function targetOf(name: string): Target {
  if (lstatSync(name, { throwIfNoEntry: false }) === undefined) {
    if (name.endsWith(path.sep)) throw new VfioUserError('EISDIR', `${name} is the name of a directory`);
    return { path: path.join(realDirectory(name), path.basename(name)), stats: undefined };
  }
  const stats = statSync(name, { throwIfNoEntry: false });
  if (stats === undefined) throw new VfioUserError('ENOENT', `${name} is a link that leads nowhere`);
  if (stats.isDirectory()) throw new VfioUserError('EISDIR', `${name} is a directory`);
  // What is no file has no path at times (/dev/stdout for a pipe).
  if (!stats.isFile()) return { path: name, stats };
  // To rename takes no permission of the file: who made it read-only wants it to stay.
  accessSync(name, constants.W_OK);
  return { path: realpathSync(name), stats };
}

/** One that is not there is told by whoever makes the file. */
function realDirectory(name: string): string {
  const directory = path.resolve(path.dirname(name));
  return lstatSync(directory, { throwIfNoEntry: false }) === undefined ? directory : realpathSync(directory);
}

export class ReplacementFile {
  /** Open for writing; closing it is the caller's. */
  readonly fd: number;
  /** What it will be called. */
  readonly path: string;
  readonly #replaced: Stats | undefined;
  readonly #isPrivate: boolean;
  /** Undefined once it has a name for good, or is gone. */
  #temporary: string | undefined;

  private constructor(fd: number, temporary: string, target: Target, isPrivate: boolean) {
    this.fd = fd;
    this.path = target.path;
    this.#replaced = target.stats;
    this.#isPrivate = isPrivate;
    this.#temporary = temporary;
    addPending(this);
  }

  /** Makes the file, in the directory of the target. @throws what open(2) says. */
  static open(target: Target, { isPrivate = false }: ReplacementOptions = {}): ReplacementFile {
    const temporary = `${target.path}.${randomBytes(SUFFIX_BYTES).toString('hex')}.partial`;
    // Permissions of the replaced file are given with its name: no one reads it before it is whole.
    const mode = isPrivate || target.stats !== undefined ? PRIVATE : USUAL;
    const fd = openSync(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    return new ReplacementFile(fd, temporary, target, isPrivate);
  }

  /** It has neither got its name nor been discarded. */
  get isPending(): boolean {
    return this.#temporary !== undefined;
  }

  /** Takes the name. @throws what the file system says; it is still pending then. */
  commit(): void {
    if (this.#replaced !== undefined && !this.#isPrivate) takeOver(this.fd, this.#replaced);
    this.moveTo(this.path);
  }

  /** Takes another name instead, with the permissions that it has now. */
  moveTo(name: string): void {
    if (this.#temporary === undefined) return;
    renameSync(this.#temporary, name);
    this.#settle();
  }

  /** Removes the file unless it has got its name. Idempotent. */
  discard(): void {
    const temporary = this.#temporary;
    if (temporary === undefined) return;
    this.#settle();
    try {
      unlinkSync(temporary);
    } catch {
      // Somebody was faster, or the directory is gone.
    }
  }

  #settle(): void {
    this.#temporary = undefined;
    removePending(this);
  }
}

/** Gives the file the owner and the permissions of the one that it replaces, as far as this user can. */
function takeOver(fd: number, { uid, gid, mode }: Stats): void {
  const own = fstatSync(fd);
  const isOwned = own.uid === uid || isPermitted(() => fchownSync(fd, uid, own.gid));
  const hasGroup = own.gid === gid || isPermitted(() => fchownSync(fd, isOwned ? uid : own.uid, gid));
  // Another group gets no more than everybody.
  const group = hasGroup ? mode & 0o070 : (mode & 0o007) << 3;
  fchmodSync(fd, (mode & PERMISSIONS & ~0o070) | group);
}

function isPermitted(change: () => void): boolean {
  try {
    change();
    return true;
  } catch {
    return false;
  }
}

interface PendingFile {
  /** Synchronous: there are no more turns of the loop. */
  discard(): void;
}

const FATAL_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

const pending = new Set<PendingFile>();

export function addPending(file: PendingFile): void {
  if (pending.size === 0) {
    process.on('exit', discardAll);
    // In front of the others: who takes itself away when it is called is still counted.
    for (const signal of FATAL_SIGNALS) process.prependListener(signal, onSignal);
  }
  pending.add(file);
}

export function removePending(file: PendingFile): void {
  if (!pending.delete(file) || pending.size > 0) return;
  process.off('exit', discardAll);
  for (const signal of FATAL_SIGNALS) process.off(signal, onSignal);
}

function discardAll(): void {
  for (const file of [...pending]) file.discard();
}

/** Without a listener the signal would have ended the process, and so it does. */
function onSignal(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 1) return;
  discardAll();
  // Nothing is pending, so the listener is gone.
  process.kill(process.pid, signal);
}
