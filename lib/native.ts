/**
 * The one typed door to the addon. The addon knows file descriptors and memory, not the protocol.
 *
 * Every native function that can fail returns `-errno` and never throws for a system call's sake: the callers in
 * this folder's layers turn numbers into errors (`check`), because an error made in C++ belongs to another realm
 * in test runners. A wrong argument type is a TypeError, a range outside the given buffer a RangeError.
 *
 * One owner for each fd: an object made from an fd owns it, closes it in `close()` (idempotent) and, as a safety
 * net only, in its finalizer. A bare number belongs to whoever was handed it last; at the end of a worker, which may come
 * between any two instructions, the addon closes those that it has handed out and nobody has given an owner, closed or
 * released.
 */
import { createRequire } from 'node:module';
import { endianness } from 'node:os';
import path from 'node:path';
import { TransportError, UnsupportedError } from './errors.js';
import { ETOOMANYREFS } from './system-numbers.js';

/** Bits of readiness, for `watch` and `wait`. */
export const READABLE = 1;
export const WRITABLE = 2;
/** In the answer of `wait` only: the `other` socket is readable. */
export const OTHER_READABLE = 4;

/** Where in `Native.fastPath` replies go; what lies before is the request's. In bytes, as all of these. */
export const FAST_PATH_REPLY_AT = 128;
/** And where, behind 8 KiB for them, a double says how many milliseconds the last `roundTrip` has waited. */
export const FAST_PATH_WAITED_AT = FAST_PATH_REPLY_AT + 8192;
/** And where a word is 1 when the `other` socket was readable once the answer had come. */
export const FAST_PATH_OTHER_AT = FAST_PATH_WAITED_AT + 8;
/**
 * And where five words are for `roundTrip`: socket and length; how long to wait, in whole milliseconds; the other socket;
 * and its result. Each argument of a native call would take some 10 ns, between an answer and the next question.
 */
export const FAST_PATH_CALL_AT = FAST_PATH_OTHER_AT + 4;
/** A result of `roundTrip` up to this: only `UNSENT - result` bytes have gone out. */
export const UNSENT = -65_536;
/** Added to the result of `roundTrip` while fds wait for `takeFds`: more than any has bytes. */
export const FAST_PATH_WITH_FDS = 2 ** 20;

/** Added to the answer of a receive while fds wait for `takeFds`: more than any has bytes. */
export const WITH_FDS = 2 ** 40;

/** `recvmsg` had to drop fds (MSG_CTRUNC); those that came are closed. recvmsg itself never returns this errno. */
export const ECTRUNC = ETOOMANYREFS;

/** A connected stream socket: its fd and readiness. What messages take is in `SocketCalls`. */
export interface NativeSocket {
  /** -1 once closed. */
  readonly fd: number;
  /** What `SocketCalls` know it by: good for as long as this object is reachable, and a TypeError afterwards. */
  readonly handle: number;
  /** The fds that came since the last call, in order, now the caller's. */
  takeFds(): number[];
  /** shutdown(2) of the one way: the peer finds the end of the stream, and what it sends still comes. 0 or -errno. */
  endSending(): number;
  /**
   * Which readiness calls `onEvent` on the environment's loop; 0 for none. An error or a hang-up is READABLE, and
   * WRITABLE where that is watched. A watched object is not collected.
   */
  watch(events: number): number;
  /** The most that a wait may spin, in microseconds; 0 never spins. `recvSpin` spins no more than 20 in any case. */
  setSpinCeiling(microseconds: number): void;
  /** How long waits spin now, in microseconds: those that block, and `recvSpin`. */
  spin(): [blocking: number, awaiting: number];
  /** Lets the kernel take up to `bytes` that the peer has not read yet, where its limits allow; never fewer than now. */
  growSendBuffer(bytes: number): void;
  /** Whether a watched socket keeps the process alive (it does at first). */
  ref(): void;
  unref(): void;
  close(): void;
}

/** An `other` that is none. */
export const NO_SOCKET = -1;

/**
 * What messages take: functions that are the same for all sockets, as methods of a thousand would be cold in the
 * processor's caches. `socket` and `other` are handles; `other` may be NO_SOCKET, and one that is closed is as none.
 */
export interface SocketCalls {
  /**
   * One `sendmsg`, never blocking. The message is `head[0..headLength)` followed by
   * `body[bodyOffset..bodyOffset+bodyLength)`; the first `sent` bytes of it went out before. `fds` go with the first
   * byte sent. Returns the number of bytes that went out now; -EAGAIN when the socket is full.
   */
  readonly send: (
    socket: number,
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    bodyOffset: number,
    bodyLength: number,
    sent: number,
    fds: readonly number[] | null,
  ) => number;
  /**
   * One `recvmsg` with MSG_CMSG_CLOEXEC, never blocking. Returns the bytes read, 0 at the end of the stream, -EAGAIN
   * when there is nothing, -ECTRUNC when fds were lost. `WITH_FDS` is added while fds wait for `takeFds`. `length` is at
   * least 1.
   */
  readonly recv: (socket: number, into: Uint8Array, offset: number, length: number) => number;
  /**
   * `recv` that spins for bytes for a moment, as long as that has lately paid. With `whole` it goes on until it has `length`
   * bytes, a pause has been longer than 40 µs, or it has spun for 100 µs.
   */
  readonly recvSpin: (
    socket: number,
    into: Uint8Array,
    offset: number,
    length: number,
    whole: boolean,
  ) => number;
  /**
   * `recv` that waits up to `timeoutMs` (at most 50) for bytes, spinning first for as long as that has lately paid.
   * -EAGAIN when the time is over or when `other` became readable meanwhile.
   */
  readonly recvWait: (
    socket: number,
    into: Uint8Array,
    offset: number,
    length: number,
    timeoutMs: number,
    other: number,
  ) => number;
  /**
   * Sends `fastPath[0..length)` and does as `recvWait` to `fastPath[FAST_PATH_REPLY_AT..FAST_PATH_WAITED_AT)`. Its arguments
   * and its result stand at `FAST_PATH_CALL_AT`. Where the socket does not take the whole message nothing is received, and
   * the result is `UNSENT` less the bytes that went out; with none `send` says why. Fds that come are closed by the kernel,
   * which has less to do then, or wait for `takeFds`.
   */
  readonly roundTrip: () => void;
  /** Waits up to `timeoutMs` (at most 50) for any of `events`, or for `other` to be readable. Returns the bits, 0 at the end. */
  readonly wait: (socket: number, events: number, timeoutMs: number, other: number) => number;
}

/** A listening socket. */
export interface NativeListener {
  readonly fd: number;
  /** The next connection's fd (CLOEXEC, non-blocking), or -EAGAIN. */
  accept(): number;
  watch(on: boolean): number;
  ref(): void;
  unref(): void;
  close(): void;
}

/** The most that `NativeEventFd.signal` adds without ever waiting for whoever reads it. */
export const MOST_SIGNALLED = 1024;

/** An eventfd. Used without trusting its flags: the peer shares them and can clear O_NONBLOCK. */
export interface NativeEventFd {
  readonly fd: number;
  /** Takes the count (clipped to 2^53-1), or -EAGAIN when it is zero. */
  read(): number;
  /**
   * Adds `value` to the count, or nothing and -EAGAIN where it is full. With more than `MOST_SIGNALLED`, or where the kernel has
   * no asynchronous I/O for us, a peer that fills it and clears O_NONBLOCK at just that moment can make it wait.
   */
  signal(value: number): number;
  /** While on, each readiness takes the count and calls `onCount(count)`. */
  watch(on: boolean): number;
  ref(): void;
  unref(): void;
  close(): void;
}

/**
 * A mapping of a file. `close()` detaches every view, overlays the range with anonymous memory, and gives the
 * addresses back only when nothing can hold them any more (a view moved by `transfer`, held by thread-pool I/O).
 */
export interface NativeMapping {
  readonly length: number;
  readonly closed: boolean;
  /**
   * A window on `[offset, offset+length)`, at most 4 GiB; every call makes a new ArrayBuffer over the same memory.
   * -EACCES unless the mapping is readable and writable (a store would kill the process), -EBADF once closed.
   */
  view(offset: number, length: number): ArrayBuffer | number;
  /**
   * Copies out of the mapping and returns `length`; -EFAULT where its file no longer has the page (no SIGBUS), -EACCES
   * when the mapping does not permit it, -EBADF once closed. After an error some of the bytes may have been copied.
   */
  copyOut(offset: number, into: Uint8Array, intoOffset: number, length: number): number;
  /** Copies into the mapping; like `copyOut`. */
  copyIn(offset: number, from: Uint8Array, fromOffset: number, length: number): number;
  /**
   * Lets a VFIO container's devices reach all of the mapping from `iova` on; `flags` are VFIO_DMA_MAP_FLAG_…, READ 1 and
   * WRITE 2. The kernel pins the pages until `vfioUnmapDma`, whatever becomes of this object. 0 or -errno; -EBADF once closed.
   */
  mapForDma(container: number, iova: bigint, flags: number): number;
  /**
   * Puts another file behind the same addresses: views go on, over the new file's bytes. `fd` stays the caller's.
   * 0 or -errno, after which the range is anonymous memory.
   */
  remap(fd: number, offset: number): number;
  /** Puts empty memory of nobody's behind the same addresses, for every view, until `remap`. */
  withdraw(): void;
  /**
   * One load of exactly `width` bytes (1, 2, 4 or 8), at a multiple of it; of 8 a bigint. Throws where the mapping is closed, or
   * not for reading and writing. Later accesses of this thread come after it.
   */
  load(offset: number, width: number): number | bigint;
  /** One store of exactly `width` bytes, after all earlier stores of this thread; like `load`. */
  store(offset: number, width: number, value: number | bigint): void;
  close(): void;
}

/** What `fdInfo` says: `fstat` and F_GET_SEALS. */
export interface FdInfo {
  /** st_mode */
  mode: number;
  /** st_size, bytes */
  size: number;
  /** F_SEAL_* bits, -1 where the file cannot have any. */
  seals: number;
  /** F_GETFL: the access mode and status flags. */
  flags: number;
}

/** F_SEAL_* of fcntl(2). */
export const F_SEAL_SEAL = 1;
export const F_SEAL_SHRINK = 2;
export const F_SEAL_GROW = 4;

export interface Native extends SocketCalls, NativeVfio {
  /** The socket owns `fd`. */
  readonly Socket: new (fd: number, onEvent: (events: number) => void) => NativeSocket;
  readonly Listener: new (fd: number, onReady: () => void) => NativeListener;
  /** This thread's memory for `roundTrip`; undefined in hosts that allow none from outside, as Electron. */
  readonly fastPath: Buffer | undefined;
  readonly EventFd: new (fd: number, onCount: (count: number) => void) => NativeEventFd;

  /** Connects to a path, or to an abstract name when it begins with NUL. Returns a non-blocking CLOEXEC fd or -errno. */
  connectUnix(path: string): number;
  /** Begins to connect to a vsock port. Returns a non-blocking CLOEXEC fd that is writable once that has ended, or -errno. */
  connectVsock(cid: number, port: number): number;
  /** Takes a socket's pending error (SO_ERROR): how connecting ended. 0 or -errno. */
  socketError(fd: number): number;
  /** Binds and listens; `mode` is the socket file's permission bits (ignored for abstract names). */
  listenUnix(path: string, backlog: number, mode: number): number;
  /** A connected pair of non-blocking CLOEXEC stream sockets. */
  socketPair(): [number, number] | number;
  /** Makes an inherited or received fd usable as a stream socket: checks its type, sets CLOEXEC and O_NONBLOCK. 0 or -errno. */
  adoptSocket(fd: number): number;
  /** [pid, uid, gid] of the peer (SO_PEERCRED), or -errno. */
  peerCredentials(fd: number): [number, number, number] | number;
  /**
   * The inode of the socket that a Unix socket is connected to, as fstat(2) of that one says it; 0 before it was accepted.
   * -ENOENT for a socket of another kind; other errors where the system does not tell (sock_diag(7)).
   */
  peerInode(fd: number): number;

  /** A memfd of exactly `size` bytes, allocated before use and sealed against resizing and further seals. */
  memfd(name: string, size: number, hugePages: boolean): number;
  /** An eventfd (CLOEXEC, non-blocking). */
  eventfd(initial: number): number;
  /**
   * Maps `length` bytes of `fd` from `offset` (page-aligned). The fd stays the caller's. -ENOMEM also where the mappings of
   * this process are half of what the kernel allows it: with none left the process would end.
   */
  map(
    fd: number,
    offset: number,
    length: number,
    readable: boolean,
    writable: boolean,
  ): NativeMapping | number;
  fdInfo(fd: number): FdInfo | number;
  /** flock(2): takes an exclusive lock on the file, or -EAGAIN where another has it. Closing the fd gives it back. */
  lockFile(fd: number): number;
  /** The bytes read as zeroes from now on, and take no room; -EOPNOTSUPP where the file system cannot do it. */
  punchHole(fd: number, offset: number, length: number): number;
  dupFd(fd: number): number;
  closeFd(fd: number): number;
  /** The fd is another thread's, or somebody's who closes it without this addon. */
  releaseFd(fd: number): void;
}

/**
 * The kernel's VFIO (linux/vfio.h), legacy interface. Fds are containers, groups and devices as their names say, and stay
 * the caller's. 0, a value, or -errno. Structures are filled into `into`, whose length is their argsz; what is returned is the
 * argsz that the kernel asks for.
 */
export interface NativeVfio {
  vfioApiVersion(container: number): number;
  /** 1 where the container has the extension, 0 where not. */
  vfioCheckExtension(container: number, extension: number): number;
  /** VFIO_GROUP_FLAGS_…: VIABLE 1, CONTAINER_SET 2. */
  vfioGroupStatus(group: number): number;
  vfioSetContainer(group: number, container: number): number;
  vfioSetIommu(container: number, type: number): number;
  /** `into` has at least the 24 bytes of vfio_iommu_type1_info. */
  vfioIommuInfo(container: number, into: Uint8Array): number;
  /** A new fd. */
  vfioOpenDevice(group: number, name: string): number;
  vfioDeviceInfo(device: number, into: Uint8Array): number;
  vfioRegionInfo(device: number, index: number, into: Uint8Array): number;
  vfioIrqInfo(device: number, index: number, into: Uint8Array): number;
  /** With `fds`, one for each interrupt and -1 for none, DATA_EVENTFD; else DATA_NONE. `action` is one VFIO_IRQ_SET_ACTION_…. */
  vfioSetIrqs(
    device: number,
    index: number,
    start: number,
    count: number,
    action: number,
    fds: readonly number[] | null,
  ): number;
  vfioReset(device: number): number;
  /** How many functions a hot reset is for: structures of 8 bytes that follow the 12 of the header in `into`. */
  vfioHotResetInfo(device: number, into: Uint8Array): number;
  /** A hot reset, where all of these functions are in `group`. */
  vfioHotReset(device: number, group: number): number;
  /** How many bytes were unmapped: 0 is no error for the kernel. */
  vfioUnmapDma(container: number, iova: bigint, size: number): number;
}

/** `Native.fastPath` by bytes and by words: a word at once is an instruction, a field byte by byte five. */
export interface FastPathMemory {
  readonly bytes: Buffer;
  readonly words: Int32Array;
}

let loaded: Native | undefined;
let calls: SocketCalls | undefined;
let memory: FastPathMemory | undefined;

/** The addon, loaded at first use; an UnsupportedError that says why where it cannot be. */
export function native(): Native {
  return (loaded ??= load());
}

/**
 * The functions that messages take. The addon has so many exports that V8 keeps them in a dictionary, which each use
 * would search: of an object with few properties it knows where they are.
 */
export function socketCalls(): SocketCalls {
  if (calls === undefined) {
    const { send, recv, recvSpin, recvWait, wait, roundTrip } = native();
    calls = { send, recv, recvSpin, recvWait, wait, roundTrip };
  }
  return calls;
}

/** This thread's memory for `SocketCalls.roundTrip`; undefined in hosts that allow none from outside. */
export function fastPathMemory(): FastPathMemory | undefined {
  const { fastPath } = native();
  if (fastPath === undefined) return undefined;
  return (memory ??= {
    bytes: fastPath,
    words: new Int32Array(fastPath.buffer, fastPath.byteOffset, fastPath.length >>> 2),
  });
}

/**
 * The protocol and PCI are little-endian, and typed arrays over shared memory are as the machine is.
 * @throws UnsupportedError on a machine that is not little-endian.
 */
export function requireLittleEndian(): void {
  if (endianness() === 'LE') return;
  throw new UnsupportedError(
    `this machine is big-endian (${process.arch}): devices are little-endian, and their memory would be read the wrong way round`,
  );
}

function load(): Native {
  requireLittleEndian();
  if (process.platform !== 'linux') {
    throw new UnsupportedError(
      `Unix sockets with file descriptors, shared memory and eventfds need Linux; this is ${process.platform}. ` +
        'The codec, stream transports and capture tools work here.',
    );
  }
  // VFIO_USER_ADDON names another build of the addon.
  const named = process.env['VFIO_USER_ADDON'];
  if (named !== undefined && named !== '') return loadNamed(path.resolve(named));
  const finder = findFinder();
  try {
    return finder.load();
  } catch (cause) {
    throw new UnsupportedError(finder.explain(cause as Error), { cause });
  }
}

function loadNamed(file: string): Native {
  try {
    return createRequire(file)(file) as Native;
  } catch (cause) {
    const { message } = cause as Error;
    throw new UnsupportedError(`the addon that VFIO_USER_ADDON names does not load: ${message}`, { cause });
  }
}

/** addon/find.cjs. */
interface Finder {
  /** Throws where there is none, or none that loads. */
  load(): Native;
  explain(error: Error): string;
}

/** The package has it beside `dist`; a bundler leaves it, and the addon, behind. */
function findFinder(): Finder {
  try {
    // Undefined in a bundle that is CommonJS.
    return createRequire(import.meta.url)('../addon/find.cjs') as Finder;
  } catch (cause) {
    throw new UnsupportedError(
      'vfio-user is in a bundle, and its native addon cannot be: leave the package out of the bundle ' +
        '(esbuild: --external:vfio-user), or name the file of the addon in VFIO_USER_ADDON',
      { cause },
    );
  }
}

/** Turns a negative result into a TransportError; gives any other back. */
export function check<T>(result: T | number, syscall: string, detail?: string): Exclude<T, number> | number {
  if (typeof result === 'number' && result < 0) throw new TransportError(syscall, -result, detail);
  return result as Exclude<T, number> | number;
}

/** An fd with an owner. */
export interface HeldFd {
  /** -1 once closed. */
  readonly fd: number;
  /** Idempotent. */
  close(): void;
}

const ignore = (): void => undefined;

/**
 * Owns an fd for longer than a call: a worker may be terminated at any time, and what is a bare number then stays open for
 * as long as the process lives. Collected or at its thread's end, the owner closes it.
 */
export function holdFd(fd: number): HeldFd {
  // An EventFd that is never watched nor read does not care what its fd is.
  return new (native().EventFd)(fd, ignore);
}

/** Closes fds that no decoder claimed. */
export function closeFds(fds: readonly number[]): void {
  for (const fd of fds) native().closeFd(fd);
}

/** Positive errno numbers that the layers above compare with. */
export { EAGAIN, ECONNREFUSED, ENOENT, ENOMEM, ENOTCONN, EPIPE } from './system-numbers.js';
