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
  FAULT_PLAN_SCHEMA,
  FaultPlan,
  parseFault,
  type DeviceFault,
  type DmaFault,
  type EventFault,
  type FaultAction,
  type FaultCounting,
  type FaultDma,
  type FaultInteger,
  type FaultInterrupt,
  type FaultPlanSpec,
  type FaultRegisters,
  type FaultReport,
  type FaultSelection,
  type FaultSpec,
  type FaultTarget,
  type FaultTrigger,
  type FiredFault,
  type InterruptFault,
  type MessageFault,
  type RegisterFault,
  type Way,
} from '../faults/index.js';
export { ProxyServer, proxy } from './proxy.js';
export type {
  ListenAddress,
  ProxyCounters,
  ProxyEvent,
  ProxyOptions,
  ServerAddress,
} from './proxy-options.js';
