/** What a bench needs of a disk, whichever driver has it. */
import type { Device, DmaBuffer } from '../../../index.js';
import type { DoorbellKind } from '../../../nvme/index.js';
import type { RunOptions } from './bench-run.js';

/** Opens a disk with queues as a run wants them. @throws UsageError for what the disk cannot do. */
export type OpenDisk = (options: RunOptions) => Promise<BenchDisk>;

export interface BenchDisk {
  readonly device: Device;
  readonly blocks: number;
  readonly blockSize: number;
  /** The longest transfer of one command, bytes. */
  readonly maxTransferBytes: number;
  readonly queues: readonly BenchQueue[];
  /** How the device is told of commands. */
  readonly doorbell: DoorbellKind;
  /** What a report says of this kind of disk alone. */
  readonly details: { nsid: number } | { ring: 'split' | 'packed' };
  statusName(status: number): string;
  close(): Promise<void>;
}

/** Both APIs of a queue. */
export interface BenchQueue {
  readonly inFlight: number;
  readonly completedTags: Uint32Array;
  readonly completedStatus: Uint16Array;
  buffer(index: number): Buffer;
  submitRead(lba: number, blocks: number, buffer: number, tag: number): boolean;
  submitWrite(lba: number, blocks: number, buffer: number, tag: number): boolean;
  ring(): void;
  poll(): number;
  read(lba: number, blocks: number): Promise<Buffer>;
  readInto(lba: number, data: DmaBuffer): Promise<void>;
  write(lba: number, data: DmaBuffer | Buffer): Promise<void>;
}
