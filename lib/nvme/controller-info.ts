/** What the driver knows of a controller: its registers, and since its last start what Identify Controller said. */
import { ClosedError, UnsupportedError, type Device, type Region } from '../index.js';
import type { NvmeSettings } from './controller-options.js';
import { decodeControllerIdentity, type ControllerIdentity } from './identify-controller.js';
import { requireSameController } from './identity-check.js';
import type { Probed } from './probe.js';
import type { ControllerCapabilities } from './registers.js';
import { takesSgls } from './sgls.js';

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
