/**
 * File descriptors and memory run out at every place where they are needed, one after the other: each time there is an
 * error by name, what was open before is still open and in order, and nothing is left of what failed.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { canPreload, compilePreload, isPlain } from '../support/preload.js';
import { startRamServer, type RamServer } from '../support/ram-server.js';
import { runScript } from './child.js';

/** What the addon asks of the kernel, where the kernel may have nothing left to give. */
const CALLS = ['socket', 'connect', 'send', 'recv', 'fcntl', 'mmap', 'memfd_create', 'ftruncate'].concat([
  'fallocate',
  'eventfd',
]);

let scratch: string;
let server: RamServer;

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  server = await startRamServer(join(scratch, 's'));
}, 60_000);

afterAll(async () => {
  await server.kill();
  rmSync(scratch, { recursive: true });
});

/** `scenario`, which needs every kind of fd and memory; `trial`, which runs it and says what came of it. */
const SCENARIO = `
  const path = process.argv.at(-1);
  const neighbour = await open();
  const memory = native().memfd('spec', 4096, false);
  const scenario = async () => {
    const device = await connect(path, { timeoutMs: 10_000 });
    try {
      const area = device.bar(1).map();
      area.copyOut(0, Buffer.alloc(64));
      const buffer = await device.dma.alloc(4096);
      await device.dma.map({ fd: memory, size: 4096 });
      await device.irqs.msix.enable(3);
      await device.bar(0).readUInt32(0);
      device.bar(0).readUInt32Sync(0);
      await buffer.free();
    } finally {
      await device.close();
    }
  };
  await scenario();
  await sleep(100);
  const before = countFds();
  const trial = async (begin, end) => {
    begin();
    const error = await scenario().then(() => undefined, (e) => e);
    end();
    for (let i = 0; i < 100 && countFds() !== before; i++) await sleep(5);
    if (countFds() !== before) throw new Error('fds: ' + countFds() + ', not ' + before, { cause: error });
    if ((await neighbour.device.bar(0).readUInt32(0)) !== RAM_IDENTIFICATION) throw new Error('the neighbour');
    // Behind a class of the library's there must be a code, or the message says what failed.
    if (error !== undefined && !(error instanceof VfioUserError)) throw error;
    return error === undefined ? 'well' : error.name + ' ' + error.code + ': ' + error.message;
  };
`;

(isPlain ? test : test.skip)(
  'file descriptors that run out at every place are an error by name, and none is left (needs to be without sanitizer)',
  async () => {
    const { status, signal, stderr, reports } = await runScript(
      `${SCENARIO}
    const outcomes = [];
    for (let free = 0; free < 64 && outcomes.at(-1) !== 'well'; free++) {
      const fillers = [];
      const begin = () => {
        for (;;) try { fillers.push(fs.openSync('/dev/null')); } catch { break; }
        for (let i = 0; i < free; i++) fs.closeSync(fillers.pop());
      };
      outcomes.push(await trial(begin, () => fillers.forEach((fd) => fs.closeSync(fd))));
    }
    report(outcomes);
    process.exit(0);
  `,
      { args: [join(scratch, 's')], fdLimit: 128 },
    );
    expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
    const outcomes = reports[0] as string[];
    expect(outcomes.pop()).toBe('well');
    expect(outcomes.length).toBeGreaterThan(5);
    for (const outcome of outcomes) expect(outcome).toMatch(/EMFILE|MSG_CTRUNC/);
    expect(outcomes.filter((outcome) => outcome.includes('MSG_CTRUNC')).length).toBeGreaterThan(1);
  },
  120_000,
);

describe('a system call of the addon that fails', () => {
  (canPreload ? test : test.skip).each(['ENOMEM', 'EMFILE', 'ENFILE', 'ENOBUFS'])(
    'with %s, each in its turn, is an error by name or makes no difference (needs a C compiler, and no sanitizer)',
    async (errno) => {
      const preload = compilePreload('failing-calls', scratch);
      const control = join(scratch, 'control');
      writeFileSync(control, Buffer.alloc(4096));
      const { status, signal, stderr, reports } = await runScript(
        `
        import { constants } from 'node:os';
        const control = fs.openSync(process.env.VFIO_USER_FAILING_CALLS, 'r+');
        ${SCENARIO}
        const write = (countdown, name) => {
          const bytes = Buffer.alloc(32);
          bytes.writeInt32LE(countdown, 0);
          bytes.writeInt32LE(constants.errno['${errno}'], 4);
          bytes.write(name, 12);
          fs.writeSync(control, bytes, 0, 32, 0);
        };
        const hasFailed = () => {
          const bytes = Buffer.alloc(32);
          fs.readSync(control, bytes, 0, 32, 0);
          return bytes.readInt32LE(8) !== 0;
        };
        const outcomes = [];
        for (const name of ${JSON.stringify(CALLS)}) {
          for (let n = 1, failed = true; failed && n < 100; n++) {
            const outcome = await trial(
              () => write(n, name),
              () => { failed = hasFailed(); write(0, name); },
            );
            if (failed) outcomes.push([name, outcome]);
          }
        }
        report(outcomes);
        process.exit(0);
      `,
        { args: [join(scratch, 's')], preload, env: { VFIO_USER_FAILING_CALLS: control } },
      );
      expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
      const outcomes = reports[0] as [string, string][];
      expect(new Set(outcomes.map(([name]) => name))).toEqual(new Set(CALLS));
      // Most of them cannot be done without.
      expect(outcomes.filter(([, outcome]) => outcome !== 'well').length).toBeGreaterThan(
        outcomes.length / 3,
      );
    },
    180_000,
  );
});
