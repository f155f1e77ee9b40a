/** A server's end of a connection that now and then breaks in the middle of a message, or says what means nothing. */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { Random } from './random.js';

/** What is sent goes wrong once in so many writes. */
const ONE_IN = 400;
const GARBAGE_BYTES = 48;
/** Garbage may say that more is to come: nobody waits for it for long. */
const LAST_WORDS_MS = 50;
/** The header and the version come whole: a device that cannot be opened shows nothing. */
const SPARED_WRITES = 24;

type Fault = 'garbage' | 'cut' | 'crumbs' | 'end';

const FAULTS: readonly Fault[] = ['garbage', 'cut', 'crumbs', 'end'];

export function breaking(socket: Socket, random: Random): Duplex {
  let writes = 0;
  const stream = new Duplex({
    read: () => socket.resume(),
    write: (chunk: Buffer, _encoding, done) => {
      const isFaulty = ++writes > SPARED_WRITES && random.oneIn(ONE_IN);
      if (isFaulty) breakWith(FAULTS[random.between(0, FAULTS.length - 1)]!, socket, chunk, random, done);
      else socket.write(chunk, done);
    },
    destroy: (error, done) => {
      socket.destroy();
      done(error);
    },
  });
  socket.on('data', (chunk: Buffer) => {
    if (!stream.push(chunk)) socket.pause();
  });
  socket.on('error', () => undefined);
  socket.on('close', () => {
    stream.push(null);
    stream.destroy();
  });
  return stream;
}

function breakWith(
  fault: Fault,
  socket: Socket,
  chunk: Buffer,
  random: Random,
  done: (error?: Error | null) => void,
): void {
  switch (fault) {
    case 'garbage': {
      const garbage = Buffer.from(Array.from({ length: GARBAGE_BYTES }, () => random.between(0, 255)));
      socket.write(garbage, done);
      setTimeout(() => socket.destroy(), LAST_WORDS_MS);
      break;
    }
    case 'cut':
      socket.end(chunk.subarray(0, random.between(1, chunk.byteLength - 1)), () => done());
      break;
    case 'crumbs':
      crumble(socket, chunk, 0, random, done);
      break;
    case 'end':
      socket.end(() => done());
      break;
  }
}

/** The message, whole in the end, but a few bytes a turn. */
function crumble(
  socket: Socket,
  chunk: Buffer,
  at: number,
  random: Random,
  done: (error?: Error | null) => void,
): void {
  if (at >= chunk.byteLength || socket.destroyed) {
    done();
    return;
  }
  const end = at + random.between(1, Math.max(8, chunk.byteLength >> 4));
  socket.write(chunk.subarray(at, end), () => setImmediate(() => crumble(socket, chunk, end, random, done)));
}
