/** What a run of the bench found. */
import type { DoorbellKind } from '../../../nvme/index.js';
import type { LatencyReport } from '../../latency.js';
import type { Rw } from './bench-workload.js';

/** Of one direction. */
export interface DirectionReport {
  iops: number;
  bytesPerSecond: number;
  /** Transfers. */
  count: number;
  /** Microseconds. */
  latencyUs: LatencyReport;
}

export interface BenchReport {
  /** Transfers a second. */
  iops: number;
  bytesPerSecond: number;
  seconds: number;
  /** Transfers in that time. */
  count: number;
  /** What the devices count too: every read and write of blocks, those before and after that time among them. */
  totalIos: number;
  totalReads: number;
  totalWrites: number;
  /** Microseconds. */
  latencyUs: LatencyReport;
  reads: DirectionReport;
  writes: DirectionReport;
  /** Transfers a second in each of some parts of that time: how much they differ is the noise. */
  intervals: number[];
  /** Processor time of this process in that time. */
  userSeconds: number;
  systemSeconds: number;
  rw: Rw;
  /** Percent of reads. */
  rwmixread: number;
  /** Which blocks: `random`, `zipf:1.1`, `pareto:0.2`. */
  distribution: string;
  size: number;
  /** Where the submit/poll API's buffers begin in a page of memory. */
  pageOffset: number;
  /** Under way at once in each queue. */
  qd: number;
  /** Queues of each device. */
  queues: number;
  devices: number;
  api: 'poll' | 'promise';
  completion: 'poll' | 'interrupt';
  /** Of an NVMe controller: the namespace, of the first one. */
  nsid?: number;
  /** Of a virtio disk: the virtqueues in use. */
  ring?: 'split' | 'packed';
  /** How the device is told of commands. */
  doorbell: DoorbellKind;
  verified: boolean;
}
