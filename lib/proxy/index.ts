/**
 * A proxy between any client and any server: it forwards messages with their file descriptors, logs and captures them,
 * and injects faults.
 *
 * ```ts
 * await using between = await proxy({ listen: '/tmp/proxy.sock', connect: '/tmp/edu.sock' });
 * ```
 * @packageDocumentation
 */
export type { TraceOptions } from '../trace/index.js';
export type { TlsSettings, VsockAddress } from '../transport/index.js';
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
