/** An exit status of 0 says that what was asked for was done. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { EduDevice, MemoryStore, NvmeDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { MAIN, Scratch, environment, outcomeOf, start, vfioUser, type Outcome } from './cli.js';
import { PatternDevice } from './emulator.js';

jest.setTimeout(120_000);

const REGION_WRITE = 10;
const GPIO = fileURLToPath(new URL('../fixtures/gpio.pcapng', import.meta.url));

let scratch: Scratch;
let socket: string;
let nvmeSocket: string;
let servers: EmulatorServer[];
let nvme: NvmeDevice;
let device: PatternDevice;
let refuseWrites: (offset: number) => boolean;

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('device');
  nvmeSocket = scratch.path('nvme');
  device = new PatternDevice();
  refuseWrites = () => false;
  nvme = new NvmeDevice({ namespaces: [{ store: new MemoryStore(8 << 20) }] });
  servers = [
    await serve(device, {
      path: socket,
      intercept: ({ command, payload }) =>
        command === REGION_WRITE &&
        payload.readUInt32LE(8) === 0 &&
        refuseWrites(Number(payload.readBigUInt64LE(0)))
          ? { errno: 5 }
          : undefined,
    }),
    await serve(new EduDevice(), { path: scratch.path('edu') }),
    await serve(nvme, { path: nvmeSocket }),
  ];
});

afterEach(async () => {
  for (const server of servers) await server.close();
  await nvme.close();
  scratch.remove();
});

/** What prints, each a line of arguments. */
const PRINTING: Record<string, () => string[]> = {
  '--help': () => ['--help'],
  '--version': () => ['--version'],
  help: () => ['help', 'read'],
  completion: () => ['completion', 'bash'],
  info: () => ['info', socket],
  'info --json': () => ['info', socket, '--json'],
  lspci: () => ['lspci', socket],
  read: () => ['read', socket, 'bar0', '0', '64'],
  dump: () => ['dump', socket, 'bar0'],
  config: () => ['config', socket],
  'config register': () => ['config', socket, 'VENDOR_ID'],
  'config --names': () => ['config', '--names'],
  'nvme identify': () => ['nvme', 'identify', nvmeSocket],
  'nvme smart': () => ['nvme', 'smart', nvmeSocket],
  'nvme read': () => ['nvme', 'read', nvmeSocket],
  reset: () => ['reset', scratch.path('edu')],
  'bench region': () => ['bench', 'region', socket, '--region', '0', '--count', '10'],
  doctor: () => ['doctor', scratch.path('edu'), '--only', 'version'],
  emulate: () => ['emulate', 'edu', '--socket', scratch.path('own')],
  'irq watch': () => {
    const enable = ['--enable', '--write', 'bar0:0x60=1'];
    return ['irq', 'watch', scratch.path('edu'), '--index', 'msi', '--count', '1', ...enable];
  },
  repl: () => ['repl', scratch.path('edu')],
  replay: () => ['replay', GPIO, '--socket', scratch.path('own')],
  proxy: () => ['proxy', '--listen', scratch.path('own'), '--connect', socket],
};

/** For what reads stdin. */
const SCRIPT = '1 + 1\nawait new Promise((resolve) => setTimeout(resolve, 100))\n2 + 2\n';

/** Runs it with stdout on what takes nothing. */
async function withStdout(
  stdout: number,
  args: readonly string[],
): Promise<Omit<Outcome, 'stdout' | 'bytes'>> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ['pipe', stdout, 'pipe'],
    env: environment(),
  });
  child.stdin!.on('error', () => undefined);
  child.stdin!.end(SCRIPT);
  let stderr = '';
  child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, stderr };
}

describe('stdout that takes no more', () => {
  test.each(Object.entries(PRINTING))('a disk that is full: %s', async (_name, args) => {
    const full = openSync('/dev/full', 'w');
    try {
      const { status, stderr } = await withStdout(full, args());
      expect(stderr).toMatch(/^vfio-user: ENOSPC[^\n]+\n$/);
      expect(status).toBe(1);
    } finally {
      closeSync(full);
    }
  });

  const some = ['--help', 'info', 'dump', 'nvme read', 'doctor', 'repl', 'emulate', 'proxy'];
  test.each(some.map((name) => [name, PRINTING[name]!] as const))(
    'a reader that has gone, as SIGPIPE would: %s',
    async (_name, args) => {
      // The shell's end of the pipe is closed before the program begins.
      const shell = `exec 3> >(:); wait $!; '${process.execPath}' '${MAIN}' ${args().join(' ')} >&3`;
      const child = spawn('bash', ['-c', shell], { stdio: 'pipe', env: environment() });
      child.stdin.on('error', () => undefined);
      child.stdin.end(SCRIPT);
      const { status, stderr } = await outcomeOf(child);
      expect({ status, stderr }).toEqual({ status: 141, stderr: '' });
    },
  );

  test('a file that ends in the middle of a write', async () => {
    const file = scratch.path('file');
    // SIGXFSZ ends the process otherwise; a block of ulimit is 1 KiB.
    const shell = `trap '' XFSZ; ulimit -f 1; exec '${process.execPath}' '${MAIN}' dump ${socket} bar0 --length 1500 > ${file}`;
    const { status, stderr } = await outcomeOf(
      spawn('bash', ['-c', shell], { stdio: 'pipe', env: environment() }),
    );
    expect(stderr).toMatch(/^vfio-user: EFBIG[^\n]+\n$/);
    expect(status).toBe(1);
  });

  test('stderr that nobody reads does not change the status', async () => {
    const shell = `exec 3> >(:); wait $!; '${process.execPath}' '${MAIN}' info ${scratch.path('none')} 2>&3`;
    const { status } = await outcomeOf(spawn('bash', ['-c', shell], { stdio: 'pipe', env: environment() }));
    expect(status).toBe(1);
  });
});

describe('vfio-user write --input', () => {
  const CHUNK = 1 << 16;

  test('says how much was written where it fails', async () => {
    const file = scratch.path('file');
    writeFileSync(file, Buffer.alloc(3 * CHUNK));
    refuseWrites = (offset) => offset >= 2 * CHUNK;
    const { status, stderr } = await vfioUser('write', socket, 'bar0', '0', '--input', file, '--enable');
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /^vfio-user: REGION_WRITE[^\n]+; at least the first 128 KiB have been written[^\n]*\n$/,
    );
    refuseWrites = () => true;
    const nothing = await vfioUser('write', socket, 'bar0', '0', '--input', file, '--enable');
    expect(nothing.stderr).toContain('; nothing is sure to have been written');
  });
});

describe('vfio-user nvme write', () => {
  async function write(input: Buffer, stop?: (child: ReturnType<typeof start>) => void): Promise<Outcome> {
    const child = start(['nvme', 'write', nvmeSocket]);
    child.stdin!.on('error', () => undefined);
    if (stop === undefined) child.stdin!.end(input);
    else {
      child.stdin!.write(input);
      stop(child);
    }
    return outcomeOf(child);
  }

  test('says how much was written where the controller fails', async () => {
    nvme.intercept = ({ queue, opcode, lba }) =>
      queue > 0 && opcode === 1 && lba >= 4096n ? { status: 0x280 } : undefined;
    const { status, stderr } = await write(Buffer.alloc(4 << 20));
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /; the first 4096 blocks have been written, but perhaps some of the next 2048 blocks \[ERR_NVME_WRITE_FAULT\]\n$/,
    );
  });

  test('and where it is interrupted while it waits for more', async () => {
    const written = new Promise<void>((resolve) => {
      nvme.intercept = ({ queue, opcode, lba }) => {
        if (queue > 0 && opcode === 1 && lba >= 2048n + 1792n) resolve();
        return undefined;
      };
    });
    const { status, stderr } = await write(Buffer.alloc(2 << 20), (child) => {
      void written.then(() => child.kill('SIGINT'));
    });
    expect(status).toBe(1);
    expect(stderr).toBe('vfio-user: interrupted; the first 4096 blocks have been written [EINTR]\n');
  });

  test('nothing at all on stdin is a failure', async () => {
    const { status, stderr } = await write(Buffer.alloc(0));
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: 'vfio-user: stdin is empty; nothing has been written\n',
    });
  });

  test('more than there is room for', async () => {
    const { status, stderr } = await write(Buffer.alloc(9 << 20));
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr:
        'vfio-user: there is more data than room: namespace 1 has 16384 blocks; the first 16384 blocks have been written\n',
    });
  });
});

describe('vfio-user nvme identify', () => {
  test('shows the rest beside a namespace that makes no sense', async () => {
    const path = scratch.path('three');
    const namespaces = [1, 2, 3].map(() => ({ store: new MemoryStore(1 << 20) }));
    const three = new NvmeDevice({ namespaces });
    const IDENTIFY = 6;
    three.intercept = ({ queue, opcode, namespace }) =>
      queue === 0 && opcode === IDENTIFY && namespace === 2 ? { status: 0x06 } : undefined;
    await using _server = await serve(three, { path });
    const { status, stdout, stderr } = await vfioUser('nvme', 'identify', path);
    expect(status).toBe(1);
    expect(stdout).toMatch(/\nNamespace 1\n[^]*\nNamespace 3\n/);
    expect(stderr).toMatch(
      /^vfio-user: namespace 2: [^\n]*INTERNAL_ERROR[^\n]*\[ERR_VFIO_USER_INCOMPLETE\]\n$/,
    );
    const json = await vfioUser('nvme', 'identify', path, '--json');
    expect(json.status).toBe(1);
    expect(JSON.parse(json.stdout)).toMatchObject({
      namespaces: [{ id: 1 }, { id: 3 }],
      unreadable: [{ id: 2 }],
    });
    expect((await vfioUser('nvme', 'identify', path, '--nsid', '1')).status).toBe(0);
    await three.close();
  });
});

describe('vfio-user nvme list', () => {
  test('lists the rest beside a namespace that makes no sense, and a controller that is not there', async () => {
    const path = scratch.path('two');
    const two = new NvmeDevice({ namespaces: [1, 2].map(() => ({ store: new MemoryStore(1 << 20) })) });
    const IDENTIFY = 6;
    two.intercept = ({ queue, opcode, namespace }) =>
      queue === 0 && opcode === IDENTIFY && namespace === 1 ? { status: 0x06 } : undefined;
    await using _server = await serve(two, { path });
    const none = scratch.path('none');
    const { status, stdout, stderr } = await vfioUser('nvme', 'list', none, path, '-o', 'json');
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ Devices: [{ NameSpace: 2, DevicePath: path }] });
    expect(stderr).toMatch(
      /^vfio-user: [^\n]*ENOENT[^\n]*; [^\n]*two: namespace 1: [^\n]*INTERNAL_ERROR[^\n]*\[ERR_VFIO_USER_INCOMPLETE\]\n$/,
    );
    const nothing = await vfioUser('nvme', 'list', none);
    expect(nothing).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('ENOENT') });
    await two.close();
  });
});

describe('vfio-user doctor', () => {
  async function doctor(...args: string[]): Promise<Outcome> {
    return vfioUser('doctor', ...args);
  }

  test('no server', async () => {
    const { status, stdout, stderr } = await doctor(scratch.path('none'), '--json');
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /^vfio-user: not all could be tried: the server cannot be reached: connect: ENOENT \[ERR_VFIO_USER_DIAGNOSIS_INCOMPLETE\]\n$/,
    );
    expect(JSON.parse(stdout)).toMatchObject({
      summary: { kept: 0, broken: 0 },
      incomplete: expect.any(String),
    });
  });

  test('a rule that is misspelt', async () => {
    const { status, stdout, stderr } = await doctor(scratch.path('edu'), '--only', 'vresion');
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(
      /^vfio-user: no probe or rule begins with 'vresion': the rules begin with version, /,
    );
  });

  test('nothing that could run', async () => {
    const { status, stderr } = await doctor(scratch.path('edu'), '--only', 'dma.');
    expect(status).toBe(1);
    expect(stderr).toMatch(/^vfio-user: nothing was tried: it changes state: not read-only \[/);
    expect((await doctor(scratch.path('edu'), '--only', 'dma.', '--write')).status).toBe(0);
  });

  test('a server that serves one client and no more', async () => {
    const child = start(['replay', GPIO, '--socket', scratch.path('one')]);
    const ended = outcomeOf(child);
    await once(child.stdout!, 'data');
    const { status, stderr } = await doctor(scratch.path('one'));
    expect(status).toBe(1);
    expect(stderr).toMatch(/not all could be tried: |rules? of the specification broken/);
    await ended;
  });

  test('all is well', async () => {
    const { status, stderr } = await doctor(scratch.path('edu'), '--gentle');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  });

  test('--wait waits for the socket', async () => {
    const path = scratch.path('late');
    const outcome = doctor(path, '--only', 'version', '--wait');
    await new Promise((resolve) => setTimeout(resolve, 300));
    servers.push(await serve(new EduDevice(), { path }));
    expect((await outcome).status).toBe(0);
  });
});

describe('vfio-user replay', () => {
  test('that is interrupted before a client has come', async () => {
    const child = start(['replay', GPIO, '--socket', scratch.path('replay')]);
    const outcome = outcomeOf(child);
    await once(child.stdout!, 'data');
    child.kill('SIGINT');
    const { status, stderr } = await outcome;
    expect(status).toBe(1);
    expect(stderr).toBe('vfio-user: interrupted before a client had been served [EINTR]\n');
  });

  test('that is to serve until it is interrupted', async () => {
    const child = start(['replay', GPIO, '--socket', scratch.path('replay'), '--keep']);
    const outcome = outcomeOf(child);
    await once(child.stdout!, 'data');
    child.kill('SIGINT');
    expect((await outcome).status).toBe(0);
  });
});

describe('a capture that is asked for and cannot be written to its end', () => {
  test('is a failure, whatever else was done', async () => {
    const { VFIO_USER_CAPTURE: _, ...rest } = environment();
    const child = spawn(process.execPath, [MAIN, 'info', socket], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...rest, VFIO_USER_CAPTURE: '/dev/full' },
    });
    const { status, stderr } = await outcomeOf(child);
    expect(status).toBe(1);
    expect(stderr).toMatch(/ENOSPC/);
  });
});
