/** A device on another machine: TLS with a verified certificate, ssh with a real sshd on loopback, AF_VSOCK. */
import { afterAll, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer as createTcpServer, connect as connectTcp, type AddressInfo } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { connect as connectTls, createServer } from 'node:tls';
import {
  RAM_IDENTIFICATION,
  RamDevice,
  serve,
  serveStream,
  type EmulatorServer,
} from '../../lib/emulator/index.js';
import { TimeoutError, TransportError, connect, type Device } from '../../lib/index.js';
import { proxy } from '../../lib/proxy/index.js';
import { Scratch, outcomeOf, vfioUser } from '../cli/cli.js';
import { until } from '../support/until.js';

jest.setTimeout(60_000);

const has = (program: string, ...args: string[]) => spawnSync(program, args).error === undefined;
const SSHD = '/usr/sbin/sshd';
const withOpenssl = has('openssl', 'version') ? describe : describe.skip;
const withSsh = existsSync(SSHD) && has('ssh', '-V') ? describe : describe.skip;

async function expectDevice(device: Device): Promise<void> {
  try {
    expect(await device.bar(0).readUInt32(0)).toBe(RAM_IDENTIFICATION);
    const bytes = Buffer.from(Array.from({ length: 50_000 }, (_, i) => (i * 17) & 0xff));
    await device.bar(2).write(0, bytes);
    expect((await device.bar(2).read(0, bytes.length)).equals(bytes)).toBe(true);
  } finally {
    await device.close();
  }
}

function run(program: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program}: ${stderr}`);
}

withOpenssl('TLS (needs openssl)', () => {
  const scratch = new Scratch();
  const key = scratch.path('key.pem');
  const certificate = scratch.path('certificate.pem');

  beforeAll(() => {
    const subject = ['-subj', '/CN=device.test', '-addext', 'subjectAltName=DNS:device.test'];
    const files = ['-keyout', key, '-out', certificate];
    run('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...subject, ...files);
  });

  afterAll(() => scratch.remove());

  async function withServer(work: (port: number) => Promise<void>): Promise<void> {
    const options = { key: readFileSync(key), cert: readFileSync(certificate) };
    const servers: EmulatorServer[] = [];
    const listener = createServer(options, (socket) => {
      servers.push(serveStream(new RamDevice({ sharedSize: 0 }), socket));
    });
    listener.on('tlsClientError', () => undefined);
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    try {
      await work((listener.address() as AddressInfo).port);
    } finally {
      for (const server of servers) await server.close();
      listener.close();
    }
  }

  const dial = (port: number, servername: string, ca?: Buffer) => async (): Promise<Duplex> => {
    const socket = connectTls({ host: '127.0.0.1', port, servername, ...(ca && { ca }) });
    await once(socket, 'secureConnect');
    return socket;
  };

  test('a certificate that is trusted', () =>
    withServer(async (port) => {
      const ca = readFileSync(certificate);
      await expectDevice(await connect({ dial: dial(port, 'device.test', ca), name: 'tls' }));
    }));

  test('an address, tls://, with the name that the certificate must have', () =>
    withServer(async (port) => {
      const ca = readFileSync(certificate);
      const address = `tls://127.0.0.1:${port}`;
      await expectDevice(await connect(address, { tls: { ca, servername: 'device.test' } }));
      const untrusted = connect(address, { tls: { servername: 'device.test' } });
      await expect(untrusted).rejects.toMatchObject({
        code: 'ERR_VFIO_USER_TLS',
        message: expect.stringContaining('DEPTH_ZERO_SELF_SIGNED_CERT'),
      });
      const others = connect(address, { tls: { ca } });
      await expect(others).rejects.toThrow(/ERR_TLS_CERT_ALTNAME_INVALID/);
      await expect(connect(address, { tls: { ca: 'no PEM' } })).rejects.toMatchObject({
        code: 'ERR_VFIO_USER_TLS',
      });
      await expect(connect(address, { tls: { ca: 7 as never } })).rejects.toThrow(/tls\.ca must be PEM/);
    }));

  test('the same on the command line, and through the proxy', () =>
    withServer(async (port) => {
      const address = `tls://127.0.0.1:${port}`;
      const options = ['--tls-ca', certificate, '--tls-servername', 'device.test'];
      const read = await vfioUser('read', address, 'bar0', '0', '--enable', ...options);
      expect(read).toMatchObject({ status: 0, stderr: '', stdout: `0x${RAM_IDENTIFICATION.toString(16)}\n` });
      const half = await vfioUser('info', address, '--tls-cert', certificate);
      expect(half).toMatchObject({ status: 2, stderr: expect.stringContaining('need each other') });
      const tls = { ca: readFileSync(certificate), servername: 'device.test' };
      await using between = await proxy({ listen: scratch.path('front'), connect: address, tls });
      await expectDevice(await connect(between.address));
    }));

  test('a server that speaks no TLS, or says nothing, ends in time', async () => {
    const greeting = createTcpServer((socket) => void socket.on('error', () => undefined).end('hello\r\n'));
    const silent = createTcpServer((socket) => void socket.on('error', () => undefined));
    for (const one of [greeting, silent]) {
      one.listen(0, '127.0.0.1');
      await once(one, 'listening');
    }
    const [first, second] = [greeting, silent].map(
      (one) => `tls://127.0.0.1:${(one.address() as AddressInfo).port}`,
    );
    await expect(connect(first!)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_TLS' });
    await expect(connect(second!, { timeoutMs: 200 })).rejects.toThrow(TimeoutError);
    for (const one of [greeting, silent]) one.close();
    await expect(connect(second!)).rejects.toThrow(TransportError);
  });

  test('one that is not trusted, or is somebody else’s, is refused', () =>
    withServer(async (port) => {
      const ca = readFileSync(certificate);
      await expect(connect({ dial: dial(port, 'device.test') })).rejects.toThrow(/self.signed/);
      await expect(connect({ dial: dial(port, 'other.test', ca) })).rejects.toThrow(/altnames/);
    }));
});

withSsh('ssh (needs sshd)', () => {
  const scratch = new Scratch();
  const socket = scratch.path('device');
  let sshd: ChildProcess;
  let server: EmulatorServer;
  let arguments_: string[];

  beforeAll(async () => {
    for (const name of ['host', 'user']) {
      run('ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', scratch.path(name));
    }
    const probe = createTcpServer().listen(0, '127.0.0.1');
    await once(probe, 'listening');
    const { port } = probe.address() as AddressInfo;
    await new Promise((resolve) => probe.close(resolve));
    writeFileSync(scratch.path('authorized'), readFileSync(scratch.path('user.pub')));
    chmodSync(scratch.path('authorized'), 0o600);
    const config = [
      `Port ${port}`,
      'ListenAddress 127.0.0.1',
      `HostKey ${scratch.path('host')}`,
      `PidFile ${scratch.path('pid')}`,
      `AuthorizedKeysFile ${scratch.path('authorized')}`,
      'StrictModes no',
      'PasswordAuthentication no',
      'PermitRootLogin prohibit-password',
      'UsePAM no',
    ];
    writeFileSync(scratch.path('sshd_config'), `${config.join('\n')}\n`);
    const hostKey = readFileSync(scratch.path('host.pub'), 'utf8');
    writeFileSync(scratch.path('known'), `[127.0.0.1]:${port} ${hostKey}`);
    // Where sshd wants its directory: it goes with a boot.
    if (userInfo().uid === 0) mkdirSync('/run/sshd', { recursive: true });
    sshd = spawn(SSHD, ['-D', '-e', '-f', scratch.path('sshd_config')], { stdio: 'ignore' });
    const options = ['BatchMode=yes', 'StrictHostKeyChecking=yes', 'IdentitiesOnly=yes'];
    arguments_ = ['-F', 'none', '-p', String(port), '-i', scratch.path('user')];
    for (const option of [
      ...options,
      `UserKnownHostsFile=${scratch.path('known')}`,
      'ConnectionAttempts=20',
    ]) {
      arguments_.push('-o', option);
    }
    server = await serve(new RamDevice({ sharedSize: 0 }), { path: socket });
  });

  afterAll(async () => {
    sshd.kill();
    await server.close();
    scratch.remove();
  });

  const host = `${userInfo().username}@127.0.0.1`;

  describe('ssh://', () => {
    let path: string | undefined;

    /** The system's ssh, with the configuration that a user would have in ~/.ssh/config. */
    beforeAll(() => {
      mkdirSync(scratch.path('bin'));
      const quoted = arguments_.map((one) => `'${one}'`).join(' ');
      const { stdout } = spawnSync('sh', ['-c', 'command -v ssh'], { encoding: 'utf8' });
      writeFileSync(scratch.path('bin/ssh'), `#!/bin/sh\nexec ${stdout.trim()} ${quoted} "$@"\n`);
      chmodSync(scratch.path('bin/ssh'), 0o700);
      path = process.env['PATH'];
      process.env['PATH'] = `${scratch.path('bin')}:${path}`;
    });

    afterAll(() => {
      process.env['PATH'] = path;
    });

    const all = () => readdirSync(tmpdir()).filter((name) => name.startsWith('vfio-user-ssh-'));
    let before: string[];

    beforeEach(() => {
      before = all();
    });

    /** Directories that have stayed. */
    const tunnels = () => all().filter((name) => !before.includes(name));

    test('a Unix socket of the other machine; nothing of it stays', async () => {
      await expectDevice(await connect(`ssh://${host}${socket}`, { timeoutMs: 30_000 }));
      await until(() => tunnels().length === 0);
      const { status, stdout, stderr } = await vfioUser(
        ...['read', `ssh://${host}${socket}`, 'bar0', '0', '--enable', '--timeout', '30000'],
      );
      expect([status, stdout, stderr]).toEqual([0, `0x${RAM_IDENTIFICATION.toString(16)}\n`, '']);
      expect(tunnels()).toEqual([]);
    });

    test('a path where nobody listens, and a host that is not reached, are said', async () => {
      const nobody = connect(`ssh://${host}${scratch.path('none')}`, { timeoutMs: 30_000 });
      await expect(nobody).rejects.toThrow(/open failed|closed before anything came/);
      const elsewhere = connect(`ssh://nobody@127.0.0.1${socket}`, { timeoutMs: 30_000 });
      await expect(elsewhere).rejects.toMatchObject({
        code: 'ERR_VFIO_USER_SSH',
        message: expect.stringMatching(/Permission denied|Connection closed/),
      });
      await until(() => tunnels().length === 0);
    });

    test('no ssh, and an ssh that never comes through', async () => {
      const PATH = process.env['PATH'];
      try {
        process.env['PATH'] = '/nonexistent';
        await expect(connect(`ssh://${host}${socket}`)).rejects.toMatchObject({
          code: 'ERR_VFIO_USER_SSH',
          message: expect.stringContaining('there is no ssh on this machine'),
        });
        mkdirSync(scratch.path('slow'));
        writeFileSync(scratch.path('slow/ssh'), '#!/bin/sh\nexec sleep 60\n');
        chmodSync(scratch.path('slow/ssh'), 0o700);
        process.env['PATH'] = `${scratch.path('slow')}:${PATH}`;
        await expect(connect(`ssh://${host}${socket}`, { timeoutMs: 300 })).rejects.toThrow(TimeoutError);
        await expect(
          connect(`ssh://${host}${socket}`, { signal: AbortSignal.timeout(200) }),
        ).rejects.toMatchObject({ name: 'TimeoutError' });
        await until(() => tunnels().length === 0);
      } finally {
        process.env['PATH'] = PATH;
      }
    });
  });

  test('a forwarded Unix socket: ssh -L', async () => {
    const local = scratch.path('forwarded');
    const ssh = spawn('ssh', [...arguments_, '-N', '-L', `${local}:${socket}`, host], { stdio: 'inherit' });
    try {
      // Nobody else creates it: waiting for the file alone opens no connection that would be closed at once.
      for (let tries = 0; !existsSync(local) && tries < 500; tries++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      // The relay passes no fds: the path is dialled as a stream.
      const dial = async (): Promise<Duplex> => {
        const stream = connectTcp(local);
        await once(stream, 'connect');
        return stream;
      };
      await expectDevice(await connect({ dial, name: 'ssh -L' }));
    } finally {
      const exited = once(ssh, 'exit');
      ssh.kill();
      await exited;
    }
  });

  test("a port of that machine's by ssh's own stdio: ssh -W", async () => {
    // The emulator does not listen on TCP; on loopback alone, this hands its socket on.
    const relay = createTcpServer((client) => {
      const device = connectTcp(socket);
      client.pipe(device).pipe(client);
      for (const end of [client, device]) end.on('error', () => undefined);
    }).listen(0, '127.0.0.1');
    await once(relay, 'listening');
    const { port } = relay.address() as AddressInfo;
    const ssh = spawn('ssh', [...arguments_, '-W', `127.0.0.1:${port}`, host], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const exited = once(ssh, 'exit');
    try {
      const stream = Duplex.from({ readable: ssh.stdout, writable: ssh.stdin });
      await expectDevice(await connect({ stream, name: 'ssh -W' }, { timeoutMs: 20_000 }));
    } finally {
      ssh.kill();
      await exited;
      await new Promise((resolve) => relay.close(resolve));
    }
  });

  /** The block of docs/remote-devices.md that has `what` in it, as it is but for the names in it. */
  function fromGuide(what: string, names: Record<string, string>): string {
    const guide = readFileSync(new URL('../../docs/remote-devices.md', import.meta.url), 'utf8');
    const blocks = [...guide.matchAll(/```(?:js|sh)\n([^]*?)```/g)].map(([, block]) => block!);
    const [block, ...more] = blocks.filter((one) => one.includes(what));
    if (block === undefined || more.length > 0)
      throw new Error(`docs/remote-devices.md has not one block with ${what}`);
    return Object.entries(names).reduce((text, [name, own]) => text.replaceAll(name, own), block);
  }

  /** Runs a program of the guide's in this package, where it finds 'vfio-user' and an ssh that knows our sshd. */
  async function runProgram(source: string, env: NodeJS.ProcessEnv): Promise<string> {
    const directory = mkdtempSync(fileURLToPath(new URL('../../build/remote-', import.meta.url)));
    try {
      const file = `${directory}/program.mjs`;
      writeFileSync(file, source);
      const child = spawn(process.execPath, [file], { env, stdio: ['ignore', 'pipe', 'pipe'] });
      const { status, stdout, stderr } = await outcomeOf(child);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      return stdout;
    } finally {
      rmSync(directory, { recursive: true });
    }
  }

  /** An ssh with the options of this spec, found before the other one. */
  function sshInPath(): NodeJS.ProcessEnv {
    const quoted = arguments_.map((argument) => `'${argument}'`).join(' ');
    const original = spawnSync('sh', ['-c', 'command -v ssh'], { encoding: 'utf8' }).stdout.trim();
    mkdirSync(scratch.path('bin'), { recursive: true });
    writeFileSync(scratch.path('bin/ssh'), `#!/bin/sh\nexec ${original} ${quoted} "$@"\n`, { mode: 0o755 });
    return { ...process.env, PATH: `${scratch.path('bin')}:${process.env['PATH'] ?? ''}` };
  }

  test("the guide's example of ssh's stdio", async () => {
    // socat is not everywhere.
    const relay = fileURLToPath(new URL('../support/unix-stdio.mjs', import.meta.url));
    const names = {
      'socat STDIO UNIX-CONNECT:/tmp/edu.sock': `${process.execPath} ${relay} ${socket}`,
      'user@lab': host,
    };
    expect(await runProgram(fromGuide("'socat STDIO", names), sshInPath())).toBe('1234\n');
  });

  test("the guide's example of ssh -L", async () => {
    const local = scratch.path('local');
    const names = { '/run/device.sock': socket, 'user@lab': host, '/tmp/edu.sock': local };
    const env = sshInPath();
    const ssh = spawn('sh', ['-c', `exec ${fromGuide('ssh -N', names)}`], { env, stdio: 'inherit' });
    const exited = once(ssh, 'exit');
    try {
      for (let tries = 0; !existsSync(local) && tries < 500; tries++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      expect(await runProgram(fromGuide("net.connect('/tmp", names), env)).toBe('1234\n');
    } finally {
      ssh.kill();
      await exited;
    }
  });

  test("ssh's stdio with a server as the remote command", async () => {
    const script = fileURLToPath(new URL('../support/stdio-server.mjs', import.meta.url));
    const environment = process.env['VFIO_USER_ADDON'];
    const prefix = environment === undefined ? '' : `VFIO_USER_ADDON='${environment}' `;
    const command = `${prefix}'${process.execPath}' '${script}'`;
    const ssh = spawn('ssh', [...arguments_, host, command], { stdio: ['pipe', 'pipe', 'inherit'] });
    const stream = Duplex.from({ readable: ssh.stdout, writable: ssh.stdin });
    await expectDevice(await connect({ stream, name: 'ssh' }, { timeoutMs: 20_000 }));
    const exited = once(ssh, 'exit');
    ssh.kill();
    await exited;
  });
});

/** Whether the kernel carries vsock to itself. */
const vsockLoopback =
  existsSync('/sys/module/vsock_loopback') && has('socat', '-V') ? describe : describe.skip;

vsockLoopback('AF_VSOCK (needs vsock_loopback and socat)', () => {
  test('a device at cid 1', async () => {
    const scratch = new Scratch();
    const path = scratch.path('device');
    const server = await serve(new RamDevice({ sharedSize: 0 }), { path });
    const port = 40_000 + (process.pid % 10_000);
    const relay = spawn('socat', [`VSOCK-LISTEN:${port},fork`, `UNIX-CONNECT:${path}`], { stdio: 'inherit' });
    try {
      await new Promise((resolve) => setTimeout(resolve, 500));
      const device = await connect({ vsock: { cid: 1, port } });
      await expect(device.irqs.msix.enable(1)).rejects.toThrow(/no file descriptor can be passed/);
      await expectDevice(device);
    } finally {
      relay.kill();
      await server.close();
      scratch.remove();
    }
  });
});

describe('AF_VSOCK addresses', () => {
  test('what is none is refused, and a port that nobody listens on fails by name within the time', async () => {
    await expect(connect({ vsock: { cid: -1, port: 1 } })).rejects.toThrow(RangeError);
    await expect(connect({ vsock: { cid: 1, port: 2 ** 32 } })).rejects.toThrow(RangeError);
    const failed: unknown = await connect({ vsock: { cid: 1, port: 9 } }, { timeoutMs: 300 }).catch(
      (error: unknown) => error,
    );
    expect(failed instanceof TransportError || failed instanceof TimeoutError).toBe(true);
  });
});
