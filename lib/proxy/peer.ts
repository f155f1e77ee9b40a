/**
 * A peer is one end of a proxied socket: bytes and fds, in and out, and two ends that come one at a time. Transports
 * carry whole messages and end as a whole; a proxy must go on where a transport gives up, so it stands beside them.
 */
import type { VfioUserError } from '../errors.js';

export interface PeerHandler {
  /** `bytes[start, end)` has come, valid until this returns; `fds` came with its last bytes and are the handler's. */
  onChunk(bytes: Buffer, start: number, end: number, fds: readonly number[]): void;
  /** All that had come when the loop turned has been handed over. */
  onTurn(): void;
  /** There is room again after `trySend` took less than all. */
  onWritable(): void;
  /** The other side will send no more. It may still take what it is sent: `isGone` says. */
  onEnd(): void;
  /** Neither way works any more. */
  onFailure(error: VfioUserError): void;
}

export interface Peer {
  /** What a person would call the other side. */
  readonly name: string;
  /** Whether file descriptors can be passed. */
  readonly passesFds: boolean;
  /**
   * Sends as much of `bytes[start, end)` as goes out without waiting, `fds` with its first byte. Takes nothing by
   * reference, and the fds stay the caller's. The number of bytes taken: where that is less than all `onWritable`
   * follows. Or -errno: then nothing can be sent any more.
   */
  trySend(bytes: Buffer, start: number, end: number, fds: readonly number[]): number;
  /** Another number each time that the loop brings something to receive. */
  readonly turn: number;
  /** Peers begin without reading. */
  setReading(on: boolean): void;
  /** Whether `receiveNow` works. */
  readonly canLook: boolean;
  /** Takes what has come already, as though the loop had turned. Whether there was anything. */
  receiveNow(): boolean;
  /** Nothing more will be sent: the other side reads the end of the stream. */
  endSending(): void;
  /** Whether nobody is there any more to read what is sent. False where that cannot be known. */
  isGone(): boolean;
  /** Idempotent. The handler hears nothing any more. */
  close(): void;
}

/** Opens a peer with the handler that it will talk to. What it was made from is the peer's from then on. */
export type OpenPeer = (handler: PeerHandler) => Peer;
