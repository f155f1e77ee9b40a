/** The emulator's RAM device with its BAR2 in a file: what was written outlives a server that is killed. */
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { RamDevice, type RamOptions, type RegionModel } from 'vfio-user/emulator';

const BAR2 = 2;

export class DurableRam extends RamDevice {
  readonly #file: number;
  readonly #durable: RegionModel;

  constructor(path: string, options: RamOptions & { ramSize: number }) {
    super(options);
    this.#file = openSync(path, 'a+');
    closeSync(this.#file);
    this.#file = openSync(path, 'r+');
    ftruncateSync(this.#file, options.ramSize);
    this.#durable = {
      index: BAR2,
      size: options.ramSize,
      handler: {
        read: (offset, count) => {
          const bytes = Buffer.alloc(count);
          readSync(this.#file, bytes, 0, count, offset);
          return bytes;
        },
        write: (offset, data) => {
          writeSync(this.#file, data, 0, data.byteLength, offset);
        },
      },
    };
  }

  /** BAR2 in the place of the one in memory: a device has each region once. */
  override get regions(): readonly RegionModel[] {
    return [...super.regions.filter(({ index }) => index !== BAR2), this.#durable];
  }

  override close(): void {
    super.close();
    closeSync(this.#file);
  }
}
