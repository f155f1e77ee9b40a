/** A listener for the messages of a connection. The trace, a layer above, implements it. */
import type { VfioUserError } from '../errors.js';
import type { OutgoingMessage } from './transport.js';

/**
 * Called with every message, in the order on the wire; changes nothing. `socket` is the name of the socket that it goes
 * through. Memory is valid until the function returns, and fds stay their owner's. None of these throws.
 */
export interface MessageTap {
  /** Asked before each message: while it is false no other function is called, and none is running. */
  readonly active: boolean;
  /** One of the functions below is running: what is called from there must not block for a message. */
  readonly telling: boolean;
  /** The message has gone out, all of it. */
  sent(socket: string, message: OutgoingMessage): void;
  /**
   * A message has come and is about to be handled: `bytes[start, end)`, followed by `rest` where its data went to
   * memory of its own. It is shorter than its header says where that memory was taken back meanwhile.
   */
  received(
    socket: string,
    bytes: Buffer,
    start: number,
    end: number,
    fds: readonly number[] | undefined,
    rest: Uint8Array | undefined,
  ): void;
  /** An interrupt's eventfd had a count: no message shows it. Said by whoever reads the eventfd. */
  interrupt(socket: string, index: number, subindex: number, count: number): void;
  /** The stream has ended, other than by our closing it. */
  ended(socket: string, reason: VfioUserError): void;
}
