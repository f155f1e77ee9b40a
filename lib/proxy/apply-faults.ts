/** What becomes of a message that faults happen to. */
import {
  HEADER_FLAG_ERROR,
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
  HEADER_SIZE,
} from '../protocol/constants.js';
import { headerCommand, headerFlags, headerId, writeHeader } from '../protocol/header.js';
import { describeFault, turnBits, type CheckedMessageFault, type Firing } from '../faults/index.js';

export interface FaultedMessage {
  /** The message, damaged where a fault says so; not the memory that it came in. */
  bytes: Buffer;
  fds: readonly number[];
  /** Fds that it goes without: whoever asked closes them. */
  withheld: readonly number[];
  /** Where it is cut, ascending. */
  cuts: readonly number[];
  /** Between the pieces. */
  pieceMs: number;
  /** Before the first of them. */
  delayMs: number;
  copies: number;
  /** It does not arrive. */
  isDropped: boolean;
  /** It is answered with this message instead, where it wants an answer. */
  answer: Buffer | undefined;
  /** Both sides are disconnected after so many of its bytes. */
  disconnectAfter: number | undefined;
  /** What to write into logs and captures. */
  note: string;
}

const DEFAULT_PIECES = 2;
const DEFAULT_PIECE_MS = 10;
const DEFAULT_XOR = 0xff;

/** A message that nothing has happened to. `bytes` are a copy that may be changed. */
export function untouched(bytes: Buffer, fds: readonly number[]): FaultedMessage {
  return {
    bytes,
    fds,
    withheld: [],
    cuts: [],
    pieceMs: 0,
    delayMs: 0,
    copies: 1,
    isDropped: false,
    answer: undefined,
    disconnectAfter: undefined,
    note: '',
  };
}

/** Does to the message what the faults say. */
export function applyFaults(
  outcome: FaultedMessage,
  firings: readonly Firing<CheckedMessageFault>[],
): FaultedMessage {
  const notes = firings.map(({ number, fault }) => `fault ${number}: ${describeFault(fault)}`);
  outcome.note = [outcome.note, ...notes].filter((note) => note !== '').join('; ');
  for (const firing of firings) apply(outcome, firing);
  return outcome;
}

function apply(outcome: FaultedMessage, { fault, random }: Firing<CheckedMessageFault>): void {
  const { bytes } = outcome;
  switch (fault.fault) {
    case 'delay':
      outcome.delayMs += fault.ms;
      return;
    case 'drop':
      outcome.isDropped = true;
      return;
    case 'split':
      outcome.cuts =
        fault.at?.filter((at) => at < bytes.length) ?? evenly(bytes.length, fault.pieces ?? DEFAULT_PIECES);
      outcome.pieceMs = fault.ms ?? DEFAULT_PIECE_MS;
      return;
    case 'duplicate':
      outcome.copies++;
      return;
    case 'corrupt': {
      const from = fault.offset ?? 0;
      if (fault.bits === undefined) bytes[from]! ^= fault.xor ?? DEFAULT_XOR;
      else turnBits(bytes, from, fault.bits, random);
      return;
    }
    case 'withhold-fd': {
      const { fd = 0 } = fault;
      const goes = (_: number, i: number): boolean => fd !== 'all' && i !== fd;
      outcome.withheld = [...outcome.withheld, ...outcome.fds.filter((n, i) => !goes(n, i))];
      outcome.fds = outcome.fds.filter(goes);
      return;
    }
    case 'errno':
      outcome.isDropped = true;
      outcome.answer ??= errorReply(bytes, fault.errno);
      return;
    case 'disconnect':
      outcome.disconnectAfter = Math.min(fault.bytes ?? 0, bytes.length);
  }
}

/** Where `size` bytes are cut into so many pieces, each of at least one byte. */
function evenly(size: number, pieces: number): number[] {
  const count = Math.min(pieces, size);
  return Array.from({ length: count - 1 }, (_, i) => Math.floor((size * (i + 1)) / count));
}

/** "If an error occurs, the reply message must only include the reply header." Undefined where no reply is wanted. */
export function errorReply(request: Buffer, errno: number): Buffer | undefined {
  if ((headerFlags(request, 0) & HEADER_FLAG_NO_REPLY) !== 0) return undefined;
  const reply = Buffer.alloc(HEADER_SIZE);
  const flags = HEADER_FLAG_REPLY | HEADER_FLAG_ERROR;
  writeHeader(reply, 0, headerId(request, 0), headerCommand(request, 0), HEADER_SIZE, flags, errno);
  return reply;
}
