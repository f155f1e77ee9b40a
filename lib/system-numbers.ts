/** Numbers that the system has names for, once for the whole library. */
import { constants } from 'node:os';

/** Errno numbers of this system (errno(3)), positive. */
export const {
  EACCES,
  EADDRINUSE,
  EAGAIN,
  EBADF,
  EBUSY,
  ECANCELED,
  ECONNREFUSED,
  ECONNRESET,
  EEXIST,
  EFAULT,
  EINVAL,
  EIO,
  EMFILE,
  ENODEV,
  ENOENT,
  ENOMEM,
  ENOSPC,
  ENOSYS,
  ENOTCONN,
  ENOTSUP,
  EOPNOTSUPP,
  EPIPE,
  ETIMEDOUT,
} = constants.errno;

/** ETOOMANYREFS, for which Node has no name. */
export const ETOOMANYREFS = 109;

/** The longest delay that Node's timers take, in milliseconds: a longer one would fire at once. */
export const MAX_TIMER_MS = 0x7fff_ffff;

/** The largest number that an fd may have. */
export const MAX_FD = 0x7fff_ffff;
