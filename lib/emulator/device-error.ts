/** How a device says no. */
import { brand } from '../brand.js';
import { errnoName, VfioUserError } from '../errors.js';
import { integer } from '../fields.js';

export {
  EACCES,
  EBUSY,
  ECANCELED,
  EEXIST,
  EFAULT,
  EINVAL,
  EIO,
  EMFILE,
  ENOENT,
  ENOSPC,
  ENOSYS,
  ENOTSUP,
  ETIMEDOUT,
} from '../system-numbers.js';

/** Linux has no larger one (MAX_ERRNO). */
export const MOST_ERRNO = 4095;

/**
 * Thrown by a device's handler: the command is answered with this errno.
 *
 * @example
 * ```ts
 * const handler: RegionHandler = {
 *   read: (offset, count) => registers.subarray(offset, offset + count),
 *   write: () => {
 *     throw new DeviceError(constants.errno.EPERM); // read-only
 *   },
 * };
 * ```
 */
export class DeviceError extends VfioUserError {
  /** The positive errno. */
  readonly errno: number;

  /** @throws TypeError, RangeError unless the errno is 1 to 4095. */
  constructor(errno: number, message = errnoName(errno), options?: ErrorOptions) {
    integer('DeviceError: errno', errno, 1, MOST_ERRNO);
    super(errnoName(errno), message, options);
    this.errno = errno;
  }

  static {
    brand(this, 'DeviceError');
  }
}

/**
 * The device could not reach the client's memory: nothing is mapped there (EFAULT), the mapping does not allow it
 * (EACCES), the client refused (its errno, EIO where it sent none) or did not answer in time (ETIMEDOUT).
 *
 * @example
 * ```ts
 * try {
 *   await client.dma.read(address, 512);
 * } catch (error) {
 *   if (!(error instanceof DmaError)) throw error;
 *   status = error.code === 'EFAULT' ? BAD_ADDRESS : BUS_ERROR;
 * }
 * ```
 */
export class DmaError extends DeviceError {
  static {
    brand(this, 'DmaError');
  }
}
