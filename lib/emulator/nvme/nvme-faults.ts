/** Faults on purpose, in the commands of a controller. */
import { integer, UINT8_MAX } from '../../fields.js';

/** A command as it was fetched. */
export interface NvmeInterceptedCommand {
  /** Which command it is since the controller was made, counted from 1, of the admin queue or of all I/O queues. */
  readonly number: number;
  /** The submission queue; 0 is the admin queue. */
  readonly queue: number;
  /** The command's opcode, CDW0 bits 7:0. */
  readonly opcode: number;
  /** CID, CDW0 bits 31:16. */
  readonly commandId: number;
  /** NSID. */
  readonly namespace: number;
  /** CDW10 and CDW11 as one number: the first block of commands that have blocks. */
  readonly lba: bigint;
}

/** A completion as no controller should send it. */
export interface NvmeCompletionFault {
  /** The command identifier, 16 bits; by default the command's own. */
  commandId?: number;
  /** By default the command's own. */
  status?: number;
}

/**
 * What becomes of a command:
 * - `'pass'`, or nothing: it is carried out and completed;
 * - `'lose'`: it is carried out, but not completed, and cannot be aborted;
 * - `{ completions }`: it is carried out, and completed by these, whichever they are; cannot be aborted;
 * - `'hold'`: it is not carried out, and completed only when it is aborted;
 * - `{ status }`: it is not carried out, and completed with this status (type in bits 10:8, code in bits 7:0, bit 14 for
 *   "do not retry");
 * - `{ delayMs }`: it is carried out later, unless it is aborted before.
 */
export type NvmeVerdict =
  | 'pass'
  | 'lose'
  | 'hold'
  | { status: number }
  | { delayMs: number }
  | { completions: readonly NvmeCompletionFault[] };

/** Sees every command of every queue, before it is carried out. */
export type NvmeIntercept = (command: NvmeInterceptedCommand) => NvmeVerdict | void;

/** The verdict for the `n`-th I/O command from now on, counted from 1, of that opcode or of any. */
export function onNthCommand(n: number, verdict: NvmeVerdict, opcode?: number): NvmeIntercept {
  integer('onNthCommand: n', n, 1, Number.MAX_SAFE_INTEGER);
  if (opcode !== undefined) integer('onNthCommand: opcode', opcode, 0, UINT8_MAX);
  let count = 0;
  return (command) => {
    if (command.queue === 0 || (opcode !== undefined && command.opcode !== opcode)) return 'pass';
    return ++count === n ? verdict : 'pass';
  };
}
