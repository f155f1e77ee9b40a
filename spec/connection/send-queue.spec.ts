/** The send queue over a stream that brings news while it takes a message, as any Duplex may. */
import { Duplex } from 'node:stream';
import { expect, test } from '@jest/globals';
import { SendQueue } from '../../lib/connection/send-queue.js';
import { DuplexTransport } from '../../lib/transport/index.js';

const MANY = 1_000;

test('the connection may end while a message that waited is being taken', async () => {
  const written: string[] = [];
  let goOn: (() => void) | undefined;
  const stream = new Duplex({
    writableHighWaterMark: 1,
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      written.push(chunk.toString());
      if (written.length === 2) sendQueue.close();
      goOn = done;
    },
  });
  const transport = new DuplexTransport(stream, 'a stream', {
    onMessage: () => undefined,
    findLanding: () => undefined,
    onLanded: () => undefined,
    onWritable: () => void sendQueue.flush(MANY),
    onEnd: () => undefined,
  });
  const sendQueue: SendQueue = new SendQueue(transport);
  // As long as a header is.
  const texts = ['first', 'second', 'third'].map((text) => text.padEnd(16));
  for (const text of texts) {
    sendQueue.send(
      undefined,
      { head: Buffer.from(text), headLength: text.length, body: null, fds: null },
      false,
    );
  }
  expect(sendQueue.isEmpty).toBe(false);
  goOn!();
  await new Promise((resolve) => setImmediate(resolve));
  expect(written).toEqual(texts.slice(0, 2));
  expect(sendQueue.isEmpty).toBe(true);
  transport.close();
});
