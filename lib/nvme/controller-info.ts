/** What the driver knows of a controller: its registers, and since its last start what Identify Controller said. */
import { ClosedError, UnsupportedError, type Device, type Region } from '../index.js';
import type { NvmeSettings } from './controller-options.js';
import { takesSgls } from './data-pointers.js';
import { NvmeControllerError } from './errors.js';
import { decodeControllerIdentity, type ControllerIdentity } from './identify.js';
import { decodeCapabilities, NvmeRegister, versionText, type ControllerCapabilities } from './registers.js';

/** The host's own; a controller whose smallest page is larger has its way. */
const PAGE_SIZE = 4096;
/** The largest page that DMA memory is aligned to. */
const MOST_PAGE_SIZE = 2 << 20;
/** LPA bit. */
const LOG_PAGE_OFFSETS = 1 << 2;

export class ControllerInfo {
  readonly device: Device;
  /** BAR 0. */
  readonly bar: Region;
  readonly capabilities: ControllerCapabilities;
  /** VS, for example `1.4.0`. */
  readonly version: string;
  /** The memory page size that the controller is given, bytes. */
  readonly pageSize: number;
  readonly settings: NvmeSettings;
  /** Identify Controller as it came. */
  identityBytes: Buffer = Buffer.alloc(0);
  /** The longest transfer of one command, bytes. */
  maxTransferBytes = PAGE_SIZE;
  /** Whether data may be named by SGLs. */
  usesSgls = false;
  #identity: ControllerIdentity | undefined;

  /** @throws UnsupportedError for a controller whose pages memory cannot be aligned to. */
  constructor(device: Device, { bar, capabilities, version }: Probed, settings: NvmeSettings) {
    this.device = device;
    this.bar = bar;
    this.capabilities = capabilities;
    this.version = version;
    this.settings = settings;
    this.pageSize = pageSizeFor(capabilities);
  }

  /** @throws ClosedError before the controller's first start. */
  get identity(): ControllerIdentity {
    if (this.#identity === undefined) throw new ClosedError('the controller did not come up');
    return this.#identity;
  }

  /** LPA bit 2: log pages can be read from any offset. */
  get hasLogOffsets(): boolean {
    return this.#identity !== undefined && (this.#identity.logPageAttributes & LOG_PAGE_OFFSETS) !== 0;
  }

  /**
   * What Identify Controller says after a start.
   * @throws NvmeControllerError where it is another controller than before.
   */
  update(bytes: Buffer): void {
    const identity = decodeControllerIdentity(bytes);
    if (this.#identity !== undefined) requireSameController(this.#identity, identity);
    this.identityBytes = bytes;
    this.#identity = identity;
    const { maxDataTransfer, sgls } = identity;
    const limit = maxDataTransfer === 0 ? Infinity : 2 ** maxDataTransfer * this.capabilities.minPageSize;
    this.maxTransferBytes = Math.min(limit, this.settings.maxTransferBytes);
    this.usesSgls = this.settings.sgls && takesSgls(sgls);
  }
}

function pageSizeFor({ minPageSize }: ControllerCapabilities): number {
  if (minPageSize <= MOST_PAGE_SIZE) return Math.max(PAGE_SIZE, minPageSize);
  throw new UnsupportedError(
    `the controller's minimum memory page size is ${minPageSize} bytes (CAP.MPSMIN); the driver supports up to ${MOST_PAGE_SIZE}`,
  );
}

/** Whether a device is a controller that the driver knows to use, and what its registers say of it. */

/** CAP.CSS bits: the NVM command set, or a set of I/O command sets, which the NVM command set is in. */
const USABLE_COMMAND_SETS = 0b0100_0001;

/** What can be known of a controller before it is brought up. */
export interface Probed {
  /** BAR 0. */
  bar: Region;
  capabilities: ControllerCapabilities;
  /** VS, for example `1.4.0`. */
  version: string;
}

/** @throws UnsupportedError for what is no NVMe controller, or not for the NVM command set; what reads throw. */
export async function probe(device: Device): Promise<Probed> {
  const bar = controllerRegisters(device);
  const capabilities = decodeCapabilities(await bar.readUInt64(NvmeRegister.CAP));
  if ((capabilities.commandSets & USABLE_COMMAND_SETS) === 0) {
    throw new UnsupportedError('the controller does not support the NVM command set');
  }
  if (queuesWithDoorbells(bar, capabilities) < 1) {
    throw new UnsupportedError(
      `BAR 0 (${bar.size} bytes) is too small for the doorbells of an I/O queue (stride ${capabilities.doorbellStride} bytes)`,
    );
  }
  return { bar, capabilities, version: versionText(await bar.readUInt32(NvmeRegister.VS)) };
}

/** For how many queue pairs BAR 0 has doorbells. */
export function queuesWithDoorbells(bar: Region, { doorbellStride }: ControllerCapabilities): number {
  return Math.floor((bar.size - NvmeRegister.DOORBELLS) / (2 * doorbellStride));
}

/** BAR 0, where it can be the registers of a controller. */
function controllerRegisters(device: Device): Region {
  const bar =
    device.isPci && (device.regions[0]?.size ?? 0) > NvmeRegister.DOORBELLS ? device.bar(0) : undefined;
  if (bar === undefined)
    throw new UnsupportedError('the device is not an NVMe controller: BAR 0 is missing or too small');
  const { classCode } = device.hasConfig ? device.config.header : { classCode: undefined };
  const isNvme = classCode === undefined || (classCode.base === 0x01 && classCode.sub === 0x08);
  if (!isNvme)
    throw new UnsupportedError('the device is not an NVMe controller: its class code is not 01h, 08h');
  return bar;
}

/** @throws NvmeControllerError where another controller has come: nothing that was meant for the first is sent to it. */
export function requireSameController(was: ControllerIdentity, is: ControllerIdentity): void {
  requireSame([
    ['serial number', was.serialNumber, is.serialNumber],
    ['model number', was.modelNumber, is.modelNumber],
    ['subsystem NQN', was.subsystemNqn, is.subsystemNqn],
    ['vendor', was.vendorId, is.vendorId],
  ]);
}

/** @throws NvmeControllerError where the registers and queues that exist do not fit any more. */
export function requireSameCapabilities(was: ControllerCapabilities, is: ControllerCapabilities): void {
  requireSame([
    ['doorbell stride', was.doorbellStride, is.doorbellStride],
    ['smallest memory page', was.minPageSize, is.minPageSize],
    ['command sets', was.commandSets, is.commandSets],
  ]);
}

function requireSame(pairs: readonly [what: string, was: unknown, is: unknown][]): void {
  const other = pairs.find(([, was, is]) => was !== is);
  if (other === undefined) return;
  const [what, was, is] = other;
  throw new NvmeControllerError(
    `the controller is another one than before: its ${what} was ${JSON.stringify(was)} and is ${JSON.stringify(is)}`,
  );
}
