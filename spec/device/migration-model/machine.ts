/** A device and its server, which is started again under the same path, and the line to it. */
import path from 'node:path';
import {
  RamDevice,
  RamRegister,
  serve,
  type ConnectedClient,
  type EmulatorServer,
} from '../../../lib/emulator/index.js';
import { MigrationState } from '../../../lib/index.js';
import { PciRegion } from '../../../lib/protocol/constants.js';
import { Line } from './line.js';
import type { Nature, Place } from './steps.js';

export const RAM_BYTES = 1 << 15;
/** Registers and RAM, with the length before them: what RamDevice says of itself, once. */
export const RECORD_BYTES = 4 + 0x1000 + RAM_BYTES;
const DMA_BUSY = 1;

export class Machine {
  readonly model = new RamDevice({ sharedSize: 0, ramSize: RAM_BYTES, migration: 'pre-copy' });
  readonly #path: string;
  readonly #nature: Nature;
  readonly #clients = new Set<ConnectedClient>();
  #line: Line | undefined;
  #server: EmulatorServer | undefined;
  #busy: Promise<void> = Promise.resolve();

  constructor(directory: string, place: Place, nature: Nature) {
    this.#path = path.join(directory, place);
    this.#nature = nature;
  }

  async start(): Promise<void> {
    await this.#listen();
    this.#line = await Line.open(`${this.#path}.line`, this.#path);
  }

  get line(): Line {
    return this.#line!;
  }

  /** Past the line. */
  get directPath(): string {
    return this.#path;
  }

  get state(): MigrationState {
    return this.model.migrationState!;
  }

  get isStopped(): boolean {
    return this.state === MigrationState.STOP || this.state === MigrationState.STOP_COPY;
  }

  /** The DMA engine copies. */
  get isCopying(): boolean {
    const registers = this.model.regions.find(({ index }) => index === PciRegion.BAR0)!.handler!;
    const status = registers.read(RamRegister.DMA_STATUS, 4, undefined as never) as Uint8Array;
    return Buffer.from(status).readUInt32LE(0) === DMA_BUSY;
  }

  /** All connections are lost, those of other clients too. */
  cut(): void {
    for (const client of this.#clients) client.close();
  }

  /** The newest connection is lost. */
  cutNewest(): void {
    [...this.#clients].at(-1)?.close();
  }

  /** As if its process had ended and another one were there. */
  restart(): Promise<void> {
    void this.#server?.close();
    return (this.#busy = this.#busy.then(async () => {
      await this.#server?.close();
      await this.model.reset();
      await this.#listen();
    }));
  }

  settled(): Promise<void> {
    return this.#busy;
  }

  async close(): Promise<void> {
    await this.#busy;
    await this.#line?.close();
    await this.#server?.close();
    this.model.close();
  }

  async #listen(): Promise<void> {
    const { dirtyPages, maxDataXferSize } = this.#nature;
    this.#server = await serve(this.model, {
      path: this.#path,
      clients: 'many',
      dirtyPages,
      maxDataXferSize,
      dmaTimeoutMs: 100,
      onClient: (client) => {
        this.#clients.add(client);
        void client.closed.then(() => this.#clients.delete(client));
      },
    });
  }
}
