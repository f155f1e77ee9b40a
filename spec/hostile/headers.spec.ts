/** Every field of the header of every answer of a session, wrong one at a time; and the stream cut at every byte. */
import { describe, expect, test } from '@jest/globals';
import { VfioUserError } from '../../lib/errors.js';
import type { Answer, ScriptedDevice } from '../support/scripted-device.js';
import { expectNamedError, hostile, keepPromises, outcome } from './session.js';

keepPromises();

const ANSWERS: [name: string, command: number][] = [
  ['VERSION', 1],
  ['DMA_MAP', 2],
  ['DMA_UNMAP', 3],
  ['GET_INFO', 4],
  ['GET_REGION_INFO', 5],
  ['GET_IRQ_INFO', 7],
  ['SET_IRQS', 8],
  ['REGION_READ', 9],
  ['REGION_WRITE', 10],
  ['RESET', 13],
];

/** Changes the first answer to a command. */
function changing(command: number, change: (answer: Answer) => Answer | undefined): ScriptedDevice {
  let done = false;
  return hostile((asked, answer) => {
    if (asked.command !== command || done) return answer;
    done = true;
    return change(answer);
  });
}

function patched(change: (bytes: Buffer) => unknown): (answer: Answer) => Answer {
  return (answer) => {
    change(answer.bytes);
    return answer;
  };
}

describe.each(ANSWERS)('the answer to %s', (_, command) => {
  test.each([0, 8, 15, 2 ** 21, 2 ** 31, 2 ** 32 - 1])('with a size of %i', async (size) => {
    await expectNamedError(
      changing(
        command,
        patched((bytes) => bytes.writeUInt32LE(size, 4)),
      ),
      'ClosedError',
    );
  });

  test('with a size of 16, the rest of it behind it', async () => {
    const server = changing(
      command,
      patched((bytes) => bytes.writeUInt32LE(16, 4)),
    );
    // An answer that has nothing but its header is as it should be.
    if ([2, 3, 8, 13].includes(command)) expect(await outcome(server)).toBeUndefined();
    else await expectNamedError(server);
  });

  test('with a byte more than there is', async () => {
    await expectNamedError(
      changing(
        command,
        patched((bytes) => bytes.writeUInt32LE(bytes.length + 1, 4)),
      ),
    );
  });

  test.each([0x7fff, 0x8000, 0xffff])('with the id %i', async (id) => {
    await expectNamedError(
      changing(
        command,
        patched((bytes) => bytes.writeUInt16LE(id, 0)),
      ),
      'TimeoutError',
    );
  });

  test.each([0, 6, 99, 0xffff])('with the command %i', async (other) => {
    await expectNamedError(
      changing(
        command,
        patched((bytes) => bytes.writeUInt16LE(other, 2)),
      ),
      'ClosedError',
    );
  });

  test.each([2, 3, 15])('with the type %i', async (type) => {
    await expectNamedError(
      changing(
        command,
        patched((bytes) => bytes.writeUInt32LE(type, 8)),
      ),
      'ClosedError',
    );
  });

  test('as a command', async () => {
    await expectNamedError(
      changing(
        command,
        patched((bytes) => bytes.writeUInt32LE(0, 8)),
      ),
      'TimeoutError',
    );
  });

  test.each([0, 22, 9999, 0x7fffffff, 0xffffffff])(
    'with the error bit, errno %i and a payload',
    async (errno) => {
      const server = changing(
        command,
        patched((bytes) => {
          bytes.writeUInt32LE(0x21, 8);
          bytes.writeUInt32LE(errno, 12);
        }),
      );
      const error = await outcome(server);
      // What a server does not describe, the device does not have; config space is asked for again by dwords.
      if (command === 5 || command === 9) return;
      if (command === 7) expect(error).toBeInstanceOf(RangeError);
      else expect(error).toMatchObject({ name: 'RemoteError', errno });
    },
  );

  test('with flags that no text knows, and an errno without the error bit', async () => {
    const server = changing(
      command,
      patched((bytes) => {
        bytes.writeUInt32LE(0xffffffc1, 8);
        bytes.writeUInt32LE(22, 12);
      }),
    );
    expect(await outcome(server)).toBeUndefined();
  });

  test('that does not come', async () => {
    await expectNamedError(
      changing(command, () => undefined),
      'TimeoutError',
    );
  });

  test('that comes twice', async () => {
    const server = changing(command, ({ bytes, fds }) => ({ bytes: Buffer.concat([bytes, bytes]), fds }));
    expect(await outcome(server)).toBeUndefined();
  });

  test('behind one that nobody asked for', async () => {
    const server = changing(command, ({ bytes, fds }) => {
      const stray = Buffer.from(bytes);
      stray.writeUInt16LE(0x7abc, 0);
      return { bytes: Buffer.concat([stray, bytes]), fds };
    });
    expect(await outcome(server)).toBeUndefined();
  });

  test('in single bytes', async () => {
    const server = changing(command, ({ bytes, fds }) => {
      for (const [i, byte] of bytes.entries()) server.peer.send(Buffer.from([byte]), i === 0 ? fds : []);
      return undefined;
    });
    expect(await outcome(server)).toBeUndefined();
  });

  test('without its last byte, and nothing more', async () => {
    const server = changing(command, ({ bytes, fds }) => ({ bytes: bytes.subarray(0, -1), fds }));
    await expectNamedError(server);
  });
});

describe('a server that goes', () => {
  /** The session with a server that goes after so many bytes; how many it had sent. */
  async function cutAt(limit: number): Promise<{ error: unknown; sent: number }> {
    let sent = 0;
    const server = hostile((_asked, { bytes, fds }) => {
      const part = bytes.subarray(0, Math.max(0, limit - sent));
      if (part.length > 0 && !server.peer.ended) server.peer.send(part, fds);
      sent += part.length;
      if (sent >= limit) server.close();
      return undefined;
    });
    return { error: await outcome(server), sent };
  }

  test('after any byte of a session leaves a named error', async () => {
    const all = await cutAt(Infinity);
    expect(all.error).toBeUndefined();
    expect(all.sent).toBeGreaterThan(800);
    for (let limit = 0; limit < all.sent; limit++) {
      const { error } = await cutAt(limit);
      if (!(error instanceof VfioUserError)) throw new Error(`cut at ${limit}: ${String(error)}`);
    }
  }, 30_000);
});
