/** The device's side of a rig: a model, a process, or a server that is there already; a proxy before it where faults need one. */
import { rmSync } from 'node:fs';
import path from 'node:path';
import { serve, type DeviceModel, type EmulatorOptions, type EmulatorServer } from '../emulator/index.js';
import type { FaultPlan } from '../faults/index.js';
import type { Endpoint, ModelEndpoint, PciEndpoint } from '../index.js';
import { proxy, type ProxyServer, type ServerAddress } from '../proxy/index.js';
import { ServerProcess } from './processes.js';
import type { RigError } from './rig-error.js';
import { DEFAULT_TIMEOUT_MS, type RigDevice, type RigOptions, type RigSource } from './rig-options.js';

/** What `connect` is given. */
export type RigEndpoint = Endpoint | ModelEndpoint | PciEndpoint;

interface Closable {
  close?: () => unknown;
}

export class RigServer {
  readonly #source: RigSource;
  readonly #options: RigOptions;
  readonly #directory: string;
  readonly #plan: FaultPlan | undefined;
  #model: DeviceModel | undefined;
  #server: EmulatorServer | undefined;
  #process: ServerProcess | undefined;
  #proxy: ProxyServer | undefined;

  constructor(source: RigSource, options: RigOptions, directory: string, plan: FaultPlan | undefined) {
    this.#source = source;
    this.#options = options;
    this.#directory = directory;
    this.#plan = plan;
  }

  /** Where the process's output is; undefined where there is no process. */
  get log(): string | undefined {
    return this.#source.kind === 'command' ? path.join(this.#directory, 'server.log') : undefined;
  }

  /** The model that is served, where it is in this process. */
  get model(): DeviceModel | undefined {
    return this.#model;
  }

  /** Starts it; to be connected to, it may take a moment more. */
  async start(): Promise<RigEndpoint> {
    const source = this.#source;
    switch (source.kind) {
      case 'device':
        return this.#startModel(source.device, source.via);
      case 'command': {
        const socket = this.#socket('device.sock');
        const { env, cwd } = this.#options;
        const log = path.join(this.#directory, 'server.log');
        // What a server that was killed left behind.
        rmSync(socket, { force: true });
        this.#process = new ServerProcess({ command: source.command, socket, log, env, cwd });
        return this.#behindProxy(socket);
      }
      case 'endpoint':
        return this.#behindProxy(source.endpoint);
      case 'pci':
        return source.endpoint;
    }
  }

  /** Rejects when the server ends before it serves; never settles where that is not known. */
  untilItEnds(): Promise<never> {
    return this.#process?.untilItEnds() ?? new Promise<never>(() => undefined);
  }

  /** What became of it meanwhile. */
  async problem(): Promise<RigError | undefined> {
    return this.#process?.problem();
  }

  /** Ends what was started, in order; `how` is for processes. */
  async stop(how: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.#proxy?.close();
    this.#proxy = undefined;
    await this.#server?.close();
    this.#server = undefined;
    await this.#process?.stop(how);
    this.#process = undefined;
    const model = this.#model as (DeviceModel & Closable) | undefined;
    this.#model = undefined;
    if (typeof (this.#source.kind === 'device' && this.#source.device) === 'function') await model?.close?.();
  }

  async #startModel(device: RigDevice, via: 'call' | 'socket'): Promise<RigEndpoint> {
    const model = typeof device === 'function' ? await device({ directory: this.#directory }) : device;
    this.#model = model;
    const options: EmulatorOptions = { ...this.#options.serve, ...(this.#plan && { faults: this.#plan }) };
    if (via === 'call') return { model, options };
    const socket = this.#socket('device.sock');
    this.#server = await serve(model, { ...options, path: socket, clients: 'many' });
    return socket;
  }

  /** A server of somebody else's has its faults in a proxy. */
  async #behindProxy(endpoint: Endpoint): Promise<Endpoint> {
    if (this.#plan === undefined) return endpoint;
    const front = this.#socket('front.sock');
    this.#proxy = await proxy({
      listen: front,
      connect: endpoint as ServerAddress,
      faults: this.#plan,
      waitForSocket: true,
      timeoutMs: this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    });
    return front;
  }

  #socket(name: string): string {
    return path.join(this.#directory, name);
  }
}
