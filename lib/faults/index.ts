/** Faults on purpose: one model for emulated devices and for proxies. */
export { FAULT_PLAN_SCHEMA, checkPlan, type CheckedMessageFault, type Fault } from './check-plan.js';
export { describeFault, describeMessage, parseFault } from './describe.js';
export {
  DeviceFaults,
  type AccessOutcome,
  type DmaOutcome,
  type FaultClient,
  type FaultHost,
} from './device-faults.js';
export { FaultPlan, type FaultReport, type FiredFault, type Firing, type Selectable } from './plan.js';
export { Random, turnBits } from './random.js';
export type {
  DeviceFault,
  DmaFault,
  EventFault,
  FaultAction,
  FaultCounting,
  FaultDma,
  FaultInteger,
  FaultInterrupt,
  FaultPlanSpec,
  FaultRegisters,
  FaultSelection,
  FaultSpec,
  FaultTarget,
  FaultTrigger,
  InterruptFault,
  MessageFault,
  RegisterFault,
  Way,
} from './spec.js';
