/**
 * Migration: the device's state as a stream (specification: Device Features, VFIO_USER_MIG_DATA_READ and _WRITE).
 *
 * migration-states.ts has the states and the ways between them, migration-transfer.ts what holds for a save and a restore,
 * migration-save.ts and migration-restore.ts their streams.
 */
import type { Readable, Writable } from 'node:stream';
import { forbidCloning } from '../cloning.js';
import { forUndoing, withDeadline, type CallOptions } from '../connection/index.js';
import {
  MIGRATION_PRE_COPY,
  MIGRATION_STOP_COPY,
  Feature,
  type MigrationState,
} from '../protocol/constants.js';
import { integer, UINT32_MAX } from '../fields.js';
import * as option from '../options.js';
import type { Features } from './features.js';
import type { MigrationCommands } from './migration-commands.js';
import { openRestore, RESTORE_OPTIONS, type RestoreOptions } from './migration-restore.js';
import { openSave, SAVE_OPTIONS, type SaveOptions } from './migration-save.js';
import { explained, isFailure, walk } from './migration-states.js';
import { Transfers } from './migration-transfer.js';
import type { DeviceContext } from './device-context.js';

export type { RestoreOptions } from './migration-restore.js';
export type { PreCopyLimits, SaveOptions } from './migration-save.js';

/** What the device can do. */
export interface MigrationSupport {
  /** The state can be read while the device is stopped: every device that migrates can. */
  stopCopy: boolean;
  /** It can be read while the device runs, too. */
  preCopy: boolean;
}

/** The device's own reset, which a restore needs where another one has left an ERROR. */
export interface Resettable {
  readonly canReset: boolean;
  reset(options?: CallOptions): Promise<void>;
}

/**
 * The device's state as a stream: `device.migration` (specification: VFIO_USER_MIG_DATA_READ, VFIO_USER_MIG_DATA_WRITE). A
 * device makes one transfer at a time, a save or a restore.
 *
 * @example
 * ```ts
 * await pipeline(source.migration.save(), destination.migration.restore());
 * ```
 */
export class Migration {
  readonly #context: DeviceContext;
  readonly #features: Features;
  readonly #device: Resettable;
  readonly #transfers: Transfers;
  #support: MigrationSupport | undefined;

  /** @internal */
  constructor(context: DeviceContext, features: Features, device: Resettable) {
    this.#context = context;
    this.#features = features;
    this.#device = device;
    this.#transfers = new Transfers(context);
    forbidCloning(this, 'a Migration');
  }

  /** What the device can do; undefined where it cannot migrate. Asked once, and again after a reconnect. */
  async support(options?: CallOptions): Promise<MigrationSupport | undefined> {
    option.CALL_OPTIONS.check('Migration.support', options);
    if (this.#support !== undefined) return this.#support;
    const call = withDeadline(options);
    if (!(await this.#features.probe(Feature.MIGRATION, { get: true }, call))) return undefined;
    const flags = await this.#commands.flags(call);
    this.#support = {
      stopCopy: (flags & MIGRATION_STOP_COPY) !== 0,
      preCopy: (flags & MIGRATION_PRE_COPY) !== 0,
    };
    return this.#support;
  }

  /** The device's state now. @throws UnsupportedError on a server that is not asked; what ends a call. */
  async state(options?: CallOptions): Promise<MigrationState> {
    option.CALL_OPTIONS.check('Migration.state', options);
    return this.#commands.state(options);
  }

  /**
   * Takes the device to `target` along direct arcs.
   * @throws MigrationError where no way leads there, where a step failed, or while a save or restore of this device is
   * under way: `state` says where the device is then.
   */
  async transition(target: MigrationState, options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('Migration.transition', options);
    integer('Migration.transition: target', target, 0, UINT32_MAX);
    await this.#transfers.alone('transition()', options, async (call) => {
      const commands = this.#commands;
      try {
        await walk(commands, await commands.state(call), target, call);
      } catch (error) {
        if (!isFailure(error)) throw error;
        // What the call failed with is told in any case.
        const soon = forUndoing(call, commands.connection.timeoutMs);
        throw explained(error, '', await commands.state(soon).catch(() => undefined));
      }
    });
  }

  /**
   * The device's state as a stream, whole or with an error. The device is RUNNING or in STOP when it begins, with the first
   * read. It is stopped while it is read (and, where it was running, read before that with `preCopy`), and left in STOP at
   * the end: `transition(RUNNING)` sets it running again. Broken off in whatever way, by an error, a signal, `destroy()`, a
   * consumer that stops reading, `device.close()` or a connection that is lost and comes back, the stream takes the device
   * back to where it was before its 'close' event; a MigrationError says where it is and what leads on from there.
   * @throws TypeError and RangeError for options that make no sense. The stream's errors: MigrationError where the
   * device is in another state, has another transfer, or is reset meanwhile; UnsupportedError; ClosedError; the signal's reason.
   */
  save(options: SaveOptions = {}): Readable {
    SAVE_OPTIONS.check('Migration.save', options);
    const { maxDataXferSize: maxChunkBytes } = this.#context;
    const support = (call: CallOptions) => this.support(call);
    return openSave({ transfers: this.#transfers, support, maxChunkBytes }, options);
  }

  /**
   * A stream that takes a state that `save` gave. The device is RUNNING or in STOP when the first bytes come; what a restore
   * that died has left in RESUMING is discarded, by a reset where the device does not let go of it. It is stopped meanwhile
   * and runs at the end. A stream that is broken off, or that the device rejects, leaves it in STOP or ERROR; the
   * MigrationError says which. Out of ERROR leads a reset alone; out of STOP `transition(RUNNING)` where the device accepts
   * what it has, or another `restore()` (libvfio-user refuses a reset in STOP). Before bytes have come nothing is changed.
   *
   * The stream's errors: MigrationError; UnsupportedError; ClosedError; the signal's reason.
   */
  restore(options: RestoreOptions = {}): Writable {
    RESTORE_OPTIONS.check('Migration.restore', options);
    const { maxDataXferSize, options: device } = this.#context;
    return openRestore(
      {
        transfers: this.#transfers,
        support: (call) => this.support(call),
        reset: this.#device.canReset ? (call) => this.#device.reset(call) : undefined,
        chunkBytes: Math.min(maxDataXferSize, device.writeChunkBytes),
      },
      options,
    );
  }

  /** @internal The server has come back: what was under way is over, and the device is taken out of it. */
  restoreAfterReconnect(): Promise<void> {
    this.#support = undefined;
    return this.#transfers.restore();
  }

  /** @internal A reset is being sent: what is under way cannot end as a whole. */
  deviceIsReset(): void {
    this.#transfers.deviceIsReset();
  }

  /** @internal Breaks off what is under way; resolves when the device has been left. Undefined where nothing is. */
  close(reason: Error): Promise<unknown> | undefined {
    return this.#transfers.close(reason);
  }

  get #commands(): MigrationCommands {
    this.#features.refuseUnlessAsked();
    return this.#transfers.commands;
  }
}
