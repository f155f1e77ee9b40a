export type { Landing, Transport, TransportHandler } from './transport.js';
export { LANDING_PREFIX, MAX_MESSAGE_FDS, MAX_MESSAGE_SIZE } from './transport.js';
export { DuplexTransport } from './duplex.js';
export { SLICE_MS, UnixTransport } from './unix.js';
export { openEndpoint, openFd, type Endpoint, type OpenOptions, type VsockAddress } from './endpoint.js';
export { tapped, type MessageTap } from './tap.js';
