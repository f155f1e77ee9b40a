/** A virtio SCSI host as its user has it. */
import { integer, outOfRange } from '../fields.js';
import type { CallOptions, Device } from '../index.js';
import * as option from '../options.js';
import { VirtioDeviceType } from './constants.js';
import { virtioSettings } from './driver-options.js';
import type { DriverKind, DriverQueue, DriverSetup } from './driver-setup.js';
import { VirtioDriver, type VirtioParts } from './driver.js';
import { VirtioStatusError } from './errors.js';
import { ScsiFeature } from './features.js';
import { ReceiveQueue } from './receive-queue.js';
import { reportLunsCdb } from './scsi-cdb.js';
import { readScsiConfig, type VirtioScsiConfig } from './scsi-config.js';
import { decodeLuns, type ScsiInquiry } from './scsi-data.js';
import { BAD_TARGET, ScsiError } from './scsi-error.js';
import {
  EVENT_BYTES,
  EVENT_QUEUE,
  tellEvent,
  type ScsiEventSink,
  type VirtioScsiEvents,
} from './scsi-events.js';
import { ScsiHost } from './scsi-host.js';
import {
  COMMAND_OPTIONS,
  DEFAULT_SCSI_TRANSFER,
  MOST_LUN,
  SCSI_OPTIONS,
  type ScsiCommand,
  type ScsiResult,
  type VirtioScsiOptions,
} from './scsi-options.js';
import { SenseKey } from './scsi-sense.js';
import { ScsiUnit } from './scsi-unit.js';

const MOST_EVENTS = 16;
const MOST_TARGET = 255;
const LUN_BYTES = 8;
const FIRST_LUNS = 64;
/** Targets that are asked at once. */
const SCANNED_AT_ONCE = 16;
const COMMAND_NAME = 'command';

/** A logical unit that a scan has found. */
export interface ScannedUnit {
  /** The unit. */
  readonly unit: ScsiUnit;
  /** What it says that it is. */
  readonly inquiry: ScsiInquiry;
}

class ScsiKind implements DriverKind {
  readonly features = [ScsiFeature.HOTPLUG, ScsiFeature.CHANGE];
  readonly host: ScsiHost;
  tell: ScsiEventSink = () => undefined;
  readonly #wantedQueues: number;

  constructor({ maxTransferBytes = DEFAULT_SCSI_TRANSFER, queues = 1 }: VirtioScsiOptions) {
    this.host = new ScsiHost(maxTransferBytes);
    this.#wantedQueues = queues;
  }

  async configure({ transport }: DriverSetup): Promise<void> {
    this.host.update(await readScsiConfig(transport));
  }

  async makeQueues(setup: DriverSetup): Promise<readonly DriverQueue[]> {
    const events = await ReceiveQueue.allocate(setup, {
      ...{ index: EVENT_QUEUE, bytes: EVENT_BYTES, least: EVENT_BYTES, count: MOST_EVENTS },
      onReceived: (bytes) => {
        tellEvent(bytes, this.tell);
        return true;
      },
    });
    try {
      return [events, ...(await this.host.makeQueues(setup, this.#wantedQueues))];
    } catch (error) {
      await events.free().catch(() => undefined);
      throw error;
    }
  }

  onConfigChange(): void {}
}

/**
 * A virtio SCSI host (Virtual I/O Device 1.2, section 5.6), driven: its logical units found, read and written, and commands of
 * the caller's. Requests that a device reset interrupts are sent again, but for commands of the caller's.
 *
 * Events: `hotplug` where a unit was reset, came or went; `change` where something about one has changed; `missed` where the device
 * could not tell all. Without `completion: 'interrupt'` they are looked for every 20 ms.
 * @example
 * ```ts
 * await using device = await connect('/run/virtio/scsi');
 * await using scsi = await VirtioScsi.open(device);
 * for (const { unit, inquiry } of await scsi.scan()) {
 *   console.log(unit.target, unit.lun, inquiry.vendor, inquiry.product, await unit.capacity());
 * }
 * scsi.on('hotplug', ({ target, lun, reason }) => console.log(target, lun, reason));
 * ```
 */
export class VirtioScsi extends VirtioDriver<VirtioScsiEvents> {
  readonly #kind: ScsiKind;
  readonly #retries: number;
  readonly #units = new Map<number, ScsiUnit>();

  /**
   * Starts the device: enables it, negotiates features and sets up its queues (section 3.1.1). It stays the caller's: close
   * the driver first.
   * @throws UnsupportedError for a device that is no virtio SCSI host, or whose structures cannot be used; VirtioDeviceError where it
   * does not come up; ProtocolError for a configuration that makes no sense; what the device's calls throw.
   */
  static async open(device: Device, options: VirtioScsiOptions = {}): Promise<VirtioScsi> {
    SCSI_OPTIONS.check('VirtioScsi.open', options);
    const settings = virtioSettings(options);
    const make = (parts: VirtioParts) => new VirtioScsi(parts, new ScsiKind(options));
    return VirtioDriver.start<VirtioScsiEvents, VirtioScsi>(
      'VirtioScsi.open',
      device,
      VirtioDeviceType.SCSI,
      settings,
      make,
    );
  }

  private constructor(parts: VirtioParts, kind: ScsiKind) {
    super(parts, kind);
    this.#kind = kind;
    this.#retries = parts.settings.retries;
    kind.tell = (name, ...args) => {
      const [event] = args;
      if (event !== undefined) this.#units.get(keyOf(event.target, event.lun))?.forgetCapacity();
      // Not from within a poll: what a listener throws is the caller's.
      queueMicrotask(() => {
        this.emit(name, ...(args as never));
      });
    };
  }

  /** What the device says of itself; read again at each reset. */
  get config(): VirtioScsiConfig {
    return this.#kind.host.config;
  }

  /** The longest transfer of one command, bytes. */
  get maxTransferBytes(): number {
    return this.#kind.host.shape.maxTransferBytes;
  }

  /**
   * The logical unit with that address, whether it is there or not.
   * @throws RangeError for an address that none can have.
   */
  unit(target: number, lun = 0): ScsiUnit {
    integer('VirtioScsi.unit: target', target, 0, MOST_TARGET);
    integer('VirtioScsi.unit: lun', lun, 0, MOST_LUN);
    const key = keyOf(target, lun);
    const known = this.#units.get(key);
    if (known !== undefined) return known;
    const unit = new ScsiUnit(this.#kind.host, { target, lun }, this.#retries);
    this.#units.set(key, unit);
    return unit;
  }

  /**
   * Asks every target for its logical units (REPORT LUNS), and each of those what it is.
   * @returns those that are there, by target and number
   * @throws what `ScsiUnit.inquiry` throws, but for targets and units that are not there.
   */
  async scan(options?: CallOptions): Promise<ScannedUnit[]> {
    option.CALL_OPTIONS.check('VirtioScsi.scan', options);
    const found: ScannedUnit[] = [];
    const { maxTarget } = this.config;
    for (let from = 0; from <= maxTarget; from += SCANNED_AT_ONCE) {
      const targets = Array.from(
        { length: Math.min(SCANNED_AT_ONCE, maxTarget + 1 - from) },
        (_, i) => from + i,
      );
      const units = await Promise.all(targets.map((target) => this.#scanTarget(target, options)));
      found.push(...units.flat());
    }
    return found;
  }

  /**
   * Sends a command of the caller's. Nothing is repeated, unit attentions neither.
   * @throws RangeError, TypeError for a command that does not fit; as `ScsiUnit.inquiry`.
   */
  async command(command: ScsiCommand): Promise<ScsiResult> {
    COMMAND_OPTIONS.check('VirtioScsi.command', command);
    const { target, lun = 0, cdb, dataIn = 0, dataOut, retries = 0, timeoutMs, signal } = command;
    const { host } = this.#kind;
    const { cdbBytes } = host.config;
    if (cdb.length < 1 || cdb.length > cdbBytes)
      throw outOfRange(`VirtioScsi.command: cdb has ${cdb.length} bytes: it has 1 to ${cdbBytes}`);
    if (dataIn > 0 && dataOut !== undefined)
      throw new TypeError('VirtioScsi.command: dataIn and dataOut exclude each other');
    const data = dataOut ?? Buffer.alloc(dataIn);
    if (data.length > this.maxTransferBytes)
      throw outOfRange(
        `VirtioScsi.command: ${data.length} bytes of data: it has at most ${this.maxTransferBytes}`,
      );
    const request = host.request(COMMAND_NAME, { target, lun }, cdb, retries);
    if (data.length > 0) request.through(data, dataOut !== undefined);
    await host.nextQueue().commands.execute<void>(request, { timeoutMs, signal });
    const { residual } = request;
    const answer = dataOut === undefined ? (data as Buffer).subarray(0, dataIn - residual) : Buffer.alloc(0);
    return { data: answer, residual };
  }

  async #scanTarget(target: number, options: CallOptions | undefined): Promise<ScannedUnit[]> {
    const found: ScannedUnit[] = [];
    for (const lun of await this.#lunsOf(target, options)) {
      const unit = this.unit(target, lun);
      const inquiry = await unit.inquiry(options).catch(unlessAbsent);
      // Another qualifier says that nothing is connected.
      if (inquiry?.qualifier === 0) found.push({ unit, inquiry });
    }
    return found;
  }

  async #lunsOf(target: number, options: CallOptions | undefined): Promise<number[]> {
    const ask = async (count: number) => {
      const bytes = LUN_BYTES * (1 + count);
      const { data } = await this.command({
        target,
        cdb: reportLunsCdb(bytes),
        dataIn: bytes,
        retries: 1,
        ...options,
      });
      return decodeLuns(data);
    };
    try {
      const first = await ask(FIRST_LUNS);
      const list = first.bytes <= LUN_BYTES * FIRST_LUNS ? first : await ask(first.bytes / LUN_BYTES);
      return [...new Set(list.luns)].sort((a, b) => a - b);
    } catch (error) {
      unlessAbsent(error);
      // A target that does not know the command has one unit, or none.
      return error instanceof ScsiError ? [0] : [];
    }
  }
}

/** @throws the error, unless it says that there is no such target, or unit. */
function unlessAbsent(error: unknown): undefined {
  if (error instanceof VirtioStatusError && error.status === BAD_TARGET) return undefined;
  if (error instanceof ScsiError && error.sense?.key === SenseKey.ILLEGAL_REQUEST) return undefined;
  throw error;
}

function keyOf(target: number, lun: number): number {
  return target * (MOST_LUN + 1) + lun;
}
