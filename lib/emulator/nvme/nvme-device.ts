/**
 * An NVMe controller, 1234:5845, with namespaces in memory or files: for demos, for tests of drivers, and for faults.
 *
 * ```
 *   BAR0   registers by message; doorbells at 0x1000, by message and, by default, by mapping
 *   BAR4   MSI-X table at 0, pending bits at 0x8000
 * ```
 * It is the controller of one host: it uses the memory of the client that enabled it (CC.EN), until it is disabled
 * or that client has gone.
 */
import { IRQ_FLAG_EVENTFD, PciIrq, PciRegion } from '../../protocol/constants.js';
import { DeviceError, EINVAL } from '../device-error.js';
import type { ClientContext } from '../device-model.js';
import { MsixTable } from '../msix-table.js';
import { msixCapability, PciConfigSpace } from '../pci-config.js';
import { PciDevice } from '../pci-device.js';
import * as option from '../../options.js';
import { TurnPace } from '../../turn-share.js';
import { AdminCommands } from './admin-commands.js';
import {
  CC_EN,
  CSTS_CFS,
  CSTS_RDY,
  CSTS_SHST_COMPLETE,
  CSTS_SHST_MASK,
  PAGE,
  Reg,
  Status,
} from './constants.js';
import { DoorbellPage } from './doorbell-page.js';
import { Engine, type EngineHost } from './engine.js';
import { NvmeFeatures } from './features.js';
import { Health } from './health.js';
import { DEVICE_ID, VENDOR_ID, type Personality } from './identify-data.js';
import { IoCommands } from './io-commands.js';
import { EmulatedNamespace, NAMESPACE_OPTIONS, type EmulatedNamespaceOptions } from './namespace.js';
import type { NvmeIntercept } from './nvme-faults.js';
import { CompletionRing, SubmissionRing } from './rings.js';
import { CommandError, type Sqe } from './sqe.js';

/** Options of an `NvmeDevice`. */
export interface NvmeDeviceOptions {
  /** NSID 1 and on. The device closes their stores when it is closed. */
  namespaces: readonly EmulatedNamespaceOptions[];
  /** At most 20 characters. */
  serialNumber?: string;
  /** At most 40 characters. */
  modelNumber?: string;
  /** SUBNQN: at most 223 bytes. Default: one of the serial number. */
  subsystemNqn?: string;
  /** I/O queue pairs; 16 by default. */
  queues?: number;
  /** The most entries of a queue; 1,024 by default. */
  queueEntries?: number;
  /** MDTS: the longest transfer as a power of two of 4 KiB pages; 5, which is 128 KiB, by default; 0 for no limit. */
  mdts?: number;
  /** MSI-X vectors; one more than queues by default. */
  vectors?: number;
  /** CAP.DSTRD, 0 to 8: doorbells are `4 << doorbellStride` bytes apart; 0 by default. */
  doorbellStride?: number;
  /** Whether clients can map the doorbells; true by default. It takes the addon. */
  mapDoorbells?: boolean;
  /** Offers shadow doorbells (Doorbell Buffer Config). False by default. */
  shadowDoorbells?: boolean;
  /** Takes SGLs in commands for I/O. True by default. */
  sgls?: boolean;
  /** CAP.TO, rounded up to 500 ms; 1,000 by default. */
  readyTimeoutMs?: number;
  /** Sees every command, and may make it fail. See `intercept`. */
  intercept?: NvmeIntercept;
}

/** Dword 0 of an event's completion: a notice, Namespace Attribute Changed, the log page that has them. */
const NAMESPACE_CHANGED = 0x0004_0002;
const VERSION_2_0 = 0x0002_0000;
const MSIX_BAR_SIZE = 0x10000;
const MSIX_PENDING = 0x8000;
/** CAP: contiguous queues required, NVM command set, page sizes of 4 KiB only. */
const CAP_CQR = 1n << 16n;
const CAP_CSS_NVM = 1n << 37n;
const MOST_QUEUES = 1024;
const MOST_ENTRIES = 65_536;

const OPTIONS = new option.OptionTable<NvmeDeviceOptions>(
  {
    namespaces: option.listOf('namespaces', option.options(NAMESPACE_OPTIONS)),
    serialNumber: option.string,
    modelNumber: option.string,
    subsystemNqn: option.string,
    queues: option.wholeNumber(1, MOST_QUEUES),
    queueEntries: option.wholeNumber(2, MOST_ENTRIES),
    mdts: option.wholeNumber(0, 15),
    vectors: option.wholeNumber(1, 2048),
    doorbellStride: option.wholeNumber(0, 8),
    mapDoorbells: option.boolean,
    shadowDoorbells: option.boolean,
    sgls: option.boolean,
    readyTimeoutMs: option.wholeNumber(0, 127_500),
    intercept: option.callback,
  },
  ['namespaces'],
);

/**
 * An NVMe controller (NVM Express base specification 2.0) with its namespaces: admin and I/O queues in the client's memory,
 * MSI-X, asynchronous events, and faults by option.
 *
 * @example
 * ```ts
 * await using device = new NvmeDevice({ namespaces: [{ store: new MemoryStore(64 << 20) }] });
 * await using server = await serve(device, { path: '/tmp/nvme.sock' });
 * ```
 */
export class NvmeDevice extends PciDevice {
  readonly #namespaces: EmulatedNamespace[];
  /** Namespaces that were replaced since the host last read the Changed Namespace List. */
  readonly #changed = new Set<number>();
  /** Sees every command, and may make it fail; can be set at any time. */
  intercept: NvmeIntercept | undefined;
  /** CSTS.RDY stays what it is: the controller can be neither enabled nor disabled. */
  isReadyStuck = false;
  readonly #options: Required<Omit<NvmeDeviceOptions, 'intercept' | 'namespaces'>>;
  readonly #personality: Personality;
  readonly #health = new Health();
  readonly #doorbells: DoorbellPage;
  readonly #msix: MsixTable;
  #features = new NvmeFeatures();
  #registers = { intms: 0, cc: 0, csts: 0, aqa: 0, asq: 0n, acq: 0n };
  #engine: Engine | undefined;
  #admin: AdminCommands | undefined;
  /** The client that has enabled the controller. */
  #owner: ClientContext | undefined;
  #isStalled = false;
  #isClosed = false;
  #commandCounts = { admin: 0, io: 0 };

  /** @throws TypeError and RangeError for what an NVMe controller cannot be. */
  constructor(options: NvmeDeviceOptions) {
    OPTIONS.check('NvmeDevice', options);
    const settings = settingsOf(options);
    const { queues, vectors } = settings;
    const stride = 4 << settings.doorbellStride;
    const barSize = DoorbellPage.barSize(queues + 1, stride);
    const config = new PciConfigSpace({
      vendorId: VENDOR_ID,
      deviceId: DEVICE_ID,
      classCode: 0x010802,
      bars: [
        { index: PciRegion.BAR0, size: barSize, kind: 'memory64' },
        { index: PciRegion.BAR4, size: MSIX_BAR_SIZE },
      ],
      capabilities: [msixCapability(vectors, { bir: 4, offset: 0 }, { bir: 4, offset: MSIX_PENDING })],
    });
    super(config, [{ index: PciIrq.MSIX, count: vectors, flags: IRQ_FLAG_EVENTFD }]);
    this.#msix = new MsixTable(config, { vectors, table: 0, pending: MSIX_PENDING });
    this.#options = settings;
    this.intercept = options.intercept;
    this.#namespaces = options.namespaces.map((namespace, i) => new EmulatedNamespace(i + 1, namespace));
    this.#personality = {
      serialNumber: settings.serialNumber,
      modelNumber: settings.modelNumber,
      subsystemNqn: settings.subsystemNqn,
      firmwareRevision: '1.0',
      mdts: settings.mdts,
      version: VERSION_2_0,
      hasShadowDoorbells: settings.shadowDoorbells,
      takesSgls: settings.sgls,
      namespaces: this.#namespaces,
    };
    this.#doorbells = new DoorbellPage(barSize, stride, settings.mapDoorbells);
    this.#addBars(barSize);
  }

  /** The namespaces, NSID 1 and on. */
  get namespaces(): readonly EmulatedNamespace[] {
    return this.#namespaces;
  }

  /**
   * Puts another namespace in the place of `id`, as a format or another controller's namespace management does, and tells
   * the host (Namespace Attribute Changed). The old store is not closed.
   * @throws RangeError for a number that there is not, and for what a namespace cannot be.
   */
  replaceNamespace(id: number, namespace: EmulatedNamespaceOptions): void {
    const at = this.#namespaces.findIndex((other) => other.id === id);
    if (at < 0)
      throw new RangeError(`the controller has ${this.#namespaces.length} namespaces; ${id} is none of them`);
    this.#namespaces[at] = new EmulatedNamespace(id, namespace);
    // One event until the list is read (section 5.2.1).
    if (this.#changed.size === 0 && this.#features.sendsNamespaceNotices) this.raiseEvent(NAMESPACE_CHANGED);
    this.#changed.add(id);
  }

  /** I/O commands that were fetched since the device was made. */
  get commandCount(): number {
    return this.#commandCounts.io;
  }

  /** No command is fetched any more; registers work, and a controller reset ends it. */
  stall(): void {
    this.#isStalled = true;
  }

  /** Controller fatal status: CSTS.CFS is set and nothing is carried out, until a controller reset. */
  fail(): void {
    this.#isStalled = true;
    this.#registers.csts |= CSTS_CFS;
  }

  /** An asynchronous event, dword 0 of its completion: type, information, log page (section 5.2.1). */
  raiseEvent(dword: number): void {
    this.#admin?.raiseEvent(dword);
  }

  /** The client has disconnected: where it had enabled the controller, that is disabled. */
  override detach(client: ClientContext): void {
    super.detach(client);
    this.#msix.detach(client);
    if (client !== this.#owner) return;
    // Its memory is out of reach: what is under way ends by itself.
    this.#registers.cc = 0;
    void this.#disable();
  }

  /** DEVICE_RESET: the controller is disabled, registers and config space are as they were at first. */
  override async reset(): Promise<void> {
    await this.#disable();
    this.#registers = { intms: 0, cc: 0, csts: 0, aqa: 0, asq: 0n, acq: 0n };
    this.#msix.reset();
    await super.reset();
  }

  /** Whether it was closed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Disables the controller, gives the doorbells' memory back and closes the stores. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#disable();
    this.#doorbells.close();
    const results = await Promise.allSettled(this.namespaces.map(async ({ store }) => store.close()));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  /** Does what `close` does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal */
  protected override configWritten(): void {
    super.configWritten();
    this.#msix.update();
  }

  #addBars(size: number): void {
    const { memory } = this.#doorbells;
    const mapping = memory === undefined ? {} : { memory, mappable: [DoorbellPage.mappable(size)] };
    this.addRegion({
      index: PciRegion.BAR0,
      size,
      handler: {
        read: (offset, count) => this.#read(offset, count),
        write: (offset, data, client) => this.#write(offset, data, client),
      },
      ...mapping,
    });
    this.addRegion({ index: PciRegion.BAR4, size: MSIX_BAR_SIZE, handler: this.#msix });
  }

  /** Registers take dwords and qwords; doorbells read as nothing. */
  #read(offset: number, count: number): Buffer {
    checkAccess(offset, count);
    if (offset >= Reg.END) return Buffer.alloc(count);
    const { intms, cc, csts, aqa, asq, acq } = this.#registers;
    const file = Buffer.alloc(Reg.END + 8);
    file.writeBigUInt64LE(this.#capabilities, Reg.CAP);
    file.writeUInt32LE(VERSION_2_0, Reg.VS);
    file.writeUInt32LE(intms, Reg.INTMS);
    file.writeUInt32LE(intms, Reg.INTMC);
    file.writeUInt32LE(cc, Reg.CC);
    file.writeUInt32LE(csts, Reg.CSTS);
    file.writeUInt32LE(aqa, Reg.AQA);
    file.writeBigUInt64LE(asq, Reg.ASQ);
    file.writeBigUInt64LE(acq, Reg.ACQ);
    return file.subarray(offset, offset + count);
  }

  get #capabilities(): bigint {
    const { queueEntries, readyTimeoutMs, doorbellStride } = this.#options;
    const to = BigInt(Math.ceil(readyTimeoutMs / 500));
    return BigInt(queueEntries - 1) | CAP_CQR | (to << 24n) | (BigInt(doorbellStride) << 32n) | CAP_CSS_NVM;
  }

  #write(offset: number, data: Buffer, client: ClientContext): void | Promise<void> {
    checkAccess(offset, data.byteLength);
    if (offset >= Reg.DOORBELLS) {
      this.#ring(offset - Reg.DOORBELLS, data);
      return;
    }
    const low = data.readUInt32LE(0);
    const registers = this.#registers;
    switch (offset) {
      case Reg.INTMS:
        registers.intms = (registers.intms | low) >>> 0;
        break;
      case Reg.INTMC:
        registers.intms = (registers.intms & ~low) >>> 0;
        break;
      case Reg.AQA:
        registers.aqa = low & 0x0fff_0fff;
        break;
      case Reg.ASQ:
      case Reg.ASQ + 4:
        registers.asq = merged(registers.asq, offset - Reg.ASQ, data);
        break;
      case Reg.ACQ:
      case Reg.ACQ + 4:
        registers.acq = merged(registers.acq, offset - Reg.ACQ, data);
        break;
      case Reg.CC:
        return this.#configure(low, client);
    }
  }

  /** A doorbell by message. */
  #ring(offset: number, data: Buffer): void {
    if (data.byteLength !== 4) throw new DeviceError(EINVAL, 'doorbells are dwords');
    const stride = 4 << this.#options.doorbellStride;
    if (offset % stride !== 0) return;
    this.#doorbells.write(offset, data.readUInt32LE(0));
    const index = offset / stride;
    this.#engine?.onDoorbell(index >>> 1, index % 2 === 0 ? 'tail' : 'head');
  }

  /** A write to CC: enabling, disabling, shutdown. The host sees of it in CSTS. */
  async #configure(value: number, client: ClientContext): Promise<void> {
    const before = this.#registers.cc;
    this.#registers.cc = value;
    const isEnabled = (value & CC_EN) !== 0;
    const wasEnabled = (before & CC_EN) !== 0;
    if (this.isReadyStuck) return;
    if (isEnabled && !wasEnabled) this.#enable(client);
    // Not waited for: the reply to this message says nothing of it.
    else if (!isEnabled && wasEnabled) void this.#disable();
    if (((value ^ before) & 0xc000) !== 0 && (value & 0xc000) !== 0) await this.#shutDown();
  }

  #enable(client: ClientContext): void {
    const { aqa, asq, acq, cc } = this.#registers;
    const isUsable =
      (asq | acq) % BigInt(PAGE) === 0n && ((cc >>> 7) & 0xf) === 0 && this.#engine === undefined;
    if (!isUsable) {
      this.#registers.csts |= CSTS_CFS;
      return;
    }
    this.#owner = client;
    this.#isStalled = false;
    this.#features = new NvmeFeatures();
    this.#changed.clear();
    this.#doorbells.clear(0, 'tail');
    this.#doorbells.clear(0, 'head');
    const cq = new CompletionRing(0, acq, (aqa >>> 16) + 1, 0);
    const engine = new Engine(this.#engineHost(client), new SubmissionRing(0, asq, (aqa & 0xfff) + 1, cq));
    this.#engine = engine;
    this.#admin = new AdminCommands({
      engine,
      memory: client.dma,
      doorbells: this.#doorbells,
      doorbellStride: 4 << this.#options.doorbellStride,
      personality: this.#personality,
      health: this.#health,
      features: this.#features,
      changedNamespaces: this.#changed,
      maxQueues: this.#options.queues,
      maxQueueEntries: this.#options.queueEntries,
      vectors: this.#options.vectors,
      format: (namespace, index) => this.#format(namespace, index),
    });
    this.#doorbells.watch(() => engine.look());
    this.#registers.csts = CSTS_RDY;
  }

  /** Whoever had commands for its blocks under way gets zeroes, or what it writes into the new ones. */
  async #format(namespace: EmulatedNamespace, index: number): Promise<void> {
    const { store, formats } = namespace;
    const at = this.#namespaces.indexOf(namespace);
    if (at < 0) throw new CommandError(Status.FORMAT_IN_PROGRESS);
    await store.clear(0, store.size);
    this.#namespaces[at] = namespace.formatted(formats[index]!);
  }

  /** CSTS.RDY is cleared when no memory of the client's is touched any more (section 3.7.2). */
  async #disable(): Promise<void> {
    const engine = this.#engine;
    this.#doorbells.unwatch();
    await engine?.stop();
    if (this.#engine !== engine) return;
    this.#engine = undefined;
    this.#admin = undefined;
    this.#owner = undefined;
    this.#isStalled = false;
    this.#registers.csts = 0;
  }

  async #shutDown(): Promise<void> {
    await this.#engine?.idle();
    for (const { store } of this.namespaces) await store.flush();
    this.#registers.csts = (this.#registers.csts & ~CSTS_SHST_MASK) | CSTS_SHST_COMPLETE;
  }

  #engineHost(client: ClientContext): EngineHost {
    const pace = new TurnPace();
    const io = new IoCommands(client.dma, this.#personality, this.#health, pace);
    const isStalled = () => this.#isStalled;
    return {
      memory: client.dma,
      pace,
      doorbells: this.#doorbells,
      execute: (sq, sqe) => (sq.id === 0 ? this.#admin!.execute(sq, sqe) : io.execute(sqe)),
      intercept: (sq, sqe) => this.#intercept(sq.id, sqe),
      interrupt: (vector) => this.#msix.interrupt(client, vector),
      onFailure: (completion, sqe) => this.#health.recordError(completion, sqe),
      onFatal: () => this.fail(),
      get isStalled() {
        return isStalled();
      },
    };
  }

  #intercept(queue: number, sqe: Sqe) {
    const number = queue === 0 ? ++this.#commandCounts.admin : ++this.#commandCounts.io;
    const verdict = this.intercept?.({
      number,
      queue,
      opcode: sqe.opcode,
      commandId: sqe.cid,
      namespace: sqe.nsid,
      lba: (BigInt(sqe.cdw11) << 32n) | BigInt(sqe.cdw10),
    });
    return verdict ?? 'pass';
  }
}

/** `data` put into a register of 8 bytes. */
function merged(value: bigint, at: number, data: Buffer): bigint {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(value);
  data.copy(bytes, at);
  return bytes.readBigUInt64LE(0);
}

function checkAccess(offset: number, count: number): void {
  if ((count === 4 || count === 8) && offset % count === 0) return;
  // CC and others are not aligned to 8: dwords only there.
  throw new DeviceError(EINVAL, `${count} bytes at 0x${offset.toString(16)}`);
}

function settingsOf(
  options: NvmeDeviceOptions,
): Required<Omit<NvmeDeviceOptions, 'intercept' | 'namespaces'>> {
  const { queues = 16, serialNumber = 'VFIO-USER-1' } = options;
  return {
    serialNumber,
    modelNumber: options.modelNumber ?? 'vfio-user emulated NVMe controller',
    subsystemNqn: options.subsystemNqn ?? `nqn.2014-08.org.nvmexpress:${serialNumber}`,
    queues,
    queueEntries: options.queueEntries ?? 1024,
    mdts: options.mdts ?? 5,
    vectors: options.vectors ?? queues + 1,
    doorbellStride: options.doorbellStride ?? 0,
    mapDoorbells: options.mapDoorbells ?? true,
    shadowDoorbells: options.shadowDoorbells ?? false,
    sgls: options.sgls ?? true,
    readyTimeoutMs: options.readyTimeoutMs ?? 1_000,
  };
}
