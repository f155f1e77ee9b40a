import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { execFileSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import type { EmulatorServer } from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { CaptureReader } from '../../lib/trace/index.js';
import { RawClient } from '../emulator/raw-client.js';
import { setIrqsRequest } from '../support/wire.js';
import { Scratch, start, vfioUser, type Outcome } from './cli.js';
import { EDU_MAP } from './edu-map.js';
import { serveEdu } from './emulator.js';

jest.setTimeout(90_000);

let scratch: Scratch;
let front: string;
let back: string;
let server: EmulatorServer | undefined;
let child: ChildProcess | undefined;

beforeEach(() => {
  scratch = new Scratch();
  front = scratch.path('front');
  back = scratch.path('back');
});

afterEach(async () => {
  child?.kill('SIGKILL');
  child = undefined;
  await server?.close();
  server = undefined;
  scratch.remove();
});

interface Running {
  child: ChildProcess;
  said: { stdout: string; stderr: string };
  /** Interrupts it; what it said in the end. */
  stop(signal?: NodeJS.Signals): Promise<Outcome>;
}

/** Starts a proxy; resolves when it says where it listens. */
async function run(...args: string[]): Promise<Running> {
  const started = start(['proxy', '--listen', front, '--connect', back, ...args]);
  child = started;
  const said = { stdout: '', stderr: '' };
  started.stdout!.on('data', (chunk: Buffer) => (said.stdout += chunk.toString()));
  started.stderr!.on('data', (chunk: Buffer) => (said.stderr += chunk.toString()));
  await Promise.race([once(started.stdout!, 'data'), once(started, 'exit')]);
  expect(said.stdout).toMatch(/^listening on /);
  const stop = async (signal: NodeJS.Signals = 'SIGINT'): Promise<Outcome> => {
    started.kill(signal);
    const [status] = (await once(started, 'close')) as [number | null];
    return { status, ...said, bytes: Buffer.from(said.stdout) };
  };
  return { child: started, said, stop };
}

describe('proxy', () => {
  test.each(['SIGINT', 'SIGTERM'] as const)(
    'passes on until %s; then a summary, and no socket',
    async (signal) => {
      server = await serveEdu(back);
      const proxied = await run();
      expect((await vfioUser('read', front, 'bar0', '0')).stdout).toBe('0x010000ed\n');
      expect((await vfioUser('read', front, 'bar0', '0')).stdout).toBe('0x010000ed\n');
      const { status, stdout, stderr } = await proxied.stop(signal);
      expect(status).toBe(0);
      expect(stdout).toMatch(
        /^listening on .*front\n2 clients\nto the server: \d+ messages, \d+ bytes, \d+ fds?\nto the client: .*\n$/,
      );
      expect(stderr.split('\n')).toEqual([
        'client 1 connected',
        'client 1 ended: the client closed its end',
        'client 2 connected',
        'client 2 ended: the client closed its end',
        '',
      ]);
      expect(existsSync(front)).toBe(false);
    },
  );

  // The proxy is a process of its own: only so can a client block while it works.
  test.each(['0', '50', '100'])('--spin %s: blocking reads, pipelined ones and interrupts', async (spin) => {
    server = await serveEdu(back);
    const proxied = await run('--spin', spin, '--interrupts');
    const device = await connect(front);
    await device.enable();
    const bar = device.bar(0);
    const [line] = await device.irqs.msi.enable(1);
    for (let i = 1; i <= 20; i++) {
      await bar.writeUInt32(0x60, i);
      expect(await line.wait({ timeoutMs: 5_000 })).toBe(1);
      expect(await bar.readUInt32(0x24)).toBe(i);
      await bar.writeUInt32(0x64, i);
    }
    const values = await Promise.all(Array.from({ length: 200 }, () => bar.readUInt32(0)));
    expect(new Set(values)).toEqual(new Set([0x0100_00ed]));
    await device.close();
    const { stdout, stderr } = await proxied.stop();
    expect(stdout).toContain('20 interrupts');
    expect(stderr).toContain('client 1 ended: the client closed its end');
  });

  test.each(['101', '-1', 'x'])('--spin %s is refused', async (spin) => {
    const { status, stderr } = await vfioUser('proxy', '--listen', front, '--connect', back, '--spin', spin);
    expect(status).toBe(2);
    expect(stderr).toMatch(/spin/);
  });

  test('--log prints each message, --capture has all of them, rotated', async () => {
    server = await serveEdu(back);
    const file = scratch.path('dev.pcapng');
    const proxied = await run('--log', '--capture', file, '--rotate-bytes', '8K', '--rotate-files', '2');
    await vfioUser('info', front);
    await vfioUser('info', front);
    const { stdout } = await proxied.stop();
    const lines = stdout.split('\n').filter((line) => / (→|←) #\d+ /.test(line));
    const total = [...stdout.matchAll(/^to the (?:server|client): (\d+) messages/gm)].reduce(
      (sum, [, count]) => sum + Number(count),
      0,
    );
    expect(lines).toHaveLength(total);
    expect(lines[0]).toMatch(/^ +0\.000000 back → #0 VERSION major=0/);
    let captured = 0;
    for (const name of [`${file}.1`, file]) {
      for await (const { bytes } of new CaptureReader(name)) captured += bytes.length > 0 ? 1 : 0;
    }
    expect(captured).toBeLessThanOrEqual(total);
    expect(captured).toBeGreaterThan(20);
    expect(existsSync(`${file}.3`)).toBe(false);
  });

  test('faults by flag and by file, with a seed', async () => {
    server = await serveEdu(back);
    const plan = scratch.path('faults.json');
    writeFileSync(plan, JSON.stringify({ seed: 9, faults: [{ fault: 'delay', ms: 1, command: 'VERSION' }] }));
    const errno = 'errno:errno=EACCES,command=REGION_READ,nth=2';
    const proxied = await run('--faults', plan, '--fault', errno, '--seed', '4');
    const { status, stderr } = await vfioUser('read', front, 'bar0', '0');
    expect(status).toBe(1);
    expect(stderr).toMatch(/^vfio-user: REGION_READ: the server answered EACCES/);
    const outcome = await proxied.stop();
    expect(outcome.stderr).toContain('client 1: fault 1: delay 1 ms: VERSION\n');
    expect(outcome.stderr).toContain('client 1: fault 2: errno EACCES: REGION_READ\n');
    expect(outcome.stdout).toMatch(
      /\n3 faults, seed 4\n {2}fault 1: delay 1 ms: happened 2 of 2 times\n {2}fault 2: errno EACCES: happened 1 of \d+ times\n$/,
    );
  });

  test('faults of the device by the names of a map, which the log says as well', async () => {
    server = await serveEdu(back);
    const map = scratch.path('edu.json');
    writeFileSync(map, JSON.stringify(EDU_MAP));
    const proxied = await run('--log', '--map', map, '--fault', 'wrong-value:register=ID,value=0xdead,nth=1');
    expect((await vfioUser('read', front, 'bar0', '0')).stdout).toBe('0x0000dead\n');
    const outcome = await proxied.stop();
    expect(outcome.stderr).toContain('fault 1: wrong-value ID=0xdead: read of 4 bytes at bar0+0x0\n');
    expect(outcome.stdout).toMatch(/REGION_READ reply .* \(fault 1: wrong-value ID=0xdead\) ID 0x0000dead\n/);
    expect(outcome.stdout).toMatch(/\n1 fault, seed 1\n/);
  });

  test('a server that is not there yet: said at once, and to each client; it may come later', async () => {
    const proxied = await run();
    expect((await vfioUser('info', front)).status).toBe(1);
    server = await serveEdu(back);
    expect((await vfioUser('info', front)).status).toBe(0);
    const { stdout, stderr } = await proxied.stop();
    expect(stderr).toContain(`vfio-user: nothing is at ${back} yet: clients are refused until there is\n`);
    expect(stderr).toContain(
      `client 1 ended: connect: ENOENT (${back} does not exist; is the server running?`,
    );
    expect(stdout).toContain('\n2 clients, 1 of them refused\n');
  });

  test('TCP in front, an abstract socket behind', async () => {
    back = `@vfio-user-spec-${process.pid}`;
    front = 'tcp:0';
    server = await serveEdu(`\0${back.slice(1)}`);
    const proxied = await run();
    const address = /^listening on (tcp:127\.0\.0\.1:\d+)\n/.exec(proxied.said.stdout)![1]!;
    expect((await vfioUser('read', address, 'bar0', '0')).stdout).toBe('0x010000ed\n');
    await proxied.stop();
  });

  test('hundreds of clients leave no fds and no memory behind', async () => {
    server = await serveEdu(back);
    const { child: process_ } = await run('--capture', scratch.path('c.pcapng'));
    const fds = (): number => readdirSync(`/proc/${process_.pid}/fd`).length;
    const resident = (): number =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${process_.pid}/status`, 'utf8'))![1]);
    const visit = async (): Promise<void> => {
      const device = await connect(front);
      await device.irqs.msi.enable(1);
      await device.dma.alloc(4096, { addressBits: 28 });
      await device.close();
    };
    const settled = async (): Promise<number> => {
      for (let i = 0; i < 200 && fds() > first; i++) await new Promise((resolve) => setTimeout(resolve, 10));
      return fds();
    };
    const first = fds();
    for (let i = 0; i < 100; i++) await visit();
    expect(await settled()).toBe(first);
    const before = resident();
    for (let i = 0; i < 300; i++) await visit();
    expect(await settled()).toBe(first);
    // KiB; a few for what the collector has not collected yet.
    expect(resident() - before).toBeLessThan(40_000);
  });

  test('without fds left it ends connections by name, and goes on when there are some again', async () => {
    server = await serveEdu(back);
    const { child: process_, said, stop } = await run();
    const told = async (what: RegExp): Promise<void> => {
      for (let i = 0; i < 1000 && !what.test(said.stderr); i++) await new Promise((r) => setTimeout(r, 10));
      expect(said.stderr).toMatch(what);
    };
    const open = readdirSync(`/proc/${process_.pid}/fd`).length;
    const limit = (count: number): void =>
      void execFileSync('prlimit', ['--pid', String(process_.pid), `--nofile=${count}:`]);
    // One client and its connection to the server, but no fds of a message.
    limit(open + 2);
    const fds = Array.from({ length: 4 }, () => native().eventfd(0));
    const first = RawClient.connect(front);
    await told(/client 1 connected/);
    first.post(setIrqsRequest({ flags: 0x24, index: 0, start: 0, count: 4 }), fds);
    await first.end();
    await told(/client 1 ended: .*MSG_CTRUNC/);
    // Clients, but not for all of them connections to the server.
    const clients = Array.from({ length: 10 }, () => RawClient.connect(front));
    await told(/EMFILE/);
    for (const client of [first, ...clients]) client.close();
    for (const fd of fds) native().closeFd(fd);
    limit(1024);
    const device = await connect(front, { timeoutMs: 20_000 });
    await device.close();
    expect((await stop()).status).toBe(0);
  });
});

describe('obvious mistakes', () => {
  async function mistake(...args: string[]): Promise<[number | null, string]> {
    const { status, stdout, stderr } = await vfioUser('proxy', ...args);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
    return [status, stderr.slice('vfio-user: '.length, -1)];
  }

  test('a socket that somebody listens on, a file, the same socket twice', async () => {
    server = await serveEdu(back);
    const taken = await mistake('--listen', back, '--connect', front);
    expect(taken).toEqual([1, `bind: EADDRINUSE (somebody listens at ${back})`]);
    writeFileSync(front, 'precious');
    const file = await mistake('--listen', front, '--connect', back);
    expect(file).toEqual([1, `bind: EADDRINUSE (${front} is not a socket)`]);
    expect(readFileSync(front, 'utf8')).toBe('precious');
    const same = await mistake('--listen', back, '--connect', back);
    expect(same).toEqual([2, `a proxy cannot listen where its server is: ${back}`]);
  });

  test('nothing to listen on or to connect to', async () => {
    expect(await mistake('--listen', front)).toEqual([
      2,
      "required option '--connect <address>' not specified; see vfio-user proxy --help",
    ]);
    expect((await mistake('--listen', 'tcp:x:y', '--connect', back))[1]).toMatch(/^'tcp:x:y' is no address/);
    expect((await mistake('--listen', front, '--connect', 'fd:3'))[0]).toBe(2);
    expect((await mistake('--listen', 'fd:3', '--connect', back))[0]).toBe(2);
  });

  test.each([
    ['{', / is not JSON: /],
    ['{"fault": "drop"}', /is neither a list of faults nor an object with such a list as faults$/],
    ['[{"fault": "dorp"}]', /^faults\[0\]\.fault is "dorp"; it is one of delay, drop, /],
    ['[{"fault": "drop", "comand": 3}]', /^faults\[0\]\.comand is unknown to drop; it knows direction, /],
    ['{"seed": "x", "faults": []}', /^seed is "x"; it is a whole number/],
  ])('a fault file that is %s', async (text, reason) => {
    const plan = scratch.path('faults.json');
    writeFileSync(plan, text);
    const [status, line] = await mistake('--listen', front, '--connect', back, '--faults', plan);
    expect(line).toMatch(reason);
    expect(status).toBe(2);
    expect(existsSync(front)).toBe(false);
  });

  test('a fault file that is not there, and faults that make no sense', async () => {
    const [status, line] = await mistake(
      '--listen',
      front,
      '--connect',
      back,
      '--faults',
      scratch.path('none'),
    );
    expect([status, line]).toEqual([1, expect.stringContaining('ENOENT')]);
    expect((await mistake('--listen', front, '--connect', back, '--fault', 'delay'))[1]).toBe(
      "faults[0]: delay needs 'ms'",
    );
    expect((await mistake('--listen', front, '--connect', back, '--fault', 'drop:5'))[1]).toMatch(
      /'5' in 'drop:5': name=value is wanted/,
    );
    expect((await mistake('--listen', front, '--connect', back, '--seed', '5'))[1]).toMatch(/--seed needs/);
  });

  test('a capture that cannot be written, rotation without a capture', async () => {
    const [status] = await mistake(
      '--listen',
      front,
      '--connect',
      back,
      '--capture',
      scratch.path('no/where'),
    );
    expect(status).toBe(1);
    expect(existsSync(front)).toBe(false);
    const rotation = await mistake('--listen', front, '--connect', back, '--rotate-bytes', '1M');
    expect(rotation).toEqual([2, '--rotate-bytes and --rotate-files need --capture']);
  });
});
