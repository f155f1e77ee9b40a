/**
 * The migration state machine of a device ("Device Features"): the features MIGRATION and MIG_DEVICE_STATE, and the
 * stream of the device's state. Direct arcs only; a client makes the others of them.
 *
 * ```
 *   PRE_COPY ◀──▶ RUNNING ◀──▶ STOP ◀──▶ RESUMING
 *       └──▶ STOP_COPY ─────────▲ │
 *                ▲────────────────┘
 *   The stream:  | length u32 | state | …, the last one counts
 * ```
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
import { DeviceError, EINVAL, ENOTSUP } from './device-error.js';
import type { FeatureRequest, MigrationData } from './device-model.js';

const { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, PRE_COPY } = MigrationState;

/** What migrates. */
export interface MigratableState {
  /** The whole state, as bytes of its own. */
  save(): Buffer;
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
const PREFIX = 4;

export class MigrationMachine implements MigrationData {
  readonly #device: MigratableState;
  readonly #preCopy: boolean;
  #state: MigrationState = RUNNING;
  /** What has not been read yet, or has been written so far. */
  #stream: Buffer = Buffer.alloc(0);

  constructor(device: MigratableState, preCopy: boolean) {
    this.#device = device;
    this.#preCopy = preCopy;
  }

  get state(): MigrationState {
    return this.#state;
  }

  /** After a reset the device runs, whatever it was doing; also out of ERROR. */
  reset(): void {
    this.#state = RUNNING;
    this.#stream = Buffer.alloc(0);
  }

  /** DEVICE_FEATURE, for the two features that are the machine's; undefined for any other. */
  feature({ feature, operations, data }: FeatureRequest): Buffer | undefined {
    if (feature !== Feature.MIGRATION && feature !== Feature.MIG_DEVICE_STATE) return undefined;
    const isSet = (operations & DEVICE_FEATURE_SET) !== 0;
    if (isSet && feature === Feature.MIGRATION) throw new DeviceError(ENOTSUP, 'MIGRATION cannot be set');
    if ((operations & DEVICE_FEATURE_PROBE) !== 0) return Buffer.alloc(0);
    const answer = Buffer.alloc(8);
    if (feature === Feature.MIGRATION) {
      answer.writeUInt32LE(MIGRATION_STOP_COPY | (this.#preCopy ? MIGRATION_PRE_COPY : 0));
      return answer;
    }
    if (isSet) this.#go(decodeMigState(data));
    answer.writeUInt32LE(this.#state);
    return answer;
  }

  read(size: number): Buffer {
    if (this.#state !== PRE_COPY && this.#state !== STOP_COPY) {
      throw new DeviceError(EINVAL, 'no state can be read now');
    }
    const data = this.#stream.subarray(0, size);
    this.#stream = this.#stream.subarray(size);
    return data;
  }

  write(data: Buffer): void {
    if (this.#state !== RESUMING) throw new DeviceError(EINVAL, 'no state can be written now');
    this.#stream = Buffer.concat([this.#stream, data]);
  }

  #go(to: MigrationState): void {
    if (to === this.#state) return;
    const allowed = ARCS[this.#state]?.includes(to) === true && (this.#preCopy || to !== PRE_COPY);
    if (!allowed) throw new DeviceError(EINVAL, `no arc leads to ${to}`);
    if (this.#state === RESUMING) this.#load();
    if (to === PRE_COPY) this.#stream = this.#record();
    // What was read in PRE_COPY is the beginning; what was not is still to be read.
    else if (to === STOP_COPY) {
      this.#stream = Buffer.concat([
        this.#state === PRE_COPY ? this.#stream : Buffer.alloc(0),
        this.#record(),
      ]);
    } else this.#stream = Buffer.alloc(0);
    this.#state = to;
  }

  #record(): Buffer {
    const state = this.#device.save();
    const prefix = Buffer.alloc(PREFIX);
    prefix.writeUInt32LE(state.byteLength);
    return Buffer.concat([prefix, state]);
  }

  #load(): void {
    try {
      let last: Buffer | undefined;
      for (let at = 0; at < this.#stream.byteLength; at += PREFIX + last.byteLength) {
        const length = this.#stream.readUInt32LE(at);
        last = this.#stream.subarray(at + PREFIX, at + PREFIX + length);
        if (last.byteLength !== length) throw new RangeError('the stream has been cut');
      }
      if (last === undefined) throw new RangeError('the stream is empty');
      this.#device.load(last);
    } catch (cause) {
      this.#state = ERROR;
      throw new DeviceError(EINVAL, 'the state was not understood', { cause });
    }
  }
}
