import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { native } from '../../lib/native.js';
import type { NativeMapping } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import { addonPath, mapMemfd, mustMap, mustView, runScript, thrownName } from './support.js';

const { EACCES, EBADF, EFAULT, EINVAL } = constants.errno;
const PAGE = 4096;
const SIZE = 4 * PAGE;

let fdsBefore: number;
let fd: number;
let mapping: NativeMapping;

beforeEach(() => {
  fdsBefore = openFds();
  ({ fd, mapping } = mapMemfd(SIZE));
});

afterEach(() => {
  mapping.close();
  native().closeFd(fd);
  expect(openFds()).toBe(fdsBefore);
});

/** What the file itself has. */
function fileBytes(offset: number, length: number): string {
  const bytes = Buffer.alloc(length);
  readSync(fd, bytes, 0, length, offset);
  return bytes.toString('latin1');
}

describe('map', () => {
  test('keeps the mapping when the fd is closed', () => {
    const copy = native().dupFd(fd);
    const other = mustMap(copy, SIZE);
    native().closeFd(copy);
    expect(other.length).toBe(SIZE);
    expect(other.closed).toBe(false);
    Buffer.from(mustView(other, 0, 4)).write('here');
    expect(fileBytes(0, 4)).toBe('here');
    other.close();
  });

  test('answers what mmap says', () => {
    expect(native().map(fd, 0, 0, true, true)).toBe(-EINVAL);
    expect(native().map(fd, 1, PAGE, true, true)).toBe(-EINVAL);
    expect(native().map(fd, 0, PAGE, false, false)).toBe(-EINVAL);
    expect(native().map(1 << 30, 0, PAGE, true, true)).toBe(-EBADF);
    const readOnly = openSync(`/proc/self/fd/${fd}`, 'r');
    expect(native().map(readOnly, 0, PAGE, true, true)).toBe(-EACCES);
    closeSync(readOnly);
  });

  test('maps from an offset', () => {
    writeSync(fd, 'second page', PAGE);
    const second = native().map(fd, PAGE, PAGE, true, false) as NativeMapping;
    const bytes = Buffer.alloc(11);
    expect(second.copyOut(0, bytes, 0, 11)).toBe(11);
    expect(bytes.toString()).toBe('second page');
    second.close();
  });

  test.each([
    ['RangeError', -1, 0, PAGE],
    ['RangeError', 0, -PAGE, PAGE],
    ['RangeError', 0, 0.5, PAGE],
    ['RangeError', 0, 0, 2 ** 53],
    ['TypeError', '0', 0, PAGE],
    ['TypeError', 0, 0n, PAGE],
  ])('throws a %s for (%p, %p, %p)', (name, ...args) => {
    const [file, offset, length] = args as [number, number, number];
    expect(thrownName(() => native().map(file, offset, length, true, true))).toBe(name);
  });

  test('is the only way to make a mapping', () => {
    const Mapping = (mapping as unknown as { constructor: new (...args: unknown[]) => unknown }).constructor;
    expect(thrownName(() => new Mapping())).toBe('TypeError');
    expect(thrownName(() => new Mapping(fd, 0, PAGE, true, true))).toBe('TypeError');
  });
});

describe('view', () => {
  test('is the memory of the file, as often as it is made', () => {
    const [one, two] = [mustView(mapping, 0, SIZE), mustView(mapping, PAGE, 16)];
    new Uint8Array(one)[PAGE + 1] = 7;
    expect(new Uint8Array(two)[1]).toBe(7);
    Buffer.from(two).write('two', 2);
    expect(fileBytes(PAGE, 5)).toBe('\0\x07two');
    expect([one.byteLength, two.byteLength]).toEqual([SIZE, 16]);
  });

  test('may be empty', () => {
    expect(mustView(mapping, SIZE, 0).byteLength).toBe(0);
  });

  test.each([
    [0, SIZE + 1],
    [SIZE, 1],
    [1, SIZE],
    [Number.MAX_SAFE_INTEGER, 2],
    [-1, 1],
    [0, 2 ** 32 + 1],
  ])('of [%d, +%d) is a RangeError', (offset, length) => {
    expect(thrownName(() => mapping.view(offset, length))).toBe('RangeError');
  });

  test('is refused where a load or a store would kill the process', () => {
    for (const [readable, writable] of [
      [true, false],
      [false, true],
    ] as const) {
      const half = mustMap(fd, SIZE, readable, writable);
      expect(half.view(0, 8)).toBe(-EACCES);
      half.close();
    }
  });
});

describe('copies', () => {
  test('go out and in', () => {
    const bytes = Buffer.from('..in..');
    expect(mapping.copyIn(PAGE - 1, bytes, 2, 2)).toBe(2);
    expect(fileBytes(PAGE - 1, 2)).toBe('in');
    expect(mapping.copyOut(PAGE - 1, bytes, 4, 2)).toBe(2);
    expect(bytes.toString()).toBe('..inin');
    expect(mapping.copyOut(SIZE, bytes, 0, 0)).toBe(0);
  });

  test('of any size are whole', () => {
    const { fd: large, mapping: wide } = mapMemfd(8 << 20);
    const pattern = Buffer.alloc(8 << 20);
    for (let i = 0; i < pattern.length; i += 4) pattern.writeUInt32LE(i, i);
    expect(wide.copyIn(3, pattern, 3, pattern.length - 3)).toBe(pattern.length - 3);
    const back = Buffer.alloc(pattern.length);
    pattern.copy(back, 0, 0, 3);
    expect(wide.copyOut(3, back, 3, back.length - 3)).toBe(back.length - 3);
    expect(back.equals(pattern)).toBe(true);
    wide.close();
    native().closeFd(large);
  });

  test('keep to the permissions of the mapping', () => {
    const bytes = Buffer.from('x');
    const readOnly = mustMap(fd, SIZE, true, false);
    expect(readOnly.copyIn(0, bytes, 0, 1)).toBe(-EACCES);
    expect(readOnly.copyOut(0, bytes, 0, 1)).toBe(1);
    readOnly.close();
    const writeOnly = mustMap(fd, SIZE, false, true);
    expect(writeOnly.copyOut(0, bytes, 0, 1)).toBe(-EACCES);
    expect(writeOnly.copyIn(0, Buffer.from('y'), 0, 1)).toBe(1);
    expect(fileBytes(0, 1)).toBe('y');
    writeOnly.close();
  });

  test.each([
    ['beyond the mapping', SIZE - 1, 0, 2],
    ['far beyond the mapping', Number.MAX_SAFE_INTEGER, 0, 2],
    ['beyond the buffer', 0, 7, 2],
    ['with a negative offset', -1, 0, 1],
  ])('%s are a RangeError', (_what, offset, at, length) => {
    expect(thrownName(() => mapping.copyOut(offset, new Uint8Array(8), at, length))).toBe('RangeError');
    expect(thrownName(() => mapping.copyIn(offset, new Uint8Array(8), at, length))).toBe('RangeError');
  });

  test('of a detached buffer are a RangeError', () => {
    const bytes = new Uint8Array(8);
    structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
    expect(thrownName(() => mapping.copyOut(0, bytes, 0, 1))).toBe('RangeError');
  });

  test('answer -EFAULT where the file was cut short, and go on where it was not', () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
    const file = openSync(path.join(directory, 'file'), 'w+');
    ftruncateSync(file, SIZE);
    writeSync(file, 'kept', 0);
    const cut = mustMap(file, SIZE);
    ftruncateSync(file, PAGE);
    const bytes = Buffer.alloc(SIZE);
    expect(cut.copyOut(0, bytes, 0, PAGE)).toBe(PAGE);
    expect(bytes.toString('utf8', 0, 4)).toBe('kept');
    for (const [offset, length] of [
      [PAGE, 1],
      [SIZE - 1, 1],
      [PAGE - 2, 4],
      [0, SIZE],
    ] as const) {
      expect(cut.copyOut(offset, bytes, 0, length)).toBe(-EFAULT);
      expect(cut.copyIn(offset, bytes, 0, length)).toBe(-EFAULT);
    }
    expect(cut.copyIn(0, Buffer.from('more'), 0, 4)).toBe(4);
    ftruncateSync(file, SIZE);
    expect(cut.copyOut(0, bytes, 0, SIZE)).toBe(SIZE);
    expect(bytes.toString('utf8', 0, 4)).toBe('more');
    cut.close();
    closeSync(file);
    rmSync(directory, { recursive: true });
  });
});

describe('close', () => {
  test('detaches every view, once', () => {
    const views = [mustView(mapping, 0, SIZE), mustView(mapping, PAGE, 16)];
    const words = new Uint32Array(views[0]!);
    words[0] = 1;
    mapping.close();
    mapping.close();
    expect(mapping.closed).toBe(true);
    expect(mapping.length).toBe(SIZE);
    expect(views.map((view) => view.byteLength)).toEqual([0, 0]);
    expect(words[0]).toBeUndefined();
    words[0] = 2;
    expect(fileBytes(0, 1)).toBe('\x01');
  });

  test('makes every call answer -EBADF', () => {
    mapping.close();
    expect(mapping.view(0, 1)).toBe(-EBADF);
    expect(mapping.copyOut(0, new Uint8Array(1), 0, 1)).toBe(-EBADF);
    expect(mapping.copyIn(0, new Uint8Array(1), 0, 1)).toBe(-EBADF);
  });

  test('leaves other mappings of the file alone', () => {
    const other = mustMap(fd, SIZE);
    const view = new Uint8Array(mustView(other, 0, 4));
    mapping.close();
    view[0] = 5;
    expect(fileBytes(0, 1)).toBe('\x05');
    other.close();
  });
});

describe('addresses', () => {
  const setUp = `
    const vm = require('node:vm');
    const v8 = require('node:v8');
    const SIZE = 2 ** 34; // nothing else is as large
    const name = '/tmp/vfio-user-spec-' + process.pid;
    const fd = fs.openSync(name, 'w+');
    fs.unlinkSync(name);
    fs.ftruncateSync(fd, SIZE);
    let mapping = addon.map(fd, 0, SIZE, true, true);

    /** The mappings of the process: [first address, address after the last, file]. */
    const maps = () =>
      fs.readFileSync('/proc/self/maps', 'utf8').trim().split('\\n').map((line) => {
        const [, low, high, file] = /^(\\w+)-(\\w+)\\s+\\S+\\s+\\S+\\s+\\S+\\s+\\d+\\s*(.*)$/.exec(line);
        return [BigInt('0x' + low), BigInt('0x' + high), file];
      });
    const isMapped = () => maps().some(([, , file]) => file.startsWith(name));
    const [first, end] = maps().find(([, , file]) => file.startsWith(name));
    /** Whether all of the addresses still belong to a mapping, of the file or of nothing. */
    const isReserved = (from = first, to = end) => maps().some(([low, high]) => low <= from && high >= to);
    const fileByte = () => {
      const byte = Buffer.alloc(1);
      fs.readSync(fd, byte, 0, 1, 0);
      return byte[0];
    };
    const run = (main) => main().then(report, (error) => { console.error(error); process.exit(1); });
  `;
  /** Node 20 has it only behind a flag; a context that is made later gets it. */
  const transfer = `
    v8.setFlagsFromString('--harmony-rab-gsab-transfer');
    const transfer = ArrayBuffer.prototype.transfer ?? vm.runInNewContext('ArrayBuffer.prototype.transfer');
  `;

  test('are given back at once when there are no views', () => {
    expect(runScript(`${setUp} mapping.close(); report([isMapped(), isReserved()]);`)).toEqual([
      false,
      false,
    ]);
  });

  test('are given back when the views have been collected', () => {
    expect(
      runScript(`${setUp}
        run(async () => {
          let view = new Uint8Array(mapping.view(0, 4096));
          mapping.view(4096, 4096);
          view[0] = 1;
          mapping.close();
          const closed = [isMapped(), isReserved(), view.length];
          view = undefined;
          await collect(() => !isReserved());
          return [closed, isReserved(), fileByte()];
        });
      `),
    ).toEqual([[false, true, 0], false, 1]);
  });

  test('are kept for a view that was transferred', () => {
    expect(
      runScript(`${setUp} ${transfer}
        run(async () => {
          const view = mapping.view(0, 4096);
          new Uint8Array(view)[0] = 1;
          let moved = transfer.call(view);
          mapping.close();
          const bytes = new Uint8Array(moved);
          const first = bytes[0];
          bytes[0] = 2;
          let rounds = 0;
          await collect(() => rounds++ === 5);
          const held = [isMapped(), isReserved(), first, bytes[0], fileByte()];
          return held;
        });
      `),
    ).toEqual([false, true, 0, 2, 1]);
  });

  test('are kept for a read in the thread pool, which no longer reaches the file', () => {
    expect(
      runScript(`${setUp}
        const fifo = name + '-fifo';
        require('node:child_process').execFileSync('mkfifo', [fifo], { env: { PATH: process.env.PATH } });
        const pipe = fs.openSync(fifo, 'r+');
        fs.unlinkSync(fifo);
        run(async () => {
          // The thread sits in read(2), with the bare address.
          const reading = new Promise((resolve, reject) => {
            const bytes = Buffer.from(mapping.view(0, 4096));
            fs.read(pipe, bytes, 0, 4, null, (error, size) => (error ? reject(error) : resolve(size)));
          });
          await new Promise((resolve) => setTimeout(resolve, 50));
          mapping.close();
          let rounds = 0;
          await collect(() => rounds++ === 5);
          const held = [isMapped(), isReserved()];
          fs.writeSync(pipe, 'late');
          const size = await reading;
          await collect(() => !isReserved());
          return [...held, size, isReserved(), fileByte()];
        });
      `),
    ).toEqual([false, true, 4, false, 0]);
  });

  test('are given back without close, when neither the mapping nor a view is left', () => {
    expect(
      runScript(`${setUp}
        run(async () => {
          let view = new Uint8Array(mapping.view(0, 4096));
          mapping = undefined;
          let rounds = 0;
          await collect(() => rounds++ === 5);
          view[0] = 3;
          const used = [isMapped(), fileByte()];
          view = undefined;
          await collect(() => !isReserved());
          return [...used, isMapped(), isReserved()];
        });
      `),
    ).toEqual([true, 3, false, false]);
  });

  test('outlive the worker whose view went to another thread', () => {
    expect(
      runScript(`${setUp}
        const { Worker } = require('node:worker_threads');
        mapping.close();
        const worker = new Worker(\`
          const addon = require(${JSON.stringify(addonPath)});
          const { parentPort, workerData } = require('node:worker_threads');
          const vm = require('node:vm');
          const v8 = require('node:v8');
          ${transfer}
          const mapping = addon.map(workerData.fd, 0, workerData.SIZE, true, true);
          const moved = transfer.call(mapping.view(0, 4096));
          mapping.view(4096, 4096);
          parentPort.postMessage(moved, [moved]);
        \`, { eval: true, workerData: { fd, SIZE } });
        worker.once('message', (moved) => {
          worker.once('exit', () => {
            const bytes = new Uint8Array(moved);
            bytes[0] = 4;
            report([bytes.length, bytes[0], isMapped(), fileByte()]);
          });
        });
      `),
    ).toEqual([4096, 4, false, 0]);
  });

  test.each([
    ['are given back at the end of a worker that closed its mapping', 'mapping.close()', false],
    ['are kept, but not the file, at the end of a worker that left views behind', '', true],
  ])('%s', (_what, close, reserved) => {
    expect(
      runScript(`${setUp}
        const { Worker } = require('node:worker_threads');
        mapping.close();
        const worker = new Worker(\`
          const addon = require(${JSON.stringify(addonPath)});
          const { parentPort, workerData } = require('node:worker_threads');
          globalThis.mapping = addon.map(workerData.fd, 0, workerData.SIZE, true, true);
          globalThis.views = [mapping.view(0, 4096), mapping.view(4096, 4096)];
          const lines = require('node:fs').readFileSync('/proc/self/maps', 'utf8').split('\\\\n');
          parentPort.postMessage(lines.find((line) => line.includes(workerData.name)).split(' ')[0]);
          ${close}
        \`, { eval: true, workerData: { fd, SIZE, name } });
        worker.once('message', (text) => {
          const range = text.split('-').map((hex) => BigInt('0x' + hex));
          worker.once('exit', () => report([isMapped(), isReserved(...range)]));
        });
      `),
    ).toEqual([false, reserved]);
  });
});
