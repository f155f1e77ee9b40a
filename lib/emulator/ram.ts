/**
 * A plain device for tests and benchmarks, 1234:5241: memory that messages reach, memory that can be mapped, a DMA
 * engine and interrupts on demand.
 *
 * ```
 *   BAR0, 4 KiB     registers, dwords (see `RamRegister`)
 *   BAR1            shared memory; all but its first page can be mapped, in two areas of one fd
 *   BAR2            memory by message
 *   BAR4, 64 KiB    MSI-X table at 0, pending bits at 0x8000: plain memory without effect
 *   INTx, MSI-X     triggered by register, whatever config space says of them
 * ```
 */
import {
  DEVICE_FEATURE_PROBE,
  DEVICE_FEATURE_SET,
  IRQ_FLAG_EVENTFD,
  IRQ_FLAG_MASKABLE,
  PciIrq,
  PciRegion,
  type MigrationState,
} from '../protocol/constants.js';
import { outOfRange, UINT32_MAX, wrongType } from '../fields.js';
import * as option from '../options.js';
import { DeviceError, EBUSY, ECANCELED, EINVAL, ENOTSUP } from './device-error.js';
import type { ClientContext, FeatureRequest, MigrationData } from './device-model.js';
import { MigrationMachine, type MigratableState } from './migration-machine.js';
import { msixCapability, PciConfigSpace } from './pci-config.js';
import { PciDevice } from './pci-device.js';
import { andThen } from './maybe-async.js';
import { RamDmaEngine } from './ram-dma.js';
import { RamDoorbells } from './ram-doorbells.js';
import { SharedMemory } from './shared-memory.js';

/** Offsets in BAR0. Read-only registers ignore what is written. */
export const RamRegister = {
  /** Read-only: `RAM_IDENTIFICATION`. */
  IDENTIFICATION: 0x00,
  /** Keeps what is written. */
  SCRATCH: 0x04,
  /** Read-only: MSI-X vectors. */
  VECTORS: 0x08,
  /** Triggers the interrupt `index << 16 | number`, `index` of `PciIrq`. Reads 0. */
  TRIGGER: 0x0c,
  /** Qwords: where the DMA engine copies from and to, both in the client's memory. */
  DMA_SOURCE: 0x10,
  DMA_DESTINATION: 0x18,
  /** Bytes to copy. */
  DMA_LENGTH: 0x20,
  /** Bits of `RamDma`; a write starts the engine. */
  DMA_COMMAND: 0x24,
  /** Read-only: of `RamDmaStatus`, or 0x80000000 | errno. */
  DMA_STATUS: 0x28,
  /** Read-only: how many dwords have been written to SCRATCH. */
  SCRATCH_WRITES: 0x2c,
  /** Read-only: how often DOORBELL and SHADOW_DOORBELL were rung, by message or fd. */
  RINGS: 0x30,
  /** Read-only: the last value that SHADOW_DOORBELL was rung with. */
  RUNG_VALUE: 0x34,
  /** A write rings it; with the option `doorbells` an ioeventfd does so too. */
  DOORBELL: 0x38,
  /** The same with a value, and a shadow ioeventfd. */
  SHADOW_DOORBELL: 0x3c,
} as const;

/** What IDENTIFICATION reads. */
export const RAM_IDENTIFICATION = 0x314d4152;

/** Bits of the DMA command. */
export const RamDma = {
  /** Copies, and answers the write when it is done, with the errno where it failed. */
  COPY: 0x1,
  /** With COPY: answers the write at once. */
  POSTED: 0x2,
  /** With COPY: triggers the MSI-X vector in the upper 16 bits at the end. */
  INTERRUPT: 0x4,
} as const;

/** DMA_STATUS; with FAILED bits 30:0 are an errno. */
export const RamDmaStatus = { IDLE: 0, BUSY: 1, DONE: 2, FAILED: 0x80000000 } as const;

/** Sizes that do not depend on options, bytes. */
export const RAM_BARS = { registers: 0x1000, msix: 0x10000, msixPending: 0x8000 } as const;

/** Options of a `RamDevice`. */
export interface RamOptions {
  /** Size of BAR1, a power of two of at least three pages; 64 KiB by default, 0 for none (it needs the addon). */
  sharedSize?: number;
  /** Size of BAR2, a power of two; 1 MiB by default. */
  ramSize?: number;
  /** MSI-X vectors, 1 to 2048; 4 by default. */
  vectors?: number;
  /** Whether its state can migrate, `'pre-copy'` also while it runs: registers, BAR1 and BAR2. Not by default. */
  migration?: 'stop-copy' | 'pre-copy';
  /** Other features by number: what GET answers, and SET replaces, which must be of the same size. */
  features?: ReadonlyMap<number, Uint8Array>;
  /** Offers fds for the doorbells (it needs the addon); false by default. */
  doorbells?: boolean;
}

const PAGE = 4096;
const MOST_VECTORS = 2048;
const OPTIONS = new option.OptionTable<RamOptions>({
  sharedSize: option.wholeNumber(0, UINT32_MAX),
  ramSize: option.wholeNumber(1, UINT32_MAX),
  vectors: option.wholeNumber(1, MOST_VECTORS),
  migration: option.oneOf('stop-copy', 'pre-copy'),
  features: (value, caller, name) =>
    value instanceof Map ? undefined : wrongType(`${caller}: ${name}`, 'a Map of numbers to bytes', value),
  doorbells: option.boolean,
});
const REGISTERS_END = 0x40;
const READ_ONLY: readonly number[] = [
  RamRegister.IDENTIFICATION,
  RamRegister.VECTORS,
  RamRegister.DMA_STATUS,
  RamRegister.SCRATCH_WRITES,
  RamRegister.RINGS,
  RamRegister.RUNG_VALUE,
  RamRegister.DOORBELL,
  RamRegister.SHADOW_DOORBELL,
];

/**
 * A device of plain memory for tests: registers in BAR0, memory that clients can map in BAR1, memory by message in BAR2, MSI-X
 * in BAR4; a DMA engine, migration, features and doorbells by option.
 *
 * @example
 * ```ts
 * using device = new RamDevice({ migration: 'stop-copy' });
 * await using server = await serve(device, { path: '/tmp/ram.sock' });
 * ```
 */
export class RamDevice extends PciDevice {
  /** BAR1's memory, as clients see it when they map it. */
  readonly shared: SharedMemory | undefined;
  /** BAR2's memory. */
  readonly ram: Buffer;
  readonly #vectors: number;
  readonly #registers = Buffer.alloc(RAM_BARS.registers);
  readonly #features: Map<number, Uint8Array>;
  readonly #migration: MigrationMachine | undefined;
  readonly #doorbells: RamDoorbells | undefined;
  readonly #engine = new RamDmaEngine();
  /** In STOP and the states around it: no DMA begins, no interrupt is raised. */
  #isStopped = false;
  #isClosed = false;

  /**
   * A memory device.
   *
   * @throws TypeError and RangeError for options that make no sense.
   */
  constructor(options: RamOptions = {}) {
    OPTIONS.check('RamDevice', options);
    const { sharedSize = 64 * 1024, ramSize = 1 << 20, vectors = 4 } = options;
    if (sharedSize !== 0 && sharedSize < 3 * PAGE)
      throw outOfRange(`RamDevice: sharedSize must be 0, or at least ${3 * PAGE}, got ${sharedSize}`);
    const shared = { index: PciRegion.BAR1, size: sharedSize };
    const config = new PciConfigSpace({
      vendorId: 0x1234,
      deviceId: 0x5241,
      classCode: 0x058000,
      interruptPin: 1,
      bars: [
        { index: PciRegion.BAR0, size: RAM_BARS.registers },
        ...(sharedSize === 0 ? [] : [shared]),
        { index: PciRegion.BAR2, size: ramSize, kind: 'memory64', prefetchable: true },
        { index: PciRegion.BAR4, size: RAM_BARS.msix },
      ],
      capabilities: [
        msixCapability(vectors, { bir: 4, offset: 0 }, { bir: 4, offset: RAM_BARS.msixPending }),
      ],
    });
    const flags = IRQ_FLAG_EVENTFD | IRQ_FLAG_MASKABLE;
    super(config, [
      { index: PciIrq.INTX, count: 1, flags },
      { index: PciIrq.MSIX, count: vectors, flags },
    ]);
    this.#vectors = vectors;
    this.ram = Buffer.alloc(ramSize);
    this.#features = new Map(options.features);
    if (options.doorbells === true) {
      const { DOORBELL: plain, SHADOW_DOORBELL: shadow } = RamRegister;
      this.#doorbells = new RamDoorbells(
        { plain, shadow },
        (count) => this.#ring(count),
        (value) => this.#ring(1, value),
      );
    }
    this.#addBars(ramSize);
    if (sharedSize !== 0) {
      this.shared = new SharedMemory(sharedSize);
      const mappable = [
        { offset: PAGE, size: PAGE },
        { offset: 2 * PAGE, size: sharedSize - 2 * PAGE },
      ];
      this.addRegion({ ...shared, memory: this.shared, mappable });
    }
    if (options.migration !== undefined) {
      this.#migration = new MigrationMachine(this.#migratable(), options.migration === 'pre-copy');
    }
    this.#clearRegisters();
  }

  /** Ends DMA. Registers and config space are as at first then; memory stays as it is. */
  override reset(): void | Promise<void> {
    return andThen(this.#engine.cancel(), () => {
      this.#migration?.reset();
      this.#clearRegisters();
      void super.reset();
    });
  }

  /** Whether it was closed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Gives back the memory of BAR1 and of the doorbells. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.shared?.close();
    this.#doorbells?.close();
  }

  /** MIG_DATA_READ and MIG_DATA_WRITE; undefined where it cannot migrate. */
  get migrationData(): MigrationData | undefined {
    return this.#migration;
  }

  /** Where the device is in its migration; undefined where it cannot migrate. */
  get migrationState(): MigrationState | undefined {
    return this.#migration?.state;
  }

  /**
   * DEVICE_FEATURE: those of migration, and those of the option `features`. @throws DeviceError ENOTSUP, EINVAL.
   */
  feature(request: FeatureRequest, client: ClientContext): Uint8Array | Promise<Uint8Array> {
    const answer = this.#migration?.feature(request, client);
    if (answer !== undefined) return answer;
    const { feature, operations, data } = request;
    const value = this.#features.get(feature);
    if (value === undefined) throw new DeviceError(ENOTSUP, `feature ${feature}`);
    if ((operations & DEVICE_FEATURE_PROBE) !== 0 || (operations & DEVICE_FEATURE_SET) === 0) return value;
    if (data.byteLength !== value.byteLength) throw new DeviceError(EINVAL, `feature ${feature}`);
    this.#features.set(feature, Buffer.from(data));
    return data;
  }

  #migratable(): MigratableState {
    const parts = () => [
      this.#registers,
      ...(this.shared === undefined ? [] : [this.shared.bytes]),
      this.ram,
    ];
    return {
      size: RAM_BARS.registers + (this.shared?.bytes.byteLength ?? 0) + this.ram.byteLength,
      stop: () => {
        this.#isStopped = true;
        return this.#engine.stop();
      },
      run: () => {
        this.#isStopped = false;
        this.#engine.run();
      },
      save: parts,
      load: (state) => {
        let at = 0;
        for (const part of parts()) at += state.copy(part, 0, at, at + part.byteLength);
        // Of a device that was read while it ran, and no more: what it copied then stays behind.
        if (this.#dmaStatus === RamDmaStatus.BUSY) this.#dmaStatus = failure(new DeviceError(ECANCELED));
      },
    };
  }

  /** Does what `close` does. */
  [Symbol.dispose](): void {
    this.close();
  }

  #addBars(ramSize: number): void {
    this.addRegion({
      index: PciRegion.BAR0,
      size: RAM_BARS.registers,
      ...(this.#doorbells && { ioFds: this.#doorbells.offer }),
      handler: {
        read: (offset, count) => this.#registers.subarray(offset, offset + count),
        write: (offset, data, client) => this.#write(offset, data, client),
      },
    });
    this.addRegion({ index: PciRegion.BAR2, size: ramSize, memory: { bytes: this.ram } });
    const msix = Buffer.alloc(RAM_BARS.msix);
    this.addRegion({ index: PciRegion.BAR4, size: msix.byteLength, memory: { bytes: msix } });
  }

  #clearRegisters(): void {
    this.#registers.fill(0);
    this.#registers.writeUInt32LE(RAM_IDENTIFICATION, RamRegister.IDENTIFICATION);
    this.#registers.writeUInt32LE(this.#vectors, RamRegister.VECTORS);
  }

  #write(offset: number, data: Buffer, client: ClientContext): void | Promise<void> {
    if (offset % 4 !== 0 || data.byteLength % 4 !== 0) {
      throw new DeviceError(EINVAL, 'registers are written in whole dwords');
    }
    for (let done = 0; done < data.byteLength; done += 4) {
      const at = offset + done;
      const value = data.readUInt32LE(done);
      if (at === RamRegister.TRIGGER) this.#triggerByNumber(value);
      // The command comes last: what is written behind it in one access is ignored.
      else if (at === RamRegister.DMA_COMMAND) return this.#startDma(value, client);
      else if (at < REGISTERS_END && !READ_ONLY.includes(at)) this.#registers.writeUInt32LE(value, at);
      if (at === RamRegister.SCRATCH) this.#count(RamRegister.SCRATCH_WRITES);
      if (at === RamRegister.DOORBELL) this.#ring(1);
      if (at === RamRegister.SHADOW_DOORBELL) this.#ring(1, value);
    }
  }

  #count(register: number, by = 1): void {
    this.#registers.writeUInt32LE((this.#registers.readUInt32LE(register) + by) >>> 0, register);
  }

  #ring(times: number, value?: number): void {
    this.#count(RamRegister.RINGS, times);
    if (value !== undefined) this.#registers.writeUInt32LE(value, RamRegister.RUNG_VALUE);
  }

  #triggerByNumber(value: number): void {
    const index = value >>> 16;
    const sub = value & 0xffff;
    const isThere = this.irqs.some((irq) => irq.index === index && sub < irq.count);
    if (!isThere) throw new DeviceError(EINVAL, `no interrupt ${index}.${sub}`);
    if (this.#isStopped) throw new DeviceError(EBUSY, 'the device is stopped');
    this.trigger(index, sub);
  }

  #startDma(command: number, client: ClientContext): void | Promise<void> {
    const vector = command >>> 16;
    if ((command & RamDma.COPY) === 0 || vector >= this.#vectors) {
      throw new DeviceError(EINVAL, `DMA command 0x${command.toString(16)}`);
    }
    const source = this.#registers.readBigUInt64LE(RamRegister.DMA_SOURCE);
    const destination = this.#registers.readBigUInt64LE(RamRegister.DMA_DESTINATION);
    const length = this.#registers.readUInt32LE(RamRegister.DMA_LENGTH);
    const interrupts = (command & RamDma.INTERRUPT) !== 0;
    const copied = this.#engine.start({ source, destination, length }, client.dma, (end) => {
      this.#dmaStatus = end === 'done' ? RamDmaStatus.DONE : failure(end);
      if (end === 'done' && interrupts) this.trigger(PciIrq.MSIX, vector);
    });
    this.#dmaStatus = RamDmaStatus.BUSY;
    if ((command & RamDma.POSTED) !== 0) return;
    return copied.then((end) => {
      if (end !== 'done') throw end;
    });
  }

  get #dmaStatus(): number {
    return this.#registers.readUInt32LE(RamRegister.DMA_STATUS);
  }

  set #dmaStatus(status: number) {
    this.#registers.writeUInt32LE(status, RamRegister.DMA_STATUS);
  }
}

/** What DMA_STATUS says. */
function failure({ errno }: DeviceError): number {
  return (RamDmaStatus.FAILED | errno) >>> 0;
}
