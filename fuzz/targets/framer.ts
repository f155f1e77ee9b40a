/**
 * A stream of bytes in chunks of any size, with a handler that lends memory, takes it back and pauses. The messages are
 * those that the bytes are, in one piece or in many; only a size that no message has ends it, with a ProtocolError.
 *
 * The input: a byte that seeds the cuts, then the stream.
 */
import { ProtocolError } from '../../lib/errors.js';
import { Framer } from '../../lib/transport/framer.js';
import {
  LANDING_PREFIX,
  MAX_MESSAGE_SIZE,
  type Landing,
  type TransportHandler,
} from '../../lib/transport/transport.js';
import { Random } from '../engine/random.js';
import { promise, type Target } from '../engine/target.js';

const HEADER = 16;

/** The messages of a stream, and whether a size in it is none. */
function cut(stream: Buffer): { messages: Buffer[]; isBroken: boolean } {
  const messages: Buffer[] = [];
  for (let at = 0; at + HEADER <= stream.length;) {
    const size = stream.readUInt32LE(at + 4);
    if (size < HEADER || size > MAX_MESSAGE_SIZE) return { messages, isBroken: true };
    if (at + size > stream.length) break;
    messages.push(stream.subarray(at, at + size));
    at += size;
  }
  return { messages, isBroken: false };
}

class Handler implements TransportHandler {
  readonly messages: Buffer[] = [];
  readonly #random: Random;
  framer: Framer | undefined;

  constructor(random: Random) {
    this.#random = random;
  }

  onMessage(bytes: Buffer, start: number, end: number): void {
    this.messages.push(Buffer.from(bytes.subarray(start, end)));
    if (this.#random.below(8) === 0) this.framer!.pause();
  }

  findLanding(bytes: Buffer, start: number): Landing | undefined {
    const rest = bytes.readUInt32LE(start + 4) - LANDING_PREFIX;
    const wrong = this.#random.below(8) === 0 ? 1 : 0;
    return this.#random.below(2) === 0 ? { target: Buffer.alloc(rest + wrong) } : undefined;
  }

  onLanded(bytes: Buffer, start: number, landing: Landing): void {
    this.messages.push(
      Buffer.concat([bytes.subarray(start, start + LANDING_PREFIX), landing.target ?? Buffer.alloc(0)]),
    );
  }

  onWritable(): void {}

  onEnd(): void {}
}

/** Gives the stream to the framer, as a socket would. */
function feed(framer: Framer, stream: Buffer, random: Random): void {
  for (let at = 0; at < stream.length;) {
    while (framer.isPaused) framer.resume();
    const direct = framer.direct();
    const most = direct === undefined ? stream.length - at : Math.min(framer.missing, stream.length - at);
    const count = Math.min(most, 1 + random.below(random.below(3) === 0 ? 4096 : 24));
    if (direct === undefined) framer.push(Buffer.from(stream.subarray(at, at + count)), 0, count, undefined);
    else {
      direct.set(stream.subarray(at, at + count), framer.directOffset);
      framer.advance(count, undefined);
    }
    at += count;
  }
  while (framer.isPaused) framer.resume();
}

export const framer: Target = {
  name: 'framer',
  run(input) {
    const random = new Random((input[0] ?? 0) + 1);
    const stream = input.subarray(1);
    const expected = cut(stream);
    const handler = new Handler(random);
    const one = new Framer(handler);
    handler.framer = one;
    let isBroken = false;
    try {
      feed(one, stream, random);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      isBroken = true;
    }
    one.stop();
    promise(isBroken === expected.isBroken, 'a size that no message has is found, and no other');
    promise(handler.messages.length === expected.messages.length, 'each message comes once');
    for (const [i, message] of handler.messages.entries()) {
      promise(message.equals(expected.messages[i]!), `message ${i} is what was sent`);
    }
  },
};
