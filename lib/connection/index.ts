export { checkSignal, listenForAbort, pause, type AbortListener } from './abort-listeners.js';
export {
  DEFAULT_TIMEOUT_MS,
  deadlineOf,
  forUndoing,
  isOver,
  ownOr,
  timeoutOf,
  withDeadline,
  type CallOptions,
  type SyncCallOptions,
  type TrackedCallOptions,
} from './call-options.js';
export { Connection, type ConnectionOptions, type OpenTransport } from './connection.js';
export type { Counters, DeviceCounters } from './counters.js';
export type { SpinState } from '../transport/index.js';
export { Deadlines, type Timed } from './deadlines.js';
export { Exclusive } from './exclusive.js';
export { OUR_VERSION, negotiate, type HandshakeOptions, type Negotiated } from './handshake.js';
export type { MessageTap } from '../transport/index.js';
export { RequestObserver, type RequestTrace } from './request-observer.js';
export type { RequestHandler, ServerRequest } from './server-request.js';
export { within } from './within.js';
export { checkAttached, lostMemory, partOf } from './callers-memory.js';
export type { Access, RegionAccess } from './region-access-codec.js';
export type { Decoder } from './pending-request.js';
export { MAX_IN_FLIGHT, checkInFlight } from './request-scheduler.js';
