/** A device's state goes from one server to another and back, and is found there as it was. */
import { setTimeout as sleep } from 'node:timers/promises';
import { pipeline } from 'node:stream/promises';
import { MigrationState, type Device } from 'vfio-user';
import { CALL_MS, type Link } from './link.js';
import { MismatchError, fill, isFilled } from './model.js';
import type { Random } from './random.js';
import type { Load, Soak } from './soak.js';

export const MIGRATION_LOAD_BYTES = 256 << 10;
const PAUSE_MS = 20;
/** A save, a restore and the way between the states: some dozens of calls. */
const MIGRATION_MS = 4 * CALL_MS;

export class MigrationLoad implements Load {
  readonly name = 'migration';
  readonly #soak: Soak;
  readonly #random: Random;
  readonly #links: [source: Link, destination: Link];

  constructor(soak: Soak, source: Link, destination: Link) {
    this.#soak = soak;
    this.#links = [source, destination];
    this.#random = soak.random.fork(this.name);
  }

  async run(): Promise<void> {
    for (;;) {
      const [source, destination] = await this.#ready();
      if (source === undefined || destination === undefined) return;
      const moved = await this.#soak.attempt(this.name, () => this.#move(source, destination));
      if (moved) this.#links.reverse();
      else await this.#recover(source, destination);
      await sleep(PAUSE_MS);
    }
  }

  async verify(): Promise<void> {
    const [source, destination] = await this.#ready();
    if (source === undefined || destination === undefined)
      throw new Error('migration: a device is not there');
    await source.reset();
    await destination.reset();
    await this.#move(source, destination);
  }

  async close(): Promise<void> {
    for (const link of this.#links) await link.close();
  }

  async #ready(): Promise<[Device | undefined, Device | undefined]> {
    const [source, destination] = this.#links;
    return [await source.ready(), await destination.ready()];
  }

  async #move(source: Device, destination: Device): Promise<void> {
    const losses = this.#losses();
    const bytes = Buffer.alloc(MIGRATION_LOAD_BYTES);
    const seed = this.#random.next() | 1;
    fill(bytes, seed);
    await this.#soak.call('migration: fill', CALL_MS, () => source.bar(2).write(0, bytes));
    await this.#soak.call('migration: move', MIGRATION_MS, () =>
      pipeline(source.migration.save(), destination.migration.restore()),
    );
    const found = await this.#soak.call('migration: look', CALL_MS, () =>
      destination.bar(2).read(0, MIGRATION_LOAD_BYTES),
    );
    // A server that died in between took with it what it had.
    if (losses !== this.#losses()) return;
    if (!isFilled(found, 0, found.byteLength, seed)) throw new MismatchError('the state did not arrive');
    this.#soak.recorder.verifiedBytes += found.byteLength;
    // The source was left stopped.
    await source.migration.transition(MigrationState.RUNNING);
  }

  /** A reset brings a device back from wherever a migration left it. */
  async #recover(...devices: Device[]): Promise<void> {
    for (const device of devices) await this.#soak.attempt('migration: reset', () => device.reset());
  }

  #losses(): number {
    return this.#links[0].losses + this.#links[1].losses;
  }
}
