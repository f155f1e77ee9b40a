/**
 * The admin queue (NVM Express Base 2.0, sections 3.3.1 and 3.5.1): a queue pair with the identifier 0, whose memory the
 * controller is told of by AQA, ASQ and ACQ. It is there for as long as the controller is enabled.
 */
import type { DmaBuffer } from '../index.js';
import { ADMIN_TRANSFER_BYTES, AdminCommands } from './admin-commands.js';
import type { CommandQueueHost } from '../commands/command-queue.js';
import { NvmeCommandQueue } from './command-queue.js';
import type { ControllerInfo } from './controller-info.js';
import { BouncePool } from './data-pointers.js';
import type { AdminQueueAddresses } from './enable.js';
import { freeAll } from '../commands/driver-memory.js';
import { QueueMemory } from './queue-memory.js';
import { QueuePair } from './queue-pair.js';
import type { Doorbell } from './rings.js';

const ID = 0;
const ENTRIES = 32;
const SLOTS = ENTRIES - 1;
/** Room for several commands, also where a page is larger than what one transfers. */
const POOL_TRANSFERS = 4;

export interface AdminQueueMemory {
  rings: QueueMemory;
  pool: DmaBuffer;
}

export interface AdminQueueHost extends CommandQueueHost {
  /** The controller broke the rules of the ring. */
  onViolation: (error: Error) => void;
}

export class AdminQueue {
  /** For errors that go by what memory the controller can reach. */
  readonly buffer: DmaBuffer;
  /** Admin commands of users, of the driver on their behalf, and of the start: see `CommandOrigin`. */
  readonly user: AdminCommands;
  readonly driver: AdminCommands;
  readonly start: AdminCommands;
  readonly commands: NvmeCommandQueue;
  readonly #rings: QueueMemory;
  readonly #pool: DmaBuffer;

  /** @throws what `device.dma.alloc` throws. */
  static async allocate({ device, pageSize }: ControllerInfo): Promise<AdminQueueMemory> {
    const sizes = { entries: ENTRIES, slots: SLOTS, maxTransferBytes: ADMIN_TRANSFER_BYTES };
    const rings = await QueueMemory.allocate(device, { ...sizes, pageSize });
    try {
      const bytes = POOL_TRANSFERS * Math.max(ADMIN_TRANSFER_BYTES, pageSize);
      return { rings, pool: await device.dma.alloc(bytes, { alignment: pageSize }) };
    } catch (error) {
      rings.buffer.close().catch(() => undefined);
      throw error;
    }
  }

  constructor(info: ControllerInfo, { rings, pool }: AdminQueueMemory, host: AdminQueueHost) {
    const { device, pageSize, settings } = info;
    const { sq, cq, prps, buffer } = rings;
    const pair = new QueuePair({ id: ID, slots: SLOTS, sq, cq, tellsHeadAtOnce: true });
    pair.onViolation = (error) => host.onViolation(error);
    this.buffer = buffer;
    this.commands = new NvmeCommandQueue({
      ...{ pair, prps, host },
      timeoutMs: settings.timeoutMs,
      isPolled: true,
      spinUs: device.spinUs,
      usesSgls: false,
    });
    this.commands.poolMade(new BouncePool(pool, pageSize));
    this.user = new AdminCommands(this.commands, 'user', info);
    this.driver = new AdminCommands(this.commands, 'driver', info);
    this.start = new AdminCommands(this.commands, 'start', info);
    this.#rings = rings;
    this.#pool = pool;
  }

  /** AQA, ASQ and ACQ. */
  get addresses(): AdminQueueAddresses {
    const { sqAddress, cqAddress } = this.#rings;
    return { entries: ENTRIES, sqAddress, cqAddress };
  }

  /** In a controller that is disabled: the rings are a new queue's. */
  clear(): void {
    this.commands.pair.clear();
  }

  /** The controller is enabled. Commands of the start are sent; `commands.release` lets others follow. */
  open(sqDoorbell: Doorbell, cqDoorbell: Doorbell): void {
    this.commands.pair.open(sqDoorbell, cqDoorbell);
    this.commands.resume();
  }

  /** In a controller that is disabled, for good. */
  async free(): Promise<void> {
    await freeAll([this.#rings.buffer, this.#pool]);
  }
}
