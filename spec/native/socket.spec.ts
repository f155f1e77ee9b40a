import { constants } from 'node:os';
import { closeSync, fstatSync, openSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ECTRUNC, NO_SOCKET, native, READABLE, WITH_FDS, WRITABLE } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import {
  descriptorFlags,
  makePair,
  O_CLOEXEC,
  recvText,
  runScript,
  sendText,
  thrownName,
} from './support.js';
import type { Pair } from './support.js';

const { EAGAIN, EBADF, EINVAL, EPIPE, ECONNRESET } = constants.errno;

let pair: Pair;
let fdsBefore: number;

beforeEach(() => {
  fdsBefore = openFds();
  pair = makePair();
});

afterEach(() => {
  pair.close();
  expect(openFds()).toBe(fdsBefore);
});

describe('send', () => {
  test('sends the head and a part of the body as one message', () => {
    const sent = native().send(
      pair.left.handle,
      Buffer.from('head....'),
      4,
      Buffer.from('..body..'),
      2,
      4,
      0,
      null,
    );
    expect(sent).toBe(8);
    expect(recvText(pair.right)).toBe('headbody');
  });

  test.each([
    [0, 'headbody'],
    [3, 'dbody'],
    [4, 'body'],
    [7, 'y'],
  ])('goes on after %d bytes', (sent, rest) => {
    expect(
      native().send(pair.left.handle, Buffer.from('head'), 4, Buffer.from('body'), 0, 4, sent, null),
    ).toBe(8 - sent);
    expect(recvText(pair.right)).toBe(rest);
  });

  test('answers -EAGAIN when the socket is full, and goes on when there is room', () => {
    const chunk = Buffer.alloc(30_000, 'x');
    let queued = 0;
    let result: number;
    while ((result = native().send(pair.left.handle, chunk, chunk.length, null, 0, 0, 0, null)) > 0)
      queued += result;
    expect(result).toBe(-EAGAIN);
    expect(native().wait(pair.left.handle, WRITABLE, 0, NO_SOCKET)).toBe(0);

    const into = Buffer.alloc(1 << 16);
    while (queued > 0) queued -= native().recv(pair.right.handle, into, 0, into.length);
    expect(queued).toBe(0);
    expect(native().wait(pair.left.handle, WRITABLE, 0, NO_SOCKET)).toBe(WRITABLE);
    expect(sendText(pair.left, 'again')).toBe(5);
  });

  test('sends a large message in parts without losing a byte', () => {
    const body = Buffer.alloc(1 << 20);
    for (let i = 0; i < body.length; i += 4) body.writeUInt32LE(i, i);
    const head = Buffer.from('head');
    const received: Buffer[] = [];
    const into = Buffer.alloc(1 << 16);
    let sent = 0;
    while (sent < head.length + body.length) {
      const result = native().send(pair.left.handle, head, head.length, body, 0, body.length, sent, null);
      if (result > 0) sent += result;
      else expect(result).toBe(-EAGAIN);
      const size = native().recv(pair.right.handle, into, 0, into.length);
      if (size > 0) received.push(Buffer.from(into.subarray(0, size)));
    }
    for (let size; (size = native().recv(pair.right.handle, into, 0, into.length)) > 0;) {
      received.push(Buffer.from(into.subarray(0, size)));
    }
    expect(Buffer.concat(received).equals(Buffer.concat([head, body]))).toBe(true);
  });

  test('answers -EPIPE when the peer has closed, without a signal', () => {
    pair.right.close();
    expect(sendText(pair.left, 'x')).toBe(-EPIPE);
  });

  test.each([
    ['a head that is no Uint8Array', () => sendWith({ head: new Uint16Array(4) as unknown as Uint8Array })],
    [
      'a head that is a DataView',
      () => sendWith({ head: new DataView(new ArrayBuffer(4)) as unknown as Uint8Array }),
    ],
    ['a body that is a string', () => sendWith({ body: 'body' as unknown as Uint8Array })],
    ['a length that is a string', () => sendWith({ headLength: '1' as unknown as number })],
    ['fds that are no array', () => sendWith({ fds: 3 as unknown as number[] })],
    ['fds that are not numbers', () => sendWith({ fds: ['3'] as unknown as number[] })],
  ])('throws a TypeError for %s', (_what, action) => {
    expect(thrownName(action)).toBe('TypeError');
    expect(recvText(pair.right)).toBe(-EAGAIN);
  });

  test.each([
    ['a head length beyond the head', { headLength: 5 }],
    ['a negative head length', { headLength: -1 }],
    ['a fraction', { headLength: 1.5 }],
    ['NaN', { headLength: NaN }],
    ['a body range beyond the body', { bodyOffset: 1, bodyLength: 4 }],
    [
      'a body range that overflows',
      { bodyOffset: Number.MAX_SAFE_INTEGER, bodyLength: Number.MAX_SAFE_INTEGER },
    ],
    ['an offset beyond 2^53', { bodyOffset: 2 ** 64, bodyLength: 1 }],
    ['a body length without a body', { body: null, bodyLength: 1 }],
    ['more sent than there is', { sent: 9 }],
    ['a negative fd', { fds: [-1] }],
  ])('throws a RangeError for %s', (_what, change) => {
    expect(thrownName(() => sendWith(change))).toBe('RangeError');
    expect(recvText(pair.right)).toBe(-EAGAIN);
  });

  test('takes a detached array for an empty one', () => {
    const head = new Uint8Array(4);
    structuredClone(head.buffer, { transfer: [head.buffer] });
    expect(thrownName(() => sendWith({ head }))).toBe('RangeError');
  });

  test('takes a buffer that an fd list detaches for an empty one', () => {
    const head = new Uint8Array(4);
    const fds = Object.defineProperty([0], 0, {
      get: () => {
        structuredClone(head.buffer, { transfer: [head.buffer] });
        return 0;
      },
    });
    expect(thrownName(() => sendWith({ head, fds }))).toBe('RangeError');
  });

  interface SendArguments {
    head: Uint8Array;
    headLength: number;
    body: Uint8Array | null;
    bodyOffset: number;
    bodyLength: number;
    sent: number;
    fds: number[] | null;
  }

  function sendWith(change: Partial<SendArguments>): number {
    const usual = { head: Buffer.from('head'), headLength: 4, body: Buffer.from('body'), bodyOffset: 0 };
    const { head, headLength, body, bodyOffset, bodyLength, sent, fds } = {
      ...{ ...usual, bodyLength: 4, sent: 0, fds: null },
      ...change,
    } satisfies SendArguments;
    return native().send(pair.left.handle, head, headLength, body, bodyOffset, bodyLength, sent, fds);
  }
});

describe('recv', () => {
  test('answers -EAGAIN when there is nothing, 0 at the end of the stream', () => {
    expect(recvText(pair.right)).toBe(-EAGAIN);
    pair.left.close();
    expect(recvText(pair.right)).toBe('');
  });

  test('reads a message in parts, into the range that it was given', () => {
    sendText(pair.left, 'abcdef');
    const into = Buffer.from('........');
    expect(native().recv(pair.right.handle, into, 2, 4)).toBe(4);
    expect(into.toString()).toBe('..abcd..');
    expect(native().recv(pair.right.handle, into, 0, 8)).toBe(2);
    expect(into.toString()).toBe('efabcd..');
  });

  test('reads messages that came together as one', () => {
    sendText(pair.left, 'one');
    sendText(pair.left, 'two');
    expect(recvText(pair.right)).toBe('onetwo');
  });

  test('says why the peer has gone', () => {
    sendText(pair.left, 'never read');
    sendText(pair.right, 'read');
    pair.right.close();
    expect(recvText(pair.left)).toBe('read');
    expect(recvText(pair.left)).toBe(-ECONNRESET);
    expect(recvText(pair.left)).toBe('');
  });

  test.each([
    ['no bytes', 0, 0],
    ['a range beyond the buffer', 1, 8],
    ['a negative offset', -1, 1],
    ['an offset that overflows', Number.MAX_SAFE_INTEGER, 8],
  ])('throws a RangeError for %s', (_what, offset, length) => {
    sendText(pair.left, 'x');
    expect(thrownName(() => native().recv(pair.right.handle, new Uint8Array(8), offset, length))).toBe(
      'RangeError',
    );
    expect(
      thrownName(() => native().recvWait(pair.right.handle, new Uint8Array(8), offset, length, 0, NO_SOCKET)),
    ).toBe('RangeError');
    expect(recvText(pair.right)).toBe('x');
  });

  test('throws a TypeError for anything but a Uint8Array', () => {
    for (const into of [null, undefined, {}, new ArrayBuffer(8), new Int8Array(8), 'text']) {
      expect(thrownName(() => native().recv(pair.right.handle, into as Uint8Array, 0, 1))).toBe('TypeError');
    }
  });

  test('writes into a view of a larger buffer at the right place', () => {
    const whole = Buffer.alloc(16, '.');
    sendText(pair.left, 'ab');
    expect(
      native().recv(pair.right.handle, new Uint8Array(whole.buffer, whole.byteOffset + 4, 4), 1, 3),
    ).toBe(2);
    expect(whole.toString()).toBe('.....ab.........');
  });
});

describe('fds', () => {
  test('come in order, close on exec, and refer to the same files', () => {
    const files = ['/dev/null', '/dev/zero', '/dev/full'].map((path) => openSync(path, 'r'));
    expect(sendText(pair.left, 'x', files)).toBe(1);
    const expected = files.map((fd) => fstatSync(fd).rdev);
    files.forEach((fd) => closeSync(fd));

    expect(recvText(pair.right)).toBe('x');
    const received = pair.right.takeFds();
    expect(pair.right.takeFds()).toEqual([]);
    expect(received.map((fd) => fstatSync(fd).rdev)).toEqual(expected);
    for (const fd of received) expect(descriptorFlags(fd) & O_CLOEXEC).toBe(O_CLOEXEC);
    received.forEach((fd) => closeSync(fd));
  });

  test('add up until they are taken', () => {
    sendText(pair.left, 'a', [0]);
    recvText(pair.right);
    sendText(pair.left, 'b', [1, 2]);
    recvText(pair.right);
    const received = pair.right.takeFds();
    expect(received).toHaveLength(3);
    received.forEach((fd) => native().closeFd(fd));
  });

  test('are announced by every receive until they are taken', () => {
    const receives = [
      (into: Buffer) => native().recv(pair.right.handle, into, 0, 1),
      (into: Buffer) => native().recvSpin(pair.right.handle, into, 0, 1, false),
      (into: Buffer) => native().recvWait(pair.right.handle, into, 0, 1, 50, NO_SOCKET),
    ];
    for (const receive of receives) {
      sendText(pair.left, 'a', [0]);
      expect(receive(Buffer.alloc(1))).toBe(1 + WITH_FDS);
      sendText(pair.left, 'b');
      expect(receive(Buffer.alloc(1))).toBe(1 + WITH_FDS);
      expect(receive(Buffer.alloc(1))).toBe(-EAGAIN);
      for (const fd of pair.right.takeFds()) native().closeFd(fd);
      sendText(pair.left, 'c');
      expect(receive(Buffer.alloc(1))).toBe(1);
    }
  });

  test('glued to earlier bytes end that receive', () => {
    sendText(pair.left, 'plain');
    sendText(pair.left, 'with', [0]);
    sendText(pair.left, 'after');
    expect(recvText(pair.right)).toBe('plainwith');
    const fds = pair.right.takeFds();
    expect(fds).toHaveLength(1);
    native().closeFd(fds[0]!);
    expect(recvText(pair.right)).toBe('after');
  });

  test('stay with the first byte of a message that is sent in parts', () => {
    const [head, body] = [Buffer.from('head'), Buffer.from('body')];
    expect(native().send(pair.left.handle, head, 4, body, 0, 4, 0, [0])).toBe(8);
    expect(native().send(pair.left.handle, head, 4, body, 0, 4, 4, [0])).toBe(4);
    recvText(pair.right, 8);
    recvText(pair.right);
    const fds = pair.right.takeFds();
    expect(fds).toHaveLength(1);
    native().closeFd(fds[0]!);
  });

  test('are closed with the socket when nobody took them', () => {
    sendText(pair.left, 'x', [0, 1, 2]);
    recvText(pair.right);
    const before = openFds();
    pair.right.close();
    expect(openFds()).toBe(before - 4);
    expect(pair.right.takeFds()).toEqual([]);
  });

  test('are closed by the kernel when they were never received', () => {
    sendText(pair.left, 'x', [0]);
    pair.right.close();
  });

  test('are sent up to the kernel limit', () => {
    expect(sendText(pair.left, 'x', new Array<number>(253).fill(0))).toBe(1);
    expect(recvText(pair.right)).toBe('x');
    const received = pair.right.takeFds();
    expect(received).toHaveLength(253);
    received.forEach((fd) => native().closeFd(fd));
    expect(sendText(pair.left, 'x', new Array<number>(254).fill(0))).toBe(-EINVAL);
    expect(sendText(pair.left, 'x', [1 << 30])).toBe(-EBADF);
    expect(recvText(pair.right)).toBe(-EAGAIN);
  });

  test('are not sent without a byte to go with', () => {
    expect(native().send(pair.left.handle, Buffer.alloc(0), 0, null, 0, 0, 0, [0])).toBe(-EINVAL);
    expect(native().send(pair.left.handle, Buffer.alloc(0), 0, null, 0, 0, 0, [])).toBe(0);
  });

  test('that do not fit into the process are reported, the others closed', () => {
    expect(
      runScript(
        `
        const [a, b] = addon.socketPair();
        const left = new addon.Socket(a, () => {});
        const right = new addon.Socket(b, () => {});
        addon.send(left.handle, Buffer.from('x'), 1, null, 0, 0, 0, [0, 1, 2, 0, 1, 2, 0, 1]);
        const fillers = [];
        for (let fd; (fd = addon.dupFd(0)) > 0; ) fillers.push(fd);
        fillers.splice(-3).forEach((fd) => addon.closeFd(fd));
        const before = countFds();
        const into = Buffer.alloc(8);
        const result = addon.recv(right.handle, into, 0, 8);
        report([result, countFds() - before, right.takeFds().length, addon.recv(right.handle, into, 0, 8)]);
      `,
        '-n 64',
      ),
    ).toEqual([-ECTRUNC, 0, 0, -EAGAIN]);
  });
});

describe('a socket', () => {
  test('is closed once, and answers -EBADF from then on', () => {
    const into = new Uint8Array(8);
    pair.left.close();
    const reused = native().eventfd(0);
    pair.left.close();
    expect(native().closeFd(reused)).toBe(0);
    expect(pair.left.fd).toBe(-1);
    expect(sendText(pair.left, 'x')).toBe(-EBADF);
    expect(recvText(pair.left)).toBe(-EBADF);
    expect(native().recvWait(pair.left.handle, into, 0, 8, 10, NO_SOCKET)).toBe(-EBADF);
    expect(native().wait(pair.left.handle, READABLE, 10, NO_SOCKET)).toBe(-EBADF);
    expect(pair.left.watch(READABLE)).toBe(-EBADF);
    pair.left.ref();
    pair.left.unref();
  });

  test('leaves the fd alone when it cannot be made', () => {
    const fd = native().eventfd(0);
    const { Socket } = native();
    expect(thrownName(() => new Socket(fd, undefined as never))).toBe('TypeError');
    expect(thrownName(() => new Socket('1' as never, () => {}))).toBe('TypeError');
    expect(thrownName(() => new Socket(-1, () => {}))).toBe('RangeError');
    expect(native().closeFd(fd)).toBe(0);
  });

  test('is known by its handle, and by nothing else', () => {
    const { handle } = pair.right;
    for (const socket of [
      pair.right,
      handle + 1_000,
      handle + 0.5,
      handle + 2 ** 32,
      -2,
      NaN,
      String(handle),
    ]) {
      expect(thrownName(() => native().recv(socket as never, new Uint8Array(1), 0, 1))).toBe('TypeError');
      expect(
        thrownName(() => native().send(socket as never, new Uint8Array(1), 1, null, 0, 0, 0, null)),
      ).toBe('TypeError');
    }
  });

  test('has a handle of its own, also where another was before', async () => {
    expect(
      runScript(`
        const make = () => addon.socketPair().map((fd) => new addon.Socket(fd, () => {}));
        const kept = make();
        let gone = (() => {
          const sockets = make();
          sockets.forEach((socket) => socket.close());
          return sockets.map(({ handle }) => handle);
        })();
        const isGone = (handle) => {
          try { addon.recv(handle, Buffer.alloc(1), 0, 1); return false; } catch { return true; }
        };
        collect(() => gone.every(isGone)).then(() => {
          const later = make();
          const handles = [...kept, ...later].map(({ handle }) => handle);
          report([gone.every(isGone), gone.some((handle) => handles.includes(handle)), new Set(handles).size]);
        });
      `),
    ).toEqual([true, false, 4]);
  });

  test('accepts only a socket as the other one', () => {
    const eventFd = new (native().EventFd)(native().eventfd(0), () => {});
    for (const other of [eventFd, {}, pair.right, null, undefined, -2, 1e9, 0.5]) {
      expect(thrownName(() => native().wait(pair.left.handle, READABLE, 0, other as never))).toBe(
        'TypeError',
      );
      expect(
        thrownName(() => native().recvWait(pair.left.handle, new Uint8Array(1), 0, 1, 0, other as never)),
      ).toBe('TypeError');
    }
    eventFd.close();
  });

  test('is closed when it is collected', () => {
    expect(
      runScript(`
        const before = countFds();
        (function make() {
          for (let i = 0; i < 20; i++) {
            const [a, b] = addon.socketPair();
            const left = new addon.Socket(a, () => left.handle);
            const right = new addon.Socket(b, () => right);
            addon.send(left.handle, Buffer.from('x'), 1, null, 0, 0, 0, [0]);
            addon.recv(right.handle, Buffer.alloc(1), 0, 1);
            left.watch(1);
            left.watch(0);
          }
        })();
        const during = countFds() - before;
        collect(() => countFds() === before).then(() => report([during, countFds() - before]));
      `),
    ).toEqual([60, 0]);
  });
});
