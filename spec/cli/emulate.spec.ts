import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { EDU_MAP } from './edu-map.js';
import { MAIN, Scratch, outcomeOf, start, vfioUser } from './cli.js';

jest.setTimeout(60_000);

let scratch: Scratch;
let socket: string;
let child: ChildProcess | undefined;

beforeEach(() => {
  scratch = new Scratch();
  socket = scratch.path('edu');
});

afterEach(() => {
  child?.kill('SIGKILL');
  scratch.remove();
});

/** Starts the emulator; resolves when it says where it listens. */
async function emulate(at: string): Promise<ChildProcess> {
  child = start(['emulate', 'edu', '--socket', at]);
  // One that does not start ends, and says nothing on stdout.
  const said = await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')]);
  expect(String(said[0])).toBe(`listening on ${at}\n`);
  return child;
}

describe('emulate ram', () => {
  test('has memory that can be mapped', async () => {
    child = start(['emulate', 'ram', '--socket', socket]);
    const { stdout } = await vfioUser('info', socket, '--wait', '--json');
    const report = JSON.parse(stdout) as { regions: { mmap: unknown[] }[] };
    expect(report).toMatchObject({ vendorId: 0x1234, deviceId: 0x5241 });
    expect(report.regions[1]!.mmap.length).toBeGreaterThan(0);
  });
});

describe('emulate of a module', () => {
  const emulator = pathToFileURL(path.join(path.dirname(MAIN), '..', 'emulator', 'index.js')).href;
  const definition = `defineDevice({
    id: { vendorId: 0x1234, deviceId: 0x0042 },
    map: { format: 'vfio-user-registers/1', name: 'm', blocks: [
      { name: 'B', children: [{ name: 'ID', offset: 0, access: 'RO', reset: 0x1d }, { name: 'SQUARE', offset: 4 }] }
    ] },
    on: { SQUARE: (device, value) => device.set('SQUARE', value * value) },
  })`;

  function module(name: string, source: string): string {
    const file = scratch.path(name);
    writeFileSync(file, `import { defineDevice, PciDevice, PciConfigSpace } from '${emulator}';\n${source}`);
    return file;
  }

  test.each([
    ['a device', `export default ${definition};`],
    ['a function', `export default async () => ${definition};`],
    [
      'a class',
      `export default class Own extends PciDevice {
        constructor() { super(new PciConfigSpace({ vendorId: 1, deviceId: 2 }), []); return ${definition}; }
      }`,
    ],
  ])('whose default export is %s', async (_, source) => {
    child = start(['emulate', module('own.mjs', source), '--socket', socket]);
    expect((await vfioUser('write', socket, 'bar0', '4', '12', '--wait', '--enable')).stderr).toBe('');
    expect((await vfioUser('read', socket, 'bar0', '4', '--enable')).stdout).toBe('0x00000090\n');
    child.kill('SIGTERM');
    expect((await once(child, 'exit'))[0]).toBe(0);
  });

  test.each([
    ['nothing', 'own.mjs', 'export const a = 1, b = 2;', 'it has no default export; its exports are a, b'],
    [
      'a number',
      'own.mjs',
      'export default () => 7;',
      'what its default export gives must be a device (with regions and irqs), and is number',
    ],
    ['an object', 'own.mjs', 'export default { a: 1 };', 'and is an object with a'],
    [
      'one that contradicts itself',
      'own.mjs',
      'export default { regions: [], irqs: 7 };',
      'the device: irqs must be a list, got 7',
    ],
    ['a region of nothing', 'own.mjs', 'export default { regions: [null], irqs: [] };', 'region'],
  ])('that exports %s is refused by name', async (_, name, source, message) => {
    const file = module(name, source);
    const { status, stdout, stderr } = await vfioUser('emulate', file, '--socket', socket);
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toContain(`vfio-user: ${file}: `);
    expect(stderr).toContain(message);
    expect(stderr).toContain('ERR_VFIO_USER_DEVICE_MODULE');
    expect(existsSync(socket)).toBe(false);
  });

  test('in TypeScript, where Node runs it', async () => {
    const file = module('own.ts', `const id: number = 1;\nexport default ${definition};`);
    if ('typescript' in process.features && process.features.typescript !== false) {
      child = start(['emulate', file, '--socket', socket]);
      expect((await vfioUser('read', socket, 'bar0', '0', '--wait', '--enable')).stdout).toBe('0x0000001d\n');
      return;
    }
    const { status, stderr } = await vfioUser('emulate', file, '--socket', socket);
    expect(status).toBe(1);
    expect(stderr).toContain(
      `Node ${process.versions.node} does not run TypeScript: use Node 22.18 or later`,
    );
  });

  test('that throws says what it threw; one that is not there, and one of another kind, are named', async () => {
    const thrown = await vfioUser('emulate', module('own.mjs', "throw new Error('own')"), '--socket', socket);
    expect(thrown).toMatchObject({ status: 1, stdout: '' });
    expect(thrown.stderr).toContain('own');
    const missing = await vfioUser('emulate', './none.js', '--socket', socket);
    expect(missing.stderr).toMatch(/none\.js.*ERR_MODULE_NOT_FOUND/);
    const other = await vfioUser('emulate', './own.py', '--socket', socket);
    expect(other).toMatchObject({ status: 2, stdout: '' });
    expect(other.stderr).toContain("a module's name ends with .js, .mjs, .cjs, .ts, .mts or .cts");
    const unknown = await vfioUser('emulate', 'uart', '--socket', socket);
    expect(unknown).toMatchObject({ status: 2, stdout: '' });
    expect(unknown.stderr).toContain(
      'It is edu, ram, nvme, virtio-blk, virtio-scsi, virtio-rng, or a module such as ./uart.js; see',
    );
  });
});

describe('emulate edu', () => {
  test.each(['SIGINT', 'SIGTERM'] as const)('serves until %s, and removes its socket', async (signal) => {
    const server = await emulate(socket);
    expect((await vfioUser('read', socket, 'bar0', '0')).stdout).toBe('0x010000ed\n');
    server.kill(signal);
    const [status] = (await once(server, 'exit')) as [number | null];
    expect(status).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  test('faults by the names of a map: each is told of, and all at the end', async () => {
    const map = scratch.path('edu.json');
    writeFileSync(map, JSON.stringify(EDU_MAP));
    const faults = scratch.path('faults.json');
    const lost = { fault: 'lost-write', register: 'LIVENESS', nth: 1 };
    writeFileSync(faults, JSON.stringify({ seed: 5, faults: [lost] }));
    const typed = ['--fault', 'wrong-value:register=ID,value=0xdead,nth=2'];
    child = start(['emulate', 'edu', '--socket', socket, '--map', map, '--faults', faults, ...typed]);
    const outcome = outcomeOf(child);
    expect((await vfioUser('read', socket, 'bar0', '0', '--wait')).stdout).toBe('0x010000ed\n');
    expect((await vfioUser('read', socket, 'bar0', '0')).stdout).toBe('0x0000dead\n');
    await vfioUser('write', socket, 'bar0', '4', '0', '--timeout', '30000');
    const { stdout } = await vfioUser('read', socket, 'bar0', '4', '--timeout', '30000');
    expect(stdout).toBe('0x00000000\n');
    child.kill('SIGINT');
    expect(await outcome).toMatchObject({
      status: 0,
      stderr:
        'fault 2: wrong-value ID=0xdead: read of 4 bytes at bar0+0x0\n' +
        'fault 1: lost-write LIVENESS: write of 4 bytes at bar0+0x4\n',
      stdout:
        `listening on ${socket}\n2 faults, seed 5\n` +
        '  fault 1: lost-write LIVENESS: happened 1 of 1 time\n' +
        '  fault 2: wrong-value ID=0xdead: happened 1 of 2 times\n',
    });
  });

  test.each([
    ['drop', 'drop happens to messages: vfio-user proxy has such faults'],
    ['lost-write:register=ID', 'faults[0].register is "ID", and there is no map of names'],
    ['stuck-bits:region=bar0,offset=0', "faults[0]: stuck-bits needs 'value'"],
  ])('--fault %s is wrong usage', async (fault, reason) => {
    const { status, stderr } = await vfioUser('emulate', 'edu', '--socket', socket, '--fault', fault);
    expect([status, stderr.split('\n')[0]]).toEqual([2, `vfio-user: ${reason}`]);
    expect(existsSync(socket)).toBe(false);
  });

  test('a server that a fault kills ends, and says so', async () => {
    child = start(['emulate', 'edu', '--socket', socket, '--fault', 'server-killed:region=bar0,nth=1']);
    const outcome = outcomeOf(child);
    expect((await vfioUser('read', socket, 'bar0', '0', '--wait')).status).toBe(1);
    expect((await outcome).stdout).toContain('fault 1: server-killed: happened 1 of 1 time\n');
  });

  test('one client after the other finds the device as it was left', async () => {
    await emulate(socket);
    await vfioUser('write', socket, 'bar0', '4', '0');
    expect((await vfioUser('read', socket, 'bar0', '4')).stdout).toBe('0xffffffff\n');
  });

  test('on an abstract socket', async () => {
    const name = `@vfio-user-spec-${process.pid}`;
    await emulate(name);
    expect((await vfioUser('read', name, 'bar0', '0')).stdout).toBe('0x010000ed\n');
  });

  test('--wait finds a server that starts later', async () => {
    const info = vfioUser('info', socket, '--json', '--wait', '--timeout', '20000');
    await emulate(socket);
    expect(await info).toMatchObject({ status: 0, stderr: '' });
  });

  test('does not take a socket that somebody listens on, or a file', async () => {
    await emulate(socket);
    const second = await outcomeOf(start(['emulate', 'edu', '--socket', socket]));
    expect(second).toMatchObject({ status: 1, stdout: '' });
    expect(second.stderr).toMatch(/^vfio-user: bind: EADDRINUSE \(.*\)\n$/);
    const file = scratch.path('file');
    writeFileSync(file, 'precious');
    expect((await vfioUser('emulate', 'edu', '--socket', file)).stderr).toMatch(/is not a socket/);
    expect(existsSync(file)).toBe(true);
  });

  test.each(['tcp:4420', 'tcp:127.0.0.1:0', 'fd:3', 'vsock:3:4420'])(
    'nor makes a file that is called %s',
    async (name) => {
      for (const verb of [
        ['emulate', 'edu'],
        ['replay', 'dev.pcapng'],
      ]) {
        const { status, stdout, stderr } = await vfioUser(...verb, '--socket', name);
        expect([status, stdout]).toEqual([2, '']);
        expect(stderr).toContain(`vfio-user: --socket is a path or @name, not '${name}'`);
        expect(stderr.includes('`vfio-user proxy` listens on TCP')).toBe(name.startsWith('tcp:'));
        expect(existsSync(name)).toBe(false);
      }
    },
  );
});
