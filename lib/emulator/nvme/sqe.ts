/** A submission queue entry (section 3.3.3.1), and how a command says no. */
import { brand } from '../../brand.js';
import { VfioUserError } from '../../errors.js';

/** Thrown by what carries a command out: it is completed with this status. */
export class CommandError extends VfioUserError {
  /** As in `Status`. */
  readonly status: number;

  constructor(status: number) {
    super('ERR_NVME_STATUS', `status 0x${status.toString(16)}`);
    this.status = status;
  }

  static {
    brand(this, 'CommandError');
  }
}

export interface Sqe {
  readonly opcode: number;
  /** The command identifier. */
  readonly cid: number;
  readonly nsid: number;
  /** Where metadata is that is transferred in a buffer of its own; 0 for none. */
  readonly mptr: bigint;
  readonly prp1: bigint;
  readonly prp2: bigint;
  /** The same 16 bytes, as the SGL descriptor that they are with PSDT 01b or 10b. */
  readonly sgl: Buffer;
  readonly cdw10: number;
  readonly cdw11: number;
  readonly cdw12: number;
  readonly cdw13: number;
  /** For fused commands, which are not supported, in bits 1:0; PSDT in bits 7:6. */
  readonly flags: number;
}

export function decodeSqe(bytes: Buffer, at: number): Sqe {
  return {
    opcode: bytes[at]!,
    flags: bytes[at + 1]!,
    cid: bytes.readUInt16LE(at + 2),
    nsid: bytes.readUInt32LE(at + 4),
    mptr: bytes.readBigUInt64LE(at + 16),
    prp1: bytes.readBigUInt64LE(at + 24),
    prp2: bytes.readBigUInt64LE(at + 32),
    sgl: bytes.subarray(at + 24, at + 40),
    cdw10: bytes.readUInt32LE(at + 40),
    cdw11: bytes.readUInt32LE(at + 44),
    cdw12: bytes.readUInt32LE(at + 48),
    cdw13: bytes.readUInt32LE(at + 52),
  };
}
