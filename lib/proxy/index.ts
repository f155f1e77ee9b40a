/**
 * Standing between a client and a server, `vfio-user/proxy`: passing on, looking on, disturbing. Where to start:
 * `proxy.ts` takes clients in, `half-relay.ts` passes messages on in one direction, `fault-spec.ts` says what faults there are.
 */
export type { TraceOptions } from '../trace/index.js';
export type { VsockAddress } from '../transport/index.js';
export type { WayCounters } from './counters.js';
export {
  parseFault,
  type FaultAction,
  type FaultPlanSpec,
  type FaultSelection,
  type FaultSpec,
  type Way,
} from './fault-spec.js';
export { ProxyServer, proxy } from './proxy.js';
export type {
  ListenAddress,
  ProxyCounters,
  ProxyEvent,
  ProxyOptions,
  ServerAddress,
} from './proxy-options.js';
