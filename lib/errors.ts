/**
 * What can go wrong, by kind. Misuse of the API is a plain `TypeError` or `RangeError`, and an aborted call
 * rejects with its signal's reason, as everywhere in Node; everything else is one of these.
 */
import { constants } from 'node:os';
import { brand } from './brand.js';
import { ETOOMANYREFS } from './system-numbers.js';

const ERRNO_NAMES = new Map<number, string>();
for (const [name, value] of Object.entries(constants.errno)) {
  // EAGAIN and EOPNOTSUPP have a twin of the same number: the first, more usual name stays.
  if (!ERRNO_NAMES.has(value)) ERRNO_NAMES.set(value, name);
}
// ENOTSUP and EOPNOTSUPP are one number on Linux; VFIO's documentation says ENOTSUP.
ERRNO_NAMES.set(constants.errno.ENOTSUP, 'ENOTSUP');
ERRNO_NAMES.set(constants.errno.EAGAIN, 'EAGAIN');
// Numbers that Node has no name for and that this library or servers use.
ERRNO_NAMES.set(ETOOMANYREFS, 'ETOOMANYREFS');
ERRNO_NAMES.set(524, 'ENOTSUPP');

/** The name of a positive errno, `errno 9999` where it has none. */
export function errnoName(errno: number): string {
  return ERRNO_NAMES.get(errno) ?? `errno ${errno}`;
}

/**
 * The root of every error that this library makes itself. Match `code`: it is stable, while messages are for people.
 * `instanceof` works across copies of the package and across realms.
 *
 * @example
 * ```ts
 * try {
 *   await connect('/run/device.sock');
 * } catch (error) {
 *   if (error instanceof VfioUserError && error.code === 'ECONNREFUSED') console.error('the server is not running');
 *   else throw error;
 * }
 * ```
 */
export class VfioUserError extends Error {
  /** An errno's name (`ECONNREFUSED`) or one of the library's own (`ERR_VFIO_USER_PROTOCOL`, …). */
  readonly code: string;

  /**
   * @param code - stable, for programs
   * @param message - for people
   */
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }

  static {
    brand(this, 'VfioUserError');
  }
}

/**
 * A system call failed on our side. `code` is the errno's name, for example `ECONNREFUSED`.
 *
 * @example
 * ```ts
 * try {
 *   await connect('/run/device.sock');
 * } catch (error) {
 *   if (!(error instanceof TransportError && error.code === 'ENOENT')) throw error;
 *   console.error('the server has not made its socket');
 * }
 * ```
 */
export class TransportError extends VfioUserError {
  /** The positive errno. */
  readonly errno: number;
  /** The system call that failed, for example `connect`. */
  readonly syscall: string;

  /** @param errno - positive */
  constructor(syscall: string, errno: number, detail?: string, options?: ErrorOptions) {
    const name = errnoName(errno);
    super(name, `${syscall}: ${name}${detail === undefined ? '' : ` (${detail})`}`, options);
    this.errno = errno;
    this.syscall = syscall;
  }

  static {
    brand(this, 'TransportError');
  }
}

/**
 * The peer sent bytes that the specification forbids. `code` is `ERR_VFIO_USER_PROTOCOL`.
 *
 * @example
 * ```ts
 * try {
 *   await connect('/run/device.sock');
 * } catch (error) {
 *   if (!(error instanceof ProtocolError)) throw error;
 *   console.error(`not a vfio-user server: ${error.message}`);
 * }
 * ```
 */
export class ProtocolError extends VfioUserError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_VFIO_USER_PROTOCOL', message, options);
  }

  static {
    brand(this, 'ProtocolError');
  }
}

/**
 * The peer answered a command with an error. `code` is the errno's name, `ERR_VFIO_USER_REMOTE` where it sent 0.
 *
 * @example
 * ```ts
 * try {
 *   await device.bar(0).readUInt32(0x1000);
 * } catch (error) {
 *   if (!(error instanceof RemoteError && error.code === 'EINVAL')) throw error;
 *   console.error(`${error.command} was refused`);
 * }
 * ```
 */
export class RemoteError extends VfioUserError {
  /** The positive errno that the peer sent; 0 where it set the error bit alone. */
  readonly errno: number;
  /** The command that failed, as the specification names it, for example `REGION_READ`. */
  readonly command: string;

  constructor(command: string, errno: number, options?: ErrorOptions, detail?: string) {
    const name = errno === 0 ? 'an error without errno' : errnoName(errno);
    super(
      errno === 0 ? 'ERR_VFIO_USER_REMOTE' : errnoName(errno),
      `${command}: the server answered ${name}${detail === undefined ? '' : ` (${detail})`}`,
      options,
    );
    this.errno = errno;
    this.command = command;
  }

  static {
    brand(this, 'RemoteError');
  }
}

/**
 * What was waited for did not come in time, mostly an answer. `code` is `ETIMEDOUT`.
 *
 * @example
 * ```ts
 * try {
 *   await vector.wait({ timeoutMs: 100 });
 * } catch (error) {
 *   if (!(error instanceof TimeoutError)) throw error;
 *   console.error(`no interrupt in ${error.timeoutMs} ms`);
 * }
 * ```
 */
export class TimeoutError extends VfioUserError {
  /** How long was waited at the most, in milliseconds. */
  readonly timeoutMs: number;

  /**
   * @param what - what was waited for
   * @param timeoutMs - how long, in milliseconds
   * @param missing - what did not come, or what came instead
   */
  constructor(what: string, timeoutMs: number, options?: ErrorOptions, missing = 'no answer') {
    super('ETIMEDOUT', `${what}: ${missing} within ${Math.round(timeoutMs)} ms`, options);
    this.timeoutMs = timeoutMs;
  }

  static {
    brand(this, 'TimeoutError');
  }
}

/**
 * The peer, the transport or this platform cannot do what was asked. `code` is `ERR_VFIO_USER_UNSUPPORTED`.
 *
 * @example
 * ```ts
 * try {
 *   await device.reset();
 * } catch (error) {
 *   if (!(error instanceof UnsupportedError)) throw error;
 *   console.error('the device cannot be reset');
 * }
 * ```
 */
export class UnsupportedError extends VfioUserError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_VFIO_USER_UNSUPPORTED', message, options);
  }

  static {
    brand(this, 'UnsupportedError');
  }
}

/**
 * The connection has ended; `cause` says why. Every call that waited is rejected with one. `code` is `ERR_VFIO_USER_CLOSED`.
 *
 * @example
 * ```ts
 * try {
 *   await device.bar(0).readUInt32(0);
 * } catch (error) {
 *   if (!(error instanceof ClosedError)) throw error;
 *   console.error('the connection has ended:', error.cause);
 * }
 * ```
 */
export class ClosedError extends VfioUserError {
  constructor(message = 'the connection is closed', options?: ErrorOptions) {
    super('ERR_VFIO_USER_CLOSED', message, options);
  }

  static {
    brand(this, 'ClosedError');
  }
}

/**
 * A migration step failed; `state` is where the device is now. `code` is `ERR_VFIO_USER_MIGRATION`.
 *
 * @example
 * ```ts
 * try {
 *   await device.migration.transition(MigrationState.STOP);
 * } catch (error) {
 *   if (!(error instanceof MigrationError)) throw error;
 *   console.error(`the device is in ${error.state}`);
 * }
 * ```
 */
export class MigrationError extends VfioUserError {
  /** The device's migration state by name, for example `STOP_COPY`; `unknown` where it could not be asked. */
  readonly state: string;

  constructor(message: string, state: string, options?: ErrorOptions) {
    super('ERR_VFIO_USER_MIGRATION', message, options);
    this.state = state;
  }

  static {
    brand(this, 'MigrationError');
  }
}

/** One of the commands that failed together with others. */
export interface DmaFailure {
  /** The command that failed. */
  readonly operation: 'DMA_MAP' | 'DMA_UNMAP';
  /** Where the range begins in the device's address space. */
  readonly iova: bigint;
  /** How long the range is, in bytes. */
  readonly size: number;
  /** What the command failed with. */
  readonly error: unknown;
}

/**
 * Of several DMA_MAP and DMA_UNMAP that were asked for together some failed: `failures` says which, `cause` is the first
 * one's error. `code` is `ERR_VFIO_USER_DMA_BATCH`.
 *
 * @example
 * ```ts
 * try {
 *   await device.dma.unmapAll();
 * } catch (error) {
 *   if (!(error instanceof DmaBatchError)) throw error;
 *   for (const { iova, error: why } of error.failures) console.error(iova, why);
 * }
 * ```
 */
export class DmaBatchError extends VfioUserError {
  /** What failed, in the order in which it was asked for. */
  readonly failures: readonly DmaFailure[];
  /** What could not be undone either; empty where all is as it was. */
  readonly undoFailures: readonly DmaFailure[];

  constructor(what: string, failures: readonly DmaFailure[], undoFailures: readonly DmaFailure[] = []) {
    const cause = failures[0]?.error ?? undoFailures[0]?.error;
    const undone = undoFailures.length === 0 ? '' : `; not undone: ${undoFailures.map(shown).join(', ')}`;
    super('ERR_VFIO_USER_DMA_BATCH', `${what}: ${failures.map(shown).join(', ')}${undone}`, { cause });
    this.failures = failures;
    this.undoFailures = undoFailures;
  }

  static {
    brand(this, 'DmaBatchError');
  }
}

/**
 * Thrown by a DMA handler of the caller's: the server is answered with this errno. `code` is the errno's name.
 *
 * @example
 * ```ts
 * const handler: DmaHandler = {
 *   read: () => {
 *     throw new DmaHandlerError(constants.errno.EACCES); // write-only
 *   },
 *   write: (address, bytes) => void received.push(bytes),
 * };
 * ```
 */
export class DmaHandlerError extends VfioUserError {
  /** The positive errno. */
  readonly errno: number;

  /** @throws RangeError unless the errno is 1 to 4095. */
  constructor(errno: number, message = errnoName(errno), options?: ErrorOptions) {
    super(errnoName(errno), message, options);
    if (!Number.isInteger(errno) || errno < 1 || errno > 4095) {
      throw new RangeError(`errno is a positive number up to 4095, not ${errno}`);
    }
    this.errno = errno;
  }

  static {
    brand(this, 'DmaHandlerError');
  }
}

function shown({ operation, iova, size, error }: DmaFailure): string {
  const why = error instanceof Error ? error.message : String(error);
  return `${operation} of ${size} bytes at 0x${iova.toString(16)}: ${why}`;
}
