/**
 * QEMU's educational device (QEMU's docs/specs/edu.rst), 1234:11e8: what it answers here it answers there.
 *
 * ```
 *   BAR0, 1 MiB          0x00  identification             0x60  raise interrupt
 *   dwords, and          0x04  liveness: inverts          0x64  acknowledge interrupt
 *   qwords from          0x08  factorial                  0x80  DMA source
 *   0x80 on              0x20  status                     0x88  DMA destination
 *                        0x24  interrupt status           0x90  DMA count
 *                                                         0x98  DMA command
 *   for DMA only         0x40000 … 0x40fff  the buffer
 * ```
 * DMA addresses are cut to `dmaMask`, 28 bits at first: client memory must be mapped below 256 MiB to be reached. What
 * is done asynchronously is so on purpose: a driver has to poll the status and the command register, or to wait for
 * the interrupt.
 *
 * Unlike QEMU's it answers before its BAR has an address and memory space is enabled, and does DMA without bus
 * mastering, unless it is made `strict`. A DMA transfer that runs out of the buffer moves nothing, and a reset clears
 * the registers too.
 */
import { UINT64_MAX } from '../fields.js';
import * as option from '../options.js';
import { PciCommand } from '../pci/index.js';
import { IRQ_FLAG_EVENTFD, IRQ_FLAG_MASKABLE, PciIrq, PciRegion } from '../protocol/constants.js';
import { DeviceError, EINVAL } from './device-error.js';
import type { ClientContext } from './device-model.js';
import { msiCapability, PciConfigSpace } from './pci-config.js';
import { PciDevice } from './pci-device.js';
import { MAX_TIMER_MS } from '../system-numbers.js';

/** Size of BAR0, in bytes. */
export const EDU_BAR_SIZE = 1 << 20;
/** Where the buffer is in the device's own addresses, for DMA. */
export const EDU_BUFFER_ADDRESS = 0x40000;
/** Size of the device's DMA buffer, in bytes. */
export const EDU_BUFFER_SIZE = 4096;

/** Offsets in BAR0. */
export const EduRegister = {
  IDENTIFICATION: 0x00,
  LIVENESS: 0x04,
  FACTORIAL: 0x08,
  STATUS: 0x20,
  INTERRUPT_STATUS: 0x24,
  RAISE_INTERRUPT: 0x60,
  ACKNOWLEDGE_INTERRUPT: 0x64,
  DMA_SOURCE: 0x80,
  DMA_DESTINATION: 0x88,
  DMA_COUNT: 0x90,
  DMA_COMMAND: 0x98,
} as const;

/** Bits of the status register. */
export const EduStatus = { COMPUTING: 0x01, INTERRUPT_AFTER_FACTORIAL: 0x80 } as const;
/** Bits of the DMA command register. */
export const EduDma = { START: 0x1, FROM_DEVICE: 0x2, INTERRUPT: 0x4 } as const;
/** Bits that the device itself sets in the interrupt status register. */
export const EduIrq = { FACTORIAL: 0x001, DMA: 0x100 } as const;

/** Options of an `EduDevice`. */
export interface EduOptions {
  /** Refuses BAR accesses (EINVAL) and leaves out DMA until config space allows them, as QEMU does. */
  strict?: boolean;
  /** What DMA addresses are cut to; 28 bits by default. */
  dmaMask?: bigint;
  /** How long a transfer takes, in milliseconds; 100 by default. */
  dmaDelayMs?: number;
  /** How long a factorial takes, in milliseconds; 0 by default, which is asynchronous all the same. */
  factorialDelayMs?: number;
}

const OPTIONS = new option.OptionTable<EduOptions>({
  strict: option.boolean,
  dmaMask: option.bigInteger(0n, UINT64_MAX),
  dmaDelayMs: option.wholeNumber(0, MAX_TIMER_MS),
  factorialDelayMs: option.wholeNumber(0, MAX_TIMER_MS),
});

const IDENTIFICATION = 0x010000edn;
const ALL_ONES = (1n << 64n) - 1n;
const FIRST_QWORD = 0x80;

/**
 * QEMU's educational device (docs/specs/edu.rst), 1234:11e8: a factorial register, interrupts, and DMA between the client's
 * memory and a buffer of 4 KiB.
 *
 * @example
 * ```ts
 * await using server = await serve(new EduDevice(), { path: '/tmp/edu.sock' });
 * ```
 */
export class EduDevice extends PciDevice {
  /** Why the last transfer moved nothing; undefined where it did. */
  lastDmaError: unknown;
  /** What DMA transfers go to and come from. */
  readonly buffer: Buffer = Buffer.alloc(EDU_BUFFER_SIZE);
  readonly #options: Required<EduOptions>;
  #liveness = 0;
  #factorial = 0;
  #status = 0;
  #interruptStatus = 0;
  #dma = { source: 0n, destination: 0n, count: 0n, command: 0n };
  #factorialTimer: NodeJS.Timeout | undefined;
  #dmaTimer: NodeJS.Timeout | undefined;
  /** Counts resets: a transfer that one interrupted must not end. */
  #epoch = 0;

  /** @throws TypeError and RangeError for options that make no sense. */
  constructor(options: EduOptions = {}) {
    OPTIONS.check('EduDevice', options);
    const config = new PciConfigSpace({
      vendorId: 0x1234,
      deviceId: 0x11e8,
      revisionId: 0x10,
      classCode: 0x00ff00,
      subsystemVendorId: 0x1af4,
      subsystemId: 0x1100,
      interruptPin: 1,
      bars: [{ index: 0, size: EDU_BAR_SIZE }],
      capabilities: [msiCapability(1)],
    });
    const flags = IRQ_FLAG_EVENTFD | IRQ_FLAG_MASKABLE;
    super(config, [
      { index: PciIrq.INTX, count: 1, flags },
      { index: PciIrq.MSI, count: 1, flags },
    ]);
    const { strict = false, dmaMask = (1n << 28n) - 1n, dmaDelayMs = 100, factorialDelayMs = 0 } = options;
    this.#options = { strict, dmaMask, dmaDelayMs, factorialDelayMs };
    this.addRegion({
      index: PciRegion.BAR0,
      size: EDU_BAR_SIZE,
      handler: {
        read: (offset, count) => this.#read(offset, count),
        write: (offset, data, client) => this.#write(offset, data, client),
      },
    });
  }

  /**
   * DEVICE_RESET: registers and config space as they were at first; what is under way ends without an effect.
   */
  override reset(): void {
    clearTimeout(this.#factorialTimer);
    clearTimeout(this.#dmaTimer);
    this.#epoch++;
    this.#liveness = 0;
    this.#factorial = 0;
    this.#status = 0;
    this.#interruptStatus = 0;
    this.#dma = { source: 0n, destination: 0n, count: 0n, command: 0n };
    this.buffer.fill(0);
    void super.reset();
  }

  #read(offset: number, count: number): Buffer {
    const data = Buffer.alloc(count);
    for (const { at, size } of this.#pieces(offset, count)) {
      const value = BigInt.asUintN(size * 8, this.#readRegister(at, size));
      if (size === 8) data.writeBigUInt64LE(value, at - offset);
      else data.writeUInt32LE(Number(value), at - offset);
    }
    return data;
  }

  #write(offset: number, data: Buffer, client: ClientContext): void {
    for (const { at, size } of this.#pieces(offset, data.byteLength)) {
      const from = at - offset;
      const value = size === 8 ? data.readBigUInt64LE(from) : BigInt(data.readUInt32LE(from));
      if (at >= FIRST_QWORD || size === 4) this.#writeRegister(at, value, client);
    }
  }

  /** An access in naturally aligned pieces of 8 and 4 bytes; there are no smaller registers. */
  #pieces(offset: number, count: number): { at: number; size: 4 | 8 }[] {
    if (this.#options.strict && !this.config.isBarEnabled(0))
      throw new DeviceError(EINVAL, 'BAR0 is not enabled');
    if (offset % 4 !== 0 || count % 4 !== 0)
      throw new DeviceError(EINVAL, `${count} bytes at 0x${offset.toString(16)}`);
    const pieces: { at: number; size: 4 | 8 }[] = [];
    for (let at = offset; at < offset + count;) {
      const size = at % 8 === 0 && offset + count - at >= 8 ? 8 : 4;
      pieces.push({ at, size });
      at += size;
    }
    return pieces;
  }

  /** All ones where nothing is. */
  #readRegister(at: number, size: number): bigint {
    if (at < FIRST_QWORD && size !== 4) return ALL_ONES;
    switch (at) {
      case EduRegister.IDENTIFICATION:
        return IDENTIFICATION;
      case EduRegister.LIVENESS:
        return BigInt(this.#liveness);
      case EduRegister.FACTORIAL:
        return BigInt(this.#factorial);
      case EduRegister.STATUS:
        return BigInt(this.#status);
      case EduRegister.INTERRUPT_STATUS:
        return BigInt(this.#interruptStatus);
      case EduRegister.DMA_SOURCE:
        return this.#dma.source;
      case EduRegister.DMA_DESTINATION:
        return this.#dma.destination;
      case EduRegister.DMA_COUNT:
        return this.#dma.count;
      case EduRegister.DMA_COMMAND:
        return this.#dma.command;
      default:
        return ALL_ONES;
    }
  }

  #writeRegister(at: number, value: bigint, client: ClientContext): void {
    const dword = Number(BigInt.asUintN(32, value));
    const isTransferring = (this.#dma.command & BigInt(EduDma.START)) !== 0n;
    switch (at) {
      case EduRegister.LIVENESS:
        this.#liveness = ~dword >>> 0;
        break;
      case EduRegister.FACTORIAL:
        this.#startFactorial(dword);
        break;
      case EduRegister.STATUS:
        this.#status = (this.#status & EduStatus.COMPUTING) | (dword & EduStatus.INTERRUPT_AFTER_FACTORIAL);
        break;
      case EduRegister.RAISE_INTERRUPT:
        this.#raise(dword);
        break;
      case EduRegister.ACKNOWLEDGE_INTERRUPT:
        this.#acknowledge(dword);
        break;
      case EduRegister.DMA_SOURCE:
        if (!isTransferring) this.#dma.source = value;
        break;
      case EduRegister.DMA_DESTINATION:
        if (!isTransferring) this.#dma.destination = value;
        break;
      case EduRegister.DMA_COUNT:
        if (!isTransferring) this.#dma.count = value;
        break;
      case EduRegister.DMA_COMMAND:
        if (!isTransferring && (dword & EduDma.START) !== 0) this.#startDma(value, client);
        break;
    }
  }

  #startFactorial(of: number): void {
    if ((this.#status & EduStatus.COMPUTING) !== 0) return;
    this.#factorial = of;
    this.#status |= EduStatus.COMPUTING;
    this.#factorialTimer = setTimeout(() => {
      this.#factorial = factorial(of);
      this.#status &= ~EduStatus.COMPUTING;
      if ((this.#status & EduStatus.INTERRUPT_AFTER_FACTORIAL) !== 0) this.#raise(EduIrq.FACTORIAL);
    }, this.#options.factorialDelayMs).unref();
  }

  #startDma(command: bigint, client: ClientContext): void {
    this.#dma.command = command;
    this.#dmaTimer = setTimeout(
      () => void this.#transfer(client, this.#epoch),
      this.#options.dmaDelayMs,
    ).unref();
  }

  async #transfer(client: ClientContext, epoch: number): Promise<void> {
    const command = Number(this.#dma.command & 0xffn);
    let error: unknown;
    try {
      await this.#move(client, (command & EduDma.FROM_DEVICE) !== 0);
    } catch (caught) {
      // The device does not tell its driver either.
      error = caught;
    }
    if (epoch !== this.#epoch) return;
    this.lastDmaError = error;
    this.#dma.command &= ~BigInt(EduDma.START);
    if ((command & EduDma.INTERRUPT) !== 0) this.#raise(EduIrq.DMA);
  }

  async #move(client: ClientContext, fromDevice: boolean): Promise<void> {
    const { source, destination, count } = this.#dma;
    const begin = (fromDevice ? source : destination) - BigInt(EDU_BUFFER_ADDRESS);
    if (begin < 0n || begin + count > BigInt(EDU_BUFFER_SIZE)) {
      throw new DeviceError(EINVAL, `${count} bytes at ${begin} of the buffer`);
    }
    if (this.#options.strict && (this.config.command & PciCommand.BUS_MASTER) === 0) {
      throw new DeviceError(EINVAL, 'bus mastering is off');
    }
    const inBuffer = this.buffer.subarray(Number(begin), Number(begin + count));
    const address = (fromDevice ? destination : source) & this.#options.dmaMask;
    if (fromDevice) await client.dma.write(address, inBuffer);
    else inBuffer.set(await client.dma.read(address, inBuffer.byteLength));
  }

  #raise(bits: number): void {
    this.#interruptStatus = (this.#interruptStatus | bits) >>> 0;
    if (this.#interruptStatus === 0) return;
    if (this.#usesMsi) this.trigger(PciIrq.MSI);
    else this.setIntx(true);
  }

  #acknowledge(bits: number): void {
    this.#interruptStatus = (this.#interruptStatus & ~bits) >>> 0;
    if (this.#interruptStatus === 0) this.setIntx(false);
  }

  /** Config space enables MSI, or SET_IRQS does: hosts that follow VFIO need not send anything else. */
  get #usesMsi(): boolean {
    if (this.config.msiEnabled || this.#options.strict) return this.config.msiEnabled;
    return [...this.clients].some(
      (client) => client.irq(PciIrq.MSI).isArmed && !client.irq(PciIrq.INTX).isArmed,
    );
  }
}

/** In 32 bits, as the device has them: 34! is the first that leaves none. */
function factorial(of: number): number {
  if (of >= 34) return 0;
  let product = 1;
  for (let factor = 2; factor <= of; factor++) product = Math.imul(product, factor);
  return product >>> 0;
}
