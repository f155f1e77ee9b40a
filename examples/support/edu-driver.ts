/**
 * A driver for QEMU's educational device, from its specification (QEMU's docs/specs/edu.rst): what a driver on this
 * library looks like.
 */
import type { Device, DmaBuffer, Region, Vector } from 'vfio-user';

/** Registers in BAR0. */
const IDENTIFICATION = 0x00;
const LIVENESS = 0x04;
const FACTORIAL = 0x08;
const STATUS = 0x20;
const INTERRUPT_STATUS = 0x24;
const RAISE_INTERRUPT = 0x60;
const ACKNOWLEDGE_INTERRUPT = 0x64;
const DMA_SOURCE = 0x80;
const DMA_DESTINATION = 0x88;
const DMA_COUNT = 0x90;
const DMA_COMMAND = 0x98;

const STATUS_COMPUTING = 0x01;
const STATUS_INTERRUPT = 0x80;
const DMA_START = 0x1;
const DMA_TO_HOST = 0x2;
const DMA_INTERRUPT = 0x4;

/** The device's own buffer, in its own addresses. */
const DEVICE_BUFFER = 0x40000;

export class EduDriver {
  /** The device's DMA addresses have 28 bits. */
  static readonly addressBits = 28;
  /** The most bytes of one transfer: QEMU's device takes its 4,096th byte for one too many. */
  static readonly maxTransfer = 4095;
  /** What the device sets in its interrupt status. */
  static readonly factorialInterrupt = 0x001;
  static readonly dmaInterrupt = 0x100;
  readonly #bar: Region;

  private constructor(bar: Region) {
    this.#bar = bar;
  }

  /** @throws where the device is no edu. */
  static async attach(device: Device): Promise<EduDriver> {
    const { vendorId, deviceId } = device.config;
    if (vendorId !== 0x1234 || deviceId !== 0x11e8) {
      throw new Error(
        `${vendorId.toString(16)}:${deviceId.toString(16)} is no edu device, which is 1234:11e8`,
      );
    }
    await device.enable();
    return new EduDriver(device.bar(0));
  }

  /** 0xRRrr00ed: major and minor version. */
  identification(): Promise<number> {
    return this.#bar.readUInt32(IDENTIFICATION);
  }

  identificationSync(): number {
    return this.#bar.readUInt32Sync(IDENTIFICATION);
  }

  /** The device inverts what it is given. */
  async invert(value: number): Promise<number> {
    await this.#bar.writeUInt32(LIVENESS, value);
    return this.#bar.readUInt32(LIVENESS);
  }

  /** `n!` in 32 bits, by polling until the device has computed it. */
  async factorial(n: number): Promise<number> {
    await this.#bar.writeUInt32(STATUS, 0);
    await this.#bar.writeUInt32(FACTORIAL, n);
    await this.#bar.waitFor(STATUS, STATUS_COMPUTING, 0);
    return this.#bar.readUInt32(FACTORIAL);
  }

  /** `n!`, by waiting for the device's interrupt. */
  async factorialByInterrupt(n: number, vector: Vector): Promise<number> {
    await this.#bar.writeUInt32(STATUS, STATUS_INTERRUPT);
    await this.#bar.writeUInt32(FACTORIAL, n);
    await this.#waitFor(vector, EduDriver.factorialInterrupt);
    await this.#bar.writeUInt32(STATUS, 0);
    return this.#bar.readUInt32(FACTORIAL);
  }

  /** Has the device raise its interrupt with these bits of the interrupt status. */
  raise(bits: number): Promise<void> {
    return this.#bar.writeUInt32(RAISE_INTERRUPT, bits);
  }

  /** The interrupt status, and clears it: the device's interrupt line falls. */
  async acknowledge(): Promise<number> {
    const bits = await this.#bar.readUInt32(INTERRUPT_STATUS);
    await this.#bar.writeUInt32(ACKNOWLEDGE_INTERRUPT, bits);
    return bits;
  }

  /** The device reads `length` bytes of `from` into its own buffer. */
  copyIn(from: DmaBuffer, length: number, vector?: Vector): Promise<void> {
    return this.#transfer(from.iova, BigInt(DEVICE_BUFFER), length, DMA_START, vector);
  }

  /** The device writes `length` bytes of its own buffer to `to`. */
  copyOut(to: DmaBuffer, length: number, vector?: Vector): Promise<void> {
    return this.#transfer(BigInt(DEVICE_BUFFER), to.iova, length, DMA_START | DMA_TO_HOST, vector);
  }

  async #transfer(
    source: bigint,
    destination: bigint,
    length: number,
    command: number,
    vector: Vector | undefined,
  ): Promise<void> {
    if (length > EduDriver.maxTransfer)
      throw new RangeError(`edu moves at most ${EduDriver.maxTransfer} bytes`);
    await this.#bar.writeUInt64(DMA_SOURCE, source);
    await this.#bar.writeUInt64(DMA_DESTINATION, destination);
    await this.#bar.writeUInt64(DMA_COUNT, BigInt(length));
    await this.#bar.writeUInt64(
      DMA_COMMAND,
      BigInt(vector === undefined ? command : command | DMA_INTERRUPT),
    );
    if (vector === undefined) await this.#bar.waitFor(DMA_COMMAND, DMA_START, 0);
    else await this.#waitFor(vector, EduDriver.dmaInterrupt);
  }

  async #waitFor(vector: Vector, bit: number): Promise<void> {
    await vector.wait();
    const bits = await this.acknowledge();
    if ((bits & bit) === 0)
      throw new Error(`the interrupt status is 0x${bits.toString(16)}, without 0x${bit.toString(16)}`);
  }
}
