/**
 * The migration state machine of a device ("Device Features"): the features MIGRATION and MIG_DEVICE_STATE, and the
 * stream of the device's state. Direct arcs only; a client makes the others of them.
 *
 * ```
 *   PRE_COPY ◀──▶ RUNNING ◀──▶ STOP ◀──▶ RESUMING
 *       └──▶ STOP_COPY ─────────▲ │
 *                ▲────────────────┘
 * ```
 * Out of RUNNING and PRE_COPY a state is acknowledged when the device is quiet. A transfer (PRE_COPY, STOP_COPY, RESUMING)
 * belongs to the client that began it: as long as that one is connected, others are answered EBUSY. Once it is gone, they can
 * end the transfer by an arc to another state. They cannot go on with it: they would take the rest of it for the whole.
 */
import {
  DEVICE_FEATURE_PROBE,
  DEVICE_FEATURE_SET,
  Feature,
  MIGRATION_PRE_COPY,
  MIGRATION_STOP_COPY,
  MigrationState,
} from '../protocol/constants.js';
import { decodeMigState } from '../protocol/migration.js';
import { DeviceError, EBUSY, EINVAL } from './device-error.js';
import type { ClientContext, FeatureRequest, MigrationData } from './device-model.js';
import { andThen } from './maybe-async.js';
import { RecordReader, recordOf } from './state-stream.js';

const { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, PRE_COPY } = MigrationState;

/** What migrates. */
export interface MigratableState {
  /** Bytes of each state. */
  readonly size: number;
  /** Lets what the device does by itself come to its end, and begins nothing new; it is quiet when this has settled. */
  stop(): void | Promise<void>;
  /** It may act again. */
  run(): void;
  /** The whole state, in parts that are copied at once. */
  save(): readonly Uint8Array[];
  /** Takes a state that `save` gave; throws where it is none. */
  load(state: Buffer): void;
}

const ARCS: Readonly<Record<number, readonly MigrationState[]>> = {
  [RUNNING]: [STOP, PRE_COPY],
  [STOP]: [RUNNING, STOP_COPY, RESUMING],
  [STOP_COPY]: [STOP],
  [PRE_COPY]: [RUNNING, STOP_COPY],
  [RESUMING]: [STOP],
};
const ACTIVE: readonly MigrationState[] = [RUNNING, PRE_COPY];
const TRANSFERRING: readonly MigrationState[] = [PRE_COPY, STOP_COPY, RESUMING];
const NOTHING = Buffer.alloc(0);

export class MigrationMachine implements MigrationData {
  readonly #device: MigratableState;
  readonly #preCopy: boolean;
  #state: MigrationState = RUNNING;
  /** What has not been read yet. */
  #unread: Buffer = NOTHING;
  /** In RESUMING. */
  #records: RecordReader | undefined;
  /** Whose the transfer is. */
  #owner: ClientContext | undefined;
  /** The device is being stopped; another object once a reset has overtaken that. */
  #stopping: object | undefined;

  constructor(device: MigratableState, preCopy: boolean) {
    this.#device = device;
    this.#preCopy = preCopy;
  }

  get state(): MigrationState {
    return this.#state;
  }

  /** After a reset the device runs, whatever it was doing; also out of ERROR. */
  reset(): void {
    this.#stopping = undefined;
    this.#enter(RUNNING, undefined);
    this.#device.run();
  }

  /** DEVICE_FEATURE, for the two features that are the machine's; undefined for any other. */
  feature(
    { feature, operations, data }: FeatureRequest,
    client: ClientContext,
  ): Buffer | Promise<Buffer> | undefined {
    if (feature !== Feature.MIGRATION && feature !== Feature.MIG_DEVICE_STATE) return undefined;
    const isSet = (operations & DEVICE_FEATURE_SET) !== 0;
    if (isSet && feature === Feature.MIGRATION) throw new DeviceError(EINVAL, 'MIGRATION cannot be set');
    if ((operations & DEVICE_FEATURE_PROBE) !== 0) return NOTHING;
    if (feature === Feature.MIGRATION) {
      return answerOf(MIGRATION_STOP_COPY | (this.#preCopy ? MIGRATION_PRE_COPY : 0));
    }
    if (!isSet) return answerOf(this.#state);
    return andThen(this.#go(decodeMigState(data), client), () => answerOf(this.#state));
  }

  read(size: number, client: ClientContext): Buffer {
    this.#refuseOthers(client);
    this.#refuseHeirs(client);
    if (this.#state !== PRE_COPY && this.#state !== STOP_COPY) {
      throw new DeviceError(EINVAL, 'no state can be read now');
    }
    const data = this.#unread.subarray(0, size);
    this.#unread = this.#unread.subarray(size);
    return data;
  }

  write(data: Buffer, client: ClientContext): void {
    this.#refuseOthers(client);
    this.#refuseHeirs(client);
    if (this.#state !== RESUMING) throw new DeviceError(EINVAL, 'no state can be written now');
    this.#records!.push(data);
  }

  #refuseOthers(client: ClientContext): void {
    if (this.#owner !== undefined && this.#owner !== client && this.#owner.isConnected) {
      throw new DeviceError(EBUSY, "the transfer is another client's");
    }
    if (this.#stopping !== undefined) throw new DeviceError(EBUSY, 'the device is being stopped');
  }

  /** Who goes on with a transfer has begun it. */
  #refuseHeirs(client: ClientContext): void {
    if (this.#owner === undefined || this.#owner === client) return;
    throw new DeviceError(EBUSY, 'the transfer was begun by a client that has gone: it can only be ended');
  }

  #go(to: MigrationState, client: ClientContext): void | Promise<void> {
    this.#refuseOthers(client);
    if (TRANSFERRING.includes(to)) this.#refuseHeirs(client);
    if (to === this.#state) return;
    const allowed = ARCS[this.#state]?.includes(to) === true && (this.#preCopy || to !== PRE_COPY);
    if (!allowed) throw new DeviceError(EINVAL, `no arc leads to ${to}`);
    if (this.#state === RESUMING) this.#load();
    if (!ACTIVE.includes(this.#state) || ACTIVE.includes(to)) return this.#enter(to, client);
    const stopping = (this.#stopping = {});
    return andThen(this.#device.stop(), () => {
      if (this.#stopping !== stopping) throw new DeviceError(EINVAL, 'the device was reset meanwhile');
      this.#stopping = undefined;
      this.#enter(to, client);
    });
  }

  #enter(to: MigrationState, client: ClientContext | undefined): void {
    // What was read in PRE_COPY is the beginning; what was not is still to be read.
    const before = this.#state === PRE_COPY && to === STOP_COPY ? this.#unread : NOTHING;
    const isSaving = to === PRE_COPY || to === STOP_COPY;
    this.#unread = isSaving ? Buffer.concat([before, ...recordOf(this.#device.save())]) : NOTHING;
    this.#records = to === RESUMING ? new RecordReader(this.#device.size) : undefined;
    this.#owner = TRANSFERRING.includes(to) ? client : undefined;
    this.#state = to;
    if (to === RUNNING) this.#device.run();
  }

  #load(): void {
    try {
      this.#device.load(this.#records!.take());
    } catch (cause) {
      this.#enter(ERROR, undefined);
      throw new DeviceError(EINVAL, 'the state was not understood', { cause });
    }
  }
}

function answerOf(value: number): Buffer {
  const answer = Buffer.alloc(8);
  answer.writeUInt32LE(value);
  return answer;
}
