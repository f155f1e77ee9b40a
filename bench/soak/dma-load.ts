/** The device copies memory of ours, by fd and by message, and interrupts; contents and interrupts are counted. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Device, DmaBuffer, DmaMapping, Vector } from 'vfio-user';
import { RamDma, RamRegister } from 'vfio-user/emulator';
import { CALL_MS, type Link } from './link.js';
import { MismatchError, fill, isFilled } from './model.js';
import type { Random } from './random.js';
import type { Load, Soak } from './soak.js';

const VECTORS = 4;
const BYTES = 128 << 10;
const HANDLED_BYTES = 64 << 10;
const PAUSE_MS = 2;
/** The trigger register takes `PciIrq` index << 16 | number; MSI-X is 2. */
const MSIX = 2 << 16;
/** Source, destination, length and command: one write starts the engine with all of them. */
const ENGINE_BYTES = RamRegister.DMA_COMMAND + 4 - RamRegister.DMA_SOURCE;

interface Memory {
  iova: bigint;
  bytes: Buffer;
}

interface Equipment {
  vectors: Vector[];
  buffers: DmaBuffer[];
  mapping: DmaMapping;
  memories: Memory[];
}

export class DmaLoad implements Load {
  readonly name: string;
  readonly #soak: Soak;
  readonly #link: Link;
  readonly #random: Random;

  constructor(soak: Soak, link: Link) {
    this.name = link.name;
    this.#soak = soak;
    this.#link = link;
    this.#random = soak.random.fork(link.name);
  }

  async run(): Promise<void> {
    let equipment: Equipment | undefined;
    let equipped: Device | undefined;
    for (let device = await this.#link.ready(); device !== undefined; device = await this.#link.ready()) {
      const open = device;
      const done = await this.#soak.attempt(this.name, async () => {
        if (equipped !== open || equipment === undefined) {
          equipment = await this.#equip(open);
          equipped = open;
        }
        const dice = this.#random.between(0, 9);
        if (dice < 6) await this.#copy(open, equipment);
        else if (dice < 9) await this.#interrupt(open, equipment);
        else await this.#allocate(open);
      });
      // What was set up in part is of no use: the device is opened anew.
      if (!done && equipped !== open) await this.#link.drop();
      await sleep(PAUSE_MS);
    }
  }

  async verify(): Promise<void> {
    const device = await this.#link.ready();
    if (device === undefined) throw new Error(`${this.name}: the device is not there`);
    const [first, second] = [await device.dma.alloc(BYTES), await device.dma.alloc(BYTES)];
    await this.#move(device, first, second, BYTES, 0);
  }

  close(): Promise<void> {
    return this.#link.close();
  }

  async #equip(device: Device): Promise<Equipment> {
    const vectors = await device.irqs.msix.enable(VECTORS);
    const buffers = [
      await device.dma.alloc(BYTES),
      await device.dma.alloc(BYTES),
      await device.dma.alloc(BYTES, { share: false }),
      await device.dma.alloc(BYTES, { share: false }),
    ];
    const bytes = Buffer.alloc(HANDLED_BYTES);
    const mapping = await device.dma.map({
      size: HANDLED_BYTES,
      handler: {
        read: (address, length) => {
          const at = Number(address - mapping.iova);
          return bytes.subarray(at, at + length);
        },
        write: (address, data) => {
          data.copy(bytes, Number(address - mapping.iova));
        },
      },
    });
    const memories = [...buffers, { iova: mapping.iova, bytes }];
    return { vectors, buffers, mapping, memories };
  }

  async #copy(device: Device, { memories, vectors }: Equipment): Promise<void> {
    const from = memories[this.#random.between(0, memories.length - 1)]!;
    const to = memories[this.#random.between(0, memories.length - 1)]!;
    if (from === to) return;
    const most = Math.min(from.bytes.byteLength, to.bytes.byteLength);
    const length = this.#random.oneIn(2) ? most : this.#random.between(1, most / 4) * 4;
    const number = this.#random.between(0, VECTORS - 1);
    const { losses } = this.#link;
    vectors[number]!.take();
    await this.#move(device, from, to, length, number);
    if (losses === this.#link.losses) await this.#expect(vectors[number]!, 1, losses);
  }

  /** Has the engine copy, and looks whether it did. */
  async #move(device: Device, from: Memory, to: Memory, length: number, vector: number): Promise<void> {
    const seed = this.#random.next() | 1;
    fill(from.bytes.subarray(0, length), seed);
    const command = Buffer.alloc(ENGINE_BYTES);
    const at = (register: number) => register - RamRegister.DMA_SOURCE;
    command.writeBigUInt64LE(from.iova, at(RamRegister.DMA_SOURCE));
    command.writeBigUInt64LE(to.iova, at(RamRegister.DMA_DESTINATION));
    command.writeUInt32LE(length, at(RamRegister.DMA_LENGTH));
    command.writeUInt32LE((vector << 16) | RamDma.COPY | RamDma.INTERRUPT, at(RamRegister.DMA_COMMAND));
    await this.#soak.call(`${this.name}: copy`, CALL_MS, () =>
      device.bar(0).write(RamRegister.DMA_SOURCE, command),
    );
    if (!isFilled(to.bytes, 0, length, seed))
      throw new MismatchError(`DMA of ${length} bytes did not arrive`);
    this.#soak.recorder.verifiedBytes += length;
  }

  /** As many interrupts as were triggered, no more and no fewer. */
  async #interrupt(device: Device, { vectors }: Equipment): Promise<void> {
    const number = this.#random.between(0, VECTORS - 1);
    const vector = vectors[number]!;
    const times = this.#random.between(1, 16);
    const { losses } = this.#link;
    vector.take();
    const triggers = Array.from({ length: times }, () =>
      device.bar(0).writeUInt32(RamRegister.TRIGGER, MSIX | number),
    );
    const begin = performance.now();
    for (const result of await Promise.allSettled(triggers))
      if (result.status === 'rejected') throw result.reason;
    if (losses !== this.#link.losses) return;
    await this.#expect(vector, times, losses);
    this.#soak.recorder.succeed(`${this.name}: interrupts`, (performance.now() - begin) * 1e3);
  }

  async #expect(vector: Vector, times: number, losses: number): Promise<void> {
    let seen = vector.take();
    while (seen < times) {
      const count = this.#soak.watchdog.watch(`${this.name}: interrupt`, 2 * CALL_MS, vector.wait());
      try {
        seen += await count;
      } catch (error) {
        // A server that died took the rest with it; one that lives had signalled all of them before it answered.
        if (losses !== this.#link.losses) throw error;
        throw new MismatchError(`${seen} of ${times} interrupts came`, { cause: error });
      }
    }
    if (seen > times && losses === this.#link.losses)
      throw new MismatchError(`${seen} interrupts, of ${times}`);
  }

  /** Memory comes and goes. */
  async #allocate(device: Device): Promise<void> {
    const buffer = await this.#soak.call(`${this.name}: alloc`, CALL_MS, () =>
      device.dma.alloc(this.#random.between(1, 6 << 20)),
    );
    await this.#soak.call(`${this.name}: free`, CALL_MS, () => buffer.free());
  }
}
