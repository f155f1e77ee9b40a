/** What the programs in the documents expect to be there: servers at the addresses that they name. */
import { spawnSync } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer as createTcpServer, type AddressInfo, type Server } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import {
  EduDevice,
  MemoryStore,
  NvmeDevice,
  RamDevice,
  serve,
  serveStream,
  VirtioPciDevice,
  VirtioBlkDevice,
  VirtioScsiDevice,
  VirtioRngDevice,
  type DeviceModel,
} from '../../lib/emulator/index.js';
import { MAIN, Scratch } from '../cli/cli.js';

const UNIX_STDIO = fileURLToPath(new URL('../support/unix-stdio.mjs', import.meta.url));

/** By the name of the socket in /tmp. */
const DEVICES: Readonly<Record<string, () => DeviceModel>> = {
  'edu.sock': () => new EduDevice({ strict: true, dmaDelayMs: 1 }),
  'ram.sock': () => new RamDevice({ migration: 'pre-copy', doorbells: true }),
  'destination.sock': () => new RamDevice({ migration: 'pre-copy' }),
  'virtio-blk.sock': () => new VirtioBlkDevice({ store: new MemoryStore(8 << 20) }),
  'virtio-scsi.sock': () => new VirtioScsiDevice({ units: [{ store: new MemoryStore(8 << 20) }] }),
  'virtio-rng.sock': () => new VirtioRngDevice(),
  'nvme.sock': () => new NvmeDevice({ namespaces: [{ store: new MemoryStore(8 << 20) }] }),
};

/** The name of the machine that documents reach over a network, and what it listens on. */
const LAB = { host: 'lab.example', tcp: 4420, tls: 4433 };

/** Stands for the other machine: what `ssh` does on the way is specified by spec/transport/remote.spec.ts. */
const SSH = `
for command; do :; done
exec sh -c "$command"`;

/** For one program. */
export class Surroundings implements AsyncDisposable {
  readonly scratch = new Scratch();
  readonly env: NodeJS.ProcessEnv = { ...process.env, NODE_OPTIONS: '' };
  /** The devices that were served, by the name of the socket. */
  readonly devices = new Map<string, DeviceModel>();
  readonly #close: (() => unknown)[] = [];

  /** The program as it runs here: with addresses of this machine, in a directory of its own. */
  async prepare(source: string): Promise<string> {
    let prepared = source;
    this.env['PATH'] = `${this.scratch.directory}:${process.env['PATH']}`;
    for (const [name, make] of Object.entries(DEVICES)) {
      if (source.includes(`/tmp/${name}`)) await this.#serve(make(), name);
    }
    if (source.includes(`${LAB.host}:${LAB.tcp}`)) {
      const port = await this.#listen(createTcpServer((socket) => this.#serveStream(socket)));
      prepared = prepared.replaceAll(`${LAB.host}:${LAB.tcp}`, `127.0.0.1:${port}`);
    }
    if (source.includes(`port: ${LAB.tls}`)) {
      prepared = prepared
        .replaceAll(`host: '${LAB.host}'`, `host: '127.0.0.1', servername: '${LAB.host}'`)
        .replaceAll(`port: ${LAB.tls}`, `port: ${await this.#listenTls()}`);
    }
    if (source.includes("'vfio-user', [")) {
      this.#program('vfio-user', `exec '${process.execPath}' '${MAIN}' "$@"`);
    }
    if (source.includes("'ssh'")) {
      this.#program('ssh', SSH);
      this.#program('socat', `exec '${process.execPath}' '${UNIX_STDIO}' "\${2#UNIX-CONNECT:}"`);
    }
    return prepared.replaceAll('/tmp/', `${this.scratch.directory}/`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const close of this.#close.reverse()) await close();
    this.scratch.remove();
  }

  /** On PATH. */
  #program(name: string, script: string): void {
    writeFileSync(this.scratch.path(name), `#!/bin/sh\n${script}\n`);
    chmodSync(this.scratch.path(name), 0o700);
  }

  async #serve(device: DeviceModel, name: string): Promise<void> {
    const dirtyPages = device instanceof RamDevice ? 'logging' : 'none';
    const server = await serve(device, { path: this.scratch.path(name), clients: 'many', dirtyPages });
    this.devices.set(name, device);
    this.#close.push(async () => {
      await server.close();
      if (device instanceof RamDevice || device instanceof NvmeDevice || device instanceof VirtioPciDevice)
        await device.close();
    });
  }

  #serveStream(socket: Duplex): void {
    const server = serveStream(new EduDevice({ strict: true }), socket);
    this.#close.push(() => server.close());
  }

  async #listen(server: Server): Promise<number> {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    this.#close.push(() => server.close());
    return (server.address() as AddressInfo).port;
  }

  /** Its certificate is /tmp/lab.pem. */
  #listenTls(): Promise<number> {
    const [key, certificate] = [this.scratch.path('key.pem'), this.scratch.path('lab.pem')];
    const subject = ['-subj', `/CN=${LAB.host}`, '-addext', `subjectAltName=DNS:${LAB.host}`];
    const files = ['-keyout', key, '-out', certificate];
    const { status, stderr } = spawnSync(
      'openssl',
      ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...subject, ...files],
      { encoding: 'utf8' },
    );
    if (status !== 0) throw new Error(`openssl: ${stderr}`);
    const options = { key: readFileSync(key), cert: readFileSync(certificate) };
    return this.#listen(createTlsServer(options, (socket) => this.#serveStream(socket)));
  }
}

export const HAS_OPENSSL = spawnSync('openssl', ['version']).error === undefined;
