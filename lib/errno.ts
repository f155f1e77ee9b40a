/** Numbers that the system has names for, once for the whole library. */
import { constants } from 'node:os';

/** Errno numbers of this system (errno(3)), positive. */
export const {
  EAGAIN,
  EADDRINUSE,
  EBADF,
  ECONNREFUSED,
  ECONNRESET,
  EEXIST,
  EFAULT,
  EINVAL,
  EIO,
  ENODEV,
  ENOENT,
  ENOMEM,
  ENOSYS,
  ENOTCONN,
  ENOTSUP,
  ENOTTY,
  EPIPE,
  ETIMEDOUT,
} = constants.errno;

/** ETOOMANYREFS, for which Node has no name. */
export const ETOOMANYREFS = 109;
