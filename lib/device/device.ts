/** A device behind a vfio-user server: what `connect` gives. */
import { EventEmitter } from 'node:events';
import { forbidCloning } from '../cloning.js';
import type { RegionWrite } from '../protocol/region-write-multi.js';
import { Exclusive, type CallOptions, type DeviceCounters, type Negotiated } from '../connection/index.js';
import { ClosedError, UnsupportedError, type VfioUserError } from '../errors.js';
import { wrongType } from '../fields.js';
import * as option from '../options.js';
import { Command, DEVICE_FLAG_PCI, DEVICE_FLAG_RESET, PciRegion } from '../protocol/constants.js';
import { encodeGetInfo, type DeviceInfo } from '../protocol/device-info.js';
import type { IrqInfo } from '../protocol/irq-info.js';
import type { ConfigSpace } from './config-space.js';
import { Dma, type DmaOptions } from './dma.js';
import { enableDevice } from './pci-enable.js';
import { Features } from './features.js';
import { identityOf } from './identity.js';
import { Irqs } from './irqs.js';
import { deviceMetrics } from './metrics.js';
import { Migration } from './migration.js';
import { anotherDevice } from './reconnect.js';
import type { RegionDescription } from './region-description.js';
import type { Region } from './region.js';
import { indexOfRegion, type RegionName } from './region-names.js';
import { forSettingUp, type DeviceContext } from './device-context.js';
import { writeMulti } from './write-multi.js';

interface DeviceParts {
  info: DeviceInfo;
  regions: readonly Region[];
  irqs: readonly IrqInfo[];
  config: ConfigSpace | undefined;
}

/** Events of a device that was opened with `reconnect`. */
export interface DeviceEvents {
  /** The connection has ended; calls are rejected until `reconnected`. */
  lost: [reason: VfioUserError];
  /**
   * The server has come back, with the device that it was as far as can be told (`ReconnectOptions` says what is
   * compared), and all is set up as it was.
   */
  reconnected: [];
}

/**
 * A device behind a vfio-user server: what `connect` gives. Close it, or hold it with `await using`: it keeps the process
 * alive, and its memory and fds until then, also when its server has gone.
 *
 * @example
 * ```ts
 * await using device = await connect('/tmp/edu.sock');
 * await device.enable();
 * const value = await device.bar(0).readUInt32(0);
 * ```
 */
export class Device extends EventEmitter<DeviceEvents> {
  /** What GET_INFO said. */
  readonly info: DeviceInfo;
  /** All regions by index; those that the device does not have are of size 0. */
  readonly regions: readonly Region[];
  /** Interrupts. */
  readonly irqs: Irqs;
  /** Memory that the device can reach. */
  readonly dma: Dma;
  /** Device features by number. */
  readonly features: Features;
  /** The device's state as a stream. */
  readonly migration: Migration;
  /** What `bar` gave last: mostly it is asked for again, and `regions` lies elsewhere in memory. */
  #lastBar: Region | undefined;
  readonly #context: DeviceContext;
  readonly #config: ConfigSpace | undefined;
  /** Held by whoever sets registers of config space that belong together: sizing a BAR takes several accesses. */
  readonly #setUp = new Exclusive();
  /** `enable()` was called, and is done again after a reset. */
  #enabled = false;
  /** Errors of posted writes that a fence has told of. */
  #fencedErrors = 0;
  #referenced = true;
  #closing: Promise<void> | undefined;

  /** @internal See `connect`. */
  constructor(context: DeviceContext, parts: DeviceParts, options: DmaOptions) {
    super();
    this.#context = context;
    this.info = parts.info;
    this.regions = parts.regions;
    this.#config = parts.config;
    this.features = new Features(context);
    this.migration = new Migration(context, this.features, this);
    this.dma = new Dma(context, options);
    this.irqs = new Irqs(context, parts.irqs, {
      isPci: this.isPci,
      config: parts.config,
      region: (index) => this.region(index),
    });
    forbidCloning(this, 'a Device');
  }

  /** What VERSION settled: the protocol version and the server's capabilities. */
  get negotiated(): Negotiated {
    return this.#context.negotiated;
  }

  /** Whether the device is on PCI: then it has a config space, BARs, and the interrupts of PCI. */
  get isPci(): boolean {
    return (this.info.flags & DEVICE_FLAG_PCI) !== 0;
  }

  /** Whether `reset` is supported. */
  get canReset(): boolean {
    return (this.info.flags & DEVICE_FLAG_RESET) !== 0;
  }

  /** What has been sent, received, dropped until now: a snapshot. */
  get counters(): DeviceCounters {
    const { connection } = this.#context;
    return { ...connection.counters, spin: connection.spin };
  }

  /**
   * What the device's connection has done until now, for Prometheus and its like: OpenMetrics 1.0 text, which ends with
   * `# EOF`. Messages and bytes, what waits, interrupts, and how long requests took, in seconds by command. Durations are
   * measured from the first call of this on: until then nothing is spent on them. A reconnect begins the counters anew.
   */
  metrics(): string {
    const { connection } = this.#context;
    return deviceMetrics({
      peer: connection.peer,
      isConnected: this.#context.problemOf(undefined) === undefined && !this.isClosed,
      counters: this.counters,
      irqs: this.irqs,
      observer: connection.observer,
    });
  }

  /** The most that a wait may spin, in microseconds: the option of `connect`. */
  get spinUs(): number {
    return this.#context.options.spinUs;
  }

  /** Settles, never rejects, with the reason when the connection ends (with `reconnect`: for good). */
  get closed(): Promise<VfioUserError> {
    return this.#context.ended;
  }

  /** Whether `close` has been called, or the connection has ended (with `reconnect`: for good). */
  get isClosed(): boolean {
    return this.#closing !== undefined || this.#context.isEnded;
  }

  /** The configuration space. @throws UnsupportedError where the device has none. */
  get config(): ConfigSpace {
    if (this.#config === undefined) throw new UnsupportedError('the device has no config space');
    return this.#config;
  }

  /** Whether `config` can be used. */
  get hasConfig(): boolean {
    return this.#config !== undefined;
  }

  /**
   * The region with that index, or of that name: `bar0` to `bar5`, `rom`, `config`, `vga`, `migration`. It is of size 0
   * where the device does not have it.
   * @throws RangeError where the device has none of that index, and for names where it is not on PCI; TypeError for what
   * is no region's name.
   */
  region(which: number | RegionName): Region {
    const index = typeof which === 'number' ? which : indexOfRegion('region: which', which);
    if (typeof which === 'string' && !this.isPci) {
      throw new RangeError(`the device is not on PCI: its regions have numbers, and none is ${which}`);
    }
    const region = this.regions[index];
    if (region === undefined) {
      throw new RangeError(`the device has regions 0 to ${this.regions.length - 1}, not ${which}`);
    }
    return region;
  }

  /** BAR `index`, 0 to 5. @throws RangeError where the device does not have it. */
  bar(index: number): Region {
    if (this.#lastBar?.index === index) return this.#lastBar;
    if (typeof index !== 'number') throw wrongType('Device.bar: index', 'a number', index);
    if (!Number.isInteger(index) || index < PciRegion.BAR0 || index > PciRegion.BAR5) {
      throw new RangeError(`BARs are 0 to 5, not ${index}`);
    }
    const region = this.region(index);
    if (region.size === 0) throw new RangeError(`the device has no BAR ${index}`);
    this.#lastBar = region;
    return region;
  }

  /**
   * Makes the device ready for a driver, as a host does: addresses for BARs that have none, memory and I/O decoding and
   * bus mastering on. Done again after `reset`. Nothing to do, and nothing done, without a config space. One after the
   * other, and after resets that are under way.
   * @throws UnsupportedError where the BARs do not fit their address windows; RemoteError, TimeoutError, ClosedError; the
   * signal's reason.
   */
  async enable(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('Device.enable', options);
    this.#context.requireAvailable(options);
    await this.#setUp.run('Device.enable', options, (call) => this.#enable(call));
  }

  async #enable(call: CallOptions | undefined): Promise<void> {
    if (this.#config !== undefined) await enableDevice(this.#config, this.regions, call);
    this.#enabled = true;
    // What interrupts wrote while memory decoding was off has not arrived. Nothing is sent where none is enabled.
    await this.irqs.restore(call);
  }

  /**
   * Writes several values of 1 to 8 bytes, of any regions, in one message (REGION_WRITE_MULTI) and in this order: what a
   * server that offers the capability `write_multiple` takes, at most 200.
   * @throws UnsupportedError where the server does not offer it; RangeError for no write, too many, or what a region does not
   * have; RemoteError where the server has done only the first of them (its message says how many); TimeoutError,
   * ClosedError; the signal's reason.
   */
  writeMulti(writes: readonly RegionWrite[], options?: CallOptions): Promise<void> {
    const check = ({ region, offset, data }: RegionWrite) => {
      this.region(region).requireWritable('Device.writeMulti', offset, data.length);
      if (this.isPci && region === (PciRegion.CONFIG as number)) {
        this.#context.memorySpace.beforeWrite(offset, data);
      }
    };
    return writeMulti(this.#context, writes, check, options);
  }

  /**
   * Waits until every posted write before it has been done: the server takes commands in their order, so its answer to a
   * harmless one (GET_INFO) says so, and that the device is alive.
   * @returns how many posted writes the server reported as failed since the last fence; servers need not report any.
   */
  async fence(options?: CallOptions): Promise<number> {
    option.CALL_OPTIONS.check('Device.fence', options);
    const connection = this.#context.userConnection;
    await connection.call(Command.DEVICE_GET_INFO, encodeGetInfo(), null, () => undefined, options);
    const failed = connection.counters.postedErrors - this.#fencedErrors;
    this.#fencedErrors += failed;
    return failed;
  }

  /**
   * DEVICE_RESET. What was enabled before (`enable`, interrupts) is set up again afterwards.
   * @throws UnsupportedError where the device cannot be reset; RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  async reset(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('Device.reset', options);
    if (!this.canReset) {
      const { whyNoReset } = this.#context.options;
      throw new UnsupportedError(
        `the device does not support reset${whyNoReset === undefined ? '' : `: ${whyNoReset}`}`,
      );
    }
    this.#context.requireAvailable(options);
    await this.#setUp.run('Device.reset', options, (call) => this.#reset(call));
  }

  async #reset(call: CallOptions | undefined): Promise<void> {
    const send = () => {
      this.migration.deviceIsReset();
      return this.#context.userConnection.call(Command.DEVICE_RESET, null, null, () => undefined, call);
    };
    await this.#context.memorySpace.whileResetting(async () => {
      if (this.#config === undefined) await send();
      else await this.#config.refreshAfter(send, call);
    });
    if (this.#enabled) await this.#enable(call);
    else await this.irqs.restore(call);
  }

  /** @internal On a new connection: everything as it was left. Owns the regions' fds. */
  async restore(regions: readonly RegionDescription[], options: CallOptions): Promise<void> {
    this.#fencedErrors = 0;
    if (!this.#referenced) this.#context.connection.unref();
    const ours = [...regions];
    try {
      const own = forSettingUp(options);
      await this.#setUp.run('setting the device up again', own, (call) => this.#restore(ours, call));
    } finally {
      for (const description of ours) description.close();
    }
    // The last: it may set the device running.
    await this.migration.restoreAfterReconnect();
  }

  /** Takes out of `ours` what others own from then on. */
  async #restore(ours: RegionDescription[], options: CallOptions | undefined): Promise<void> {
    await this.#checkIdentity(options);
    for (const description of ours.splice(0)) {
      this.#context.addResource(description);
      this.regions[description.info.index]?.restore(description);
    }
    this.features.forget();
    await this.dma.restore(options);
    if (this.#enabled) await this.#enable(options);
    else await this.irqs.restore(options);
  }

  /** Reads config space again, which must be the same device's: another one is given no memory. */
  async #checkIdentity(options: CallOptions | undefined): Promise<void> {
    const config = this.#config;
    if (config === undefined) return;
    const before = identityOf(config);
    await config.refresh(options);
    const now = identityOf(config);
    if (now !== before) throw anotherDevice(`it was ${before} and is ${now}`);
  }

  /** Keeps the process alive (as it does at first). */
  ref(): this {
    this.#referenced = true;
    this.#context.connection.ref();
    this.irqs.ref();
    return this;
  }

  /** Lets the process end although the device is open. */
  unref(): this {
    this.#referenced = false;
    this.#context.connection.unref();
    this.irqs.unref();
    return this;
  }

  /**
   * Ends the connection and gives everything back: mappings, DMA buffers, vectors. Idempotent, and done when this returns,
   * unless a save or a restore is under way, or being left. That is broken off first and the device taken out of it, which
   * takes ten seconds at most; other calls are refused meanwhile.
   */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    const reason = new ClosedError('the device was closed by its owner');
    const left = this.migration.close(reason);
    if (left !== undefined) {
      this.#context.refuseCalls(reason);
      await left;
    }
    this.#context.connection.close();
    this.#context.closeResources();
  }

  /** Does what `close` does. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
