export type {
  FastPathSocket,
  InProcessPeer,
  Landing,
  OutgoingMessage,
  SpinState,
  Transport,
  TransportHandler,
} from './transport.js';
export { LANDING_PREFIX, MAX_MESSAGE_FDS, MAX_MESSAGE_SIZE, sizeOf, wholeMessage } from './transport.js';
export { borrowSlab, returnSlab } from './slab-pool.js';
export { DuplexTransport } from './duplex.js';
export { openLoopback } from './loopback.js';
export {
  FAST_PATH_OTHER_AT,
  FAST_PATH_REPLY_AT,
  FAST_PATH_WAITED_AT,
  type FastPathMemory,
} from '../native.js';
export { serveHere } from './served-here.js';
export { SLICE_MS, UnixTransport, withSpin } from './unix.js';
export { listeningPath, parseAddress, shownPath, unixPath, type Address } from './address.js';
export {
  canOpenAgain,
  checkEndpoint,
  connectPath,
  connectStream,
  openEndpoint,
  openFd,
  type Endpoint,
  type OpenOptions,
  type VsockAddress,
} from './endpoint.js';
export { tlsSettings, type TlsSettings } from './tls.js';
export type { SocketPermissions } from './socket-permissions.js';
export { listenAt, type ListeningSocket } from './unix-listener.js';
export type { MessageTap } from './message-tap.js';
export type { Dial } from './open-stream.js';
