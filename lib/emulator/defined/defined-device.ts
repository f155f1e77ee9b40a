/** A device that is a register map and behaviour. */
import { forbidCloning } from '../../cloning.js';
import type { ClientContext, RegionHandler, RegionModel } from '../device-model.js';
import { andThen } from '../maybe-async.js';
import { MsixTable } from '../msix-table.js';
import { PciConfigSpace, type ConfigCapability } from '../pci-config.js';
import { PciDevice } from '../pci-device.js';
import { SharedMemory } from '../shared-memory.js';
import type { Named, RegisterBehaviour } from './behaviour.js';
import type { DeviceHandle } from './device-handle.js';
import { DeviceState } from './device-state.js';
import { InterruptLines, interruptCapabilities, interruptModels, type MsixPlace } from './interrupts.js';
import { msixRanges, type LaidBar } from './layout.js';

/** Ids of a device, as its config space has them. */
export interface DeviceIdentity {
  /** 16 bits. */
  readonly vendorId: number;
  /** 16 bits. */
  readonly deviceId: number;
  /** Base class, sub-class and programming interface in 24 bits; 0xff0000, of no defined class, by default. */
  readonly classCode?: number | undefined;
  /** 8 bits; 0 by default. */
  readonly revisionId?: number | undefined;
  /** 16 bits; 0 by default. */
  readonly subsystemVendorId?: number | undefined;
  /** 16 bits; 0 by default. */
  readonly subsystemId?: number | undefined;
}

/** What `defineDevice` has checked. */
export interface CheckedDefinition {
  readonly id: DeviceIdentity;
  readonly bars: readonly LaidBar[];
  readonly msix: MsixPlace | undefined;
  readonly msi: number;
  readonly intx: boolean;
  readonly capabilities: readonly ConfigCapability[];
  readonly behaviour: readonly { readonly named: Named; readonly behaviour: RegisterBehaviour }[];
  readonly onReset: (device: DeviceHandle) => void | Promise<void>;
  readonly onError: (error: unknown) => void;
}

/**
 * A device that `defineDevice` has made: for `serve`, for `connect({ model })`, or as the default export that
 * `vfio-user emulate` serves.
 *
 * @example
 * ```ts
 * using device = defineDevice({ id: { vendorId: 0x1234, deviceId: 0x5541 }, map: new URL('uart.svd', import.meta.url) });
 * await using server = await serve(device, { path: '/tmp/uart.sock' });
 * device.handle.set('STATUS.READY', 1);
 * ```
 */
export class DefinedDevice extends PciDevice implements Disposable {
  readonly #state: DeviceState;
  readonly #table: MsixTable | undefined;
  readonly #shared: SharedMemory[] = [];

  /** @internal */
  constructor(definition: CheckedDefinition) {
    const { id, bars, msix, msi, intx } = definition;
    const capabilities = [...interruptCapabilities(msi, msix), ...definition.capabilities];
    const ownBar = msix?.ownSize === undefined ? [] : [{ index: msix.bar, size: msix.ownSize }];
    const config = new PciConfigSpace({
      ...defined(id),
      interruptPin: intx ? 1 : 0,
      bars: [
        ...bars.map(({ index, size, kind, prefetchable }) => ({ index, size, kind, prefetchable })),
        ...ownBar,
      ],
      capabilities,
    });
    super(config, interruptModels(intx, msi, msix?.vectors ?? 0));
    forbidCloning(this, 'a DefinedDevice');
    this.#table =
      msix && new MsixTable(config, { vectors: msix.vectors, table: msix.table, pending: msix.pba });
    const clients = (): ReadonlySet<ClientContext> => this.clients;
    const interrupts = new InterruptLines({
      config,
      table: this.#table,
      msi,
      msix: msix?.vectors ?? 0,
      clients,
      setIntx: intx ? (level) => this.setIntx(level) : undefined,
    });
    const memories = new Map<number, Buffer>();
    this.#state = new DeviceState({
      placements: bars.flatMap(({ content }) => ('placement' in content ? [content.placement] : [])),
      interrupts,
      memories,
      clients,
      onError: definition.onError,
      onReset: definition.onReset,
    });
    for (const { named, behaviour } of definition.behaviour) {
      this.#state.files.find((file) => file.has(named.register))?.on(named, behaviour);
    }
    for (const bar of bars) this.#addBar(bar, msix, memories);
    if (this.#table !== undefined && msix?.ownSize !== undefined) {
      this.addRegion({ index: msix.bar, size: msix.ownSize, handler: this.#table });
    }
  }

  /** The device from outside: registers to look at and to set, interrupts to raise. It is that of before a reset afterwards. */
  get handle(): DeviceHandle {
    return this.#state.handle();
  }

  /** DEVICE_RESET: config space, registers, MSI-X and interrupts are as at first; what was under way is over. */
  override reset(): void | Promise<void> {
    this.#table?.reset();
    return andThen(super.reset(), () => this.#state.resetRegisters());
  }

  /** The client has disconnected. */
  override detach(client: ClientContext): void {
    this.#table?.detach(client);
    super.detach(client);
  }

  /** Gives back the memory that clients can map. Idempotent. */
  close(): void {
    for (const memory of this.#shared) memory.close();
  }

  /** Does what `close` does. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** MSI-X may have been enabled or unmasked. */
  protected override configWritten(): void {
    super.configWritten();
    this.#table?.update();
  }

  #addBar(
    { index, size, content }: LaidBar,
    msix: MsixPlace | undefined,
    memories: Map<number, Buffer>,
  ): void {
    const region: Pick<RegionModel, 'index' | 'size'> = { index, size };
    if ('handler' in content) this.addRegion({ ...region, handler: content.handler });
    else if ('memory' in content) {
      const memory = content.memory === 'shared' ? new SharedMemory(size) : { bytes: Buffer.alloc(size) };
      if (memory instanceof SharedMemory) this.#shared.push(memory);
      memories.set(index, memory.bytes);
      this.addRegion({ ...region, memory });
    } else {
      const registers = this.#registers(index);
      const isShared = this.#table !== undefined && msix?.bar === index;
      this.addRegion({ ...region, handler: isShared ? withMsix(registers, this.#table, msix) : registers });
    }
  }

  #registers(index: number): RegionHandler {
    const file = this.#state.files[this.#state.placements.findIndex(({ region }) => region === index)]!;
    return {
      read: (offset, count, client) => file.read(offset, count, this.#state.handle(client)),
      write: (offset, data, client) => file.write(offset, data, this.#state.handle(client)),
    };
  }
}

/** What touches the table or the pending bits is theirs; registers are elsewhere. */
function withMsix(registers: RegionHandler, table: MsixTable, place: MsixPlace): RegionHandler {
  const ranges = msixRanges(place);
  const isTable = (offset: number, count: number): boolean =>
    ranges.some(([start, length]) => offset < start + length && start < offset + count);
  return {
    read: (offset, count, client) =>
      isTable(offset, count) ? table.read(offset, count, client) : registers.read(offset, count, client),
    write: (offset, data, client) =>
      isTable(offset, data.length)
        ? table.write(offset, data, client)
        : registers.write(offset, data, client),
  };
}

/** Without members that are undefined. */
function defined<T extends object>(object: T): { [Name in keyof T]: Exclude<T[Name], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as {
    [Name in keyof T]: Exclude<T[Name], undefined>;
  };
}
