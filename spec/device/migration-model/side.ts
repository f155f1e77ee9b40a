/** A device as its user has it, on one machine: it is opened, lost and opened again, and what is done with it is known. */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ClosedError,
  MigrationError,
  MigrationState,
  TimeoutError,
  TransportError,
  VfioUserError,
  connect,
  type Device,
} from '../../../lib/index.js';
import { Guest } from './guest.js';
import type { Machine } from './machine.js';
import { migrationStateName } from '../../../lib/protocol/constants.js';
import type { Record } from './record.js';
import type { Nature, Place } from './steps.js';

const { ERROR, RUNNING, RESUMING } = MigrationState;
/** Out of these a reset alone leads on. */
export const DEAD_ENDS: readonly MigrationState[] = [ERROR, RESUMING];
/** What came before may still have an effect for so long. */
const AFTERMATH_MS = 400;
const RECONNECT_MS = 10_000;
const CUT_MS = 200;

/** A transfer or a change of state, with what else there was meanwhile. */
export interface Operation {
  readonly kind: string;
  readonly device: Device;
  readonly stateBefore: MigrationState;
  readonly begun: number;
  readonly firedBefore: number;
  readonly lossesBefore: number;
  readonly wasTroubled: boolean;
  /** Something else changed the state meanwhile, or may have. */
  isDisturbed: boolean;
}

export class Side {
  readonly place: Place;
  readonly machine: Machine;
  readonly #record: Record;
  readonly #nature: Nature;
  readonly #operations = new Set<Operation>();
  device: Device | undefined;
  guest: Guest | undefined;
  #opening: Promise<void> | undefined;
  #isLost = false;
  #losses = 0;
  /** How often a connection has ended. */
  #ends = 0;
  /** When the connection ended last, or another one changed the state. */
  #lastTrouble = -Infinity;

  constructor(place: Place, machine: Machine, record: Record, nature: Nature) {
    this.place = place;
    this.machine = machine;
    this.#record = record;
    this.#nature = nature;
  }

  /** Opens the device where it is not. */
  open(timeoutMs?: number): Promise<void> {
    if (this.device !== undefined) return Promise.resolve();
    return (this.#opening ??= this.#record
      .call({
        label: `open ${this.place}`,
        promise: this.#open(timeoutMs),
        whyNot: (error) =>
          error instanceof VfioUserError || error instanceof TransportError ? undefined : 'not its error',
      })
      .finally(() => (this.#opening = undefined)));
  }

  close(): Promise<void> | undefined {
    const { device } = this;
    if (device === undefined) return undefined;
    this.disturb();
    this.#forget(device);
    return this.#record.call({
      label: `close ${this.place}`,
      promise: device.close(),
      whyNot: () => 'close() fails',
    });
  }

  /** Cuts the connection, and waits until that is known; there may be none at the moment. */
  cut(): Promise<void> {
    return this.#ended(() => this.machine.cut());
  }

  /** As if the server's process had ended, and another one were there. */
  restart(): Promise<void> {
    return this.#ended(() => this.machine.restart());
  }

  async #ended(end: () => void | Promise<void>): Promise<void> {
    const { device } = this;
    const ends = this.#ends;
    await end();
    for (let i = 0; i < CUT_MS && device !== undefined && this.device === device && this.#ends === ends; i++)
      await sleep(1);
  }

  /** A transfer, or a change of state, is under way. */
  get isBusy(): boolean {
    return this.#operations.size > 0;
  }

  /** The connection was lost, and may come back; or was closed not long ago. */
  get isDown(): boolean {
    return this.#isLost || this.device === undefined || performance.now() - this.#lastTrouble < AFTERMATH_MS;
  }

  /** What makes reports larger than what was written. */
  get suspicion(): number {
    return this.machine.line.fired + this.#losses;
  }

  /** Resolves when the connection is there, or gone for good. */
  async isBack(device: Device): Promise<void> {
    let isOver = false;
    void device.closed.then(() => (isOver = true));
    while (this.#isLost && !isOver && device === this.device) await sleep(1);
  }

  /** Another one, or an end of the connection, may change the state from now on. */
  disturb(): void {
    this.#lastTrouble = performance.now();
    this.#losses++;
    for (const operation of this.#operations) operation.isDisturbed = true;
  }

  begin(kind: string, device: Device): Operation {
    const { machine } = this;
    const isDisturbed = this.#operations.size > 0 || this.isDown || machine.line.isTroubled;
    for (const other of this.#operations) other.isDisturbed = true;
    const operation: Operation = {
      kind,
      device,
      stateBefore: machine.state,
      begun: performance.now(),
      firedBefore: machine.line.fired,
      lossesBefore: this.#losses,
      wasTroubled: machine.line.isTroubled || this.isDown,
      isDisturbed,
    };
    this.#operations.add(operation);
    this.#record.note(
      `${kind} begins in ${migrationStateName(machine.state)}${isDisturbed ? ', disturbed' : ''}`,
    );
    return operation;
  }

  end(operation: Operation): void {
    this.#operations.delete(operation);
  }

  /** A step of the user's between the states, or a reset. */
  change(to: MigrationState | undefined): Promise<void> | undefined {
    const { device, machine } = this;
    if (device === undefined) return undefined;
    const operation = this.begin(
      to === undefined ? 'reset' : `transition to ${migrationStateName(to)}`,
      device,
    );
    const work = to === undefined ? device.reset() : device.migration.transition(to);
    const checked = work.finally(async () => {
      await this.isBack(device);
      this.end(operation);
    });
    return this.#record.call({
      label: operation.kind,
      promise: checked,
      onValue: () => {
        if (this.isClean(operation, 0) && machine.state !== (to ?? RUNNING))
          this.#record.problem(
            `${operation.kind} is done, and the device in ${migrationStateName(machine.state)}`,
          );
      },
      whyNot: (error) => {
        const mayHaveNoWay = error instanceof MigrationError && DEAD_ENDS.includes(operation.stateBefore);
        return mayHaveNoWay ? undefined : this.whyNot(operation, error);
      },
    });
  }

  /** Out of what was left there. */
  async ready(): Promise<void> {
    const { state } = this.machine;
    if (DEAD_ENDS.includes(state)) await this.change(undefined);
    else if (state !== RUNNING) await this.change(RUNNING);
  }

  /** Nothing but the operation itself, and as many faults, can have had a part in where the device is now. */
  isClean(operation: Operation, mostFaults: number): boolean {
    const { isDisturbed, firedBefore, begun, device } = operation;
    const isConnected = device === this.device && !this.#isLost;
    const fired = this.machine.line.fired - firedBefore;
    return !isDisturbed && isConnected && fired <= mostFaults && !this.#record.laggedSince(begun);
  }

  /** What is wrong with an error of an operation; undefined where nothing is. */
  whyNot(operation: Operation, error: unknown): string | undefined {
    const { machine } = this;
    if (!(error instanceof VfioUserError)) return 'an error that it must not have';
    const { cause } = error as { cause?: unknown };
    if (error instanceof TimeoutError || cause instanceof TimeoutError) return undefined;
    if (operation.wasTroubled || machine.line.fired > operation.firedBefore) return undefined;
    if (this.#losses > operation.lossesBefore || this.isDown) return undefined;
    if (error instanceof ClosedError) return 'nothing was closed';
    if (error instanceof MigrationError && operation.isDisturbed) return undefined;
    return `nothing was wrong in ${migrationStateName(operation.stateBefore)}`;
  }

  async #open(patience?: number): Promise<void> {
    const { reconnects, secureDma, timeoutMs } = this.#nature;
    const device = await connect(this.machine.line.path, {
      timeoutMs: patience ?? timeoutMs,
      secureDma,
      reconnect: reconnects ? { timeoutMs: RECONNECT_MS } : false,
      arenaBytes: 2 << 20,
      waitForSocket: true,
    });
    const guest = new Guest(device, {
      record: this.#record,
      machine: this.machine,
      suspicion: () => this.suspicion,
      isDown: () => this.isDown || this.device !== device,
    });
    try {
      if (this.place === 'source') await guest.setUp();
    } catch (error) {
      await device.close();
      throw error;
    }
    this.device = device;
    this.guest = guest;
    this.#isLost = false;
    device.on('lost', () => this.#lost(device));
    device.on('reconnected', () => {
      this.#record.note(`${this.place} is back`);
      if (this.device === device) this.#isLost = false;
    });
    void device.closed.then(() => this.#gone(device));
  }

  #lost(device: Device): void {
    this.#ends++;
    this.#losses++;
    this.#lastTrouble = performance.now();
    this.#record.note(`${this.place} is lost`);
    if (device !== this.device) return;
    this.#isLost = true;
  }

  #gone(device: Device): void {
    this.#ends++;
    if (this.device !== device) return;
    this.#record.note(`${this.place} is gone`);
    this.disturb();
    this.#forget(device);
    void this.#record.call({ label: `close ${this.place}, gone`, promise: device.close() });
  }

  #forget(device: Device): void {
    if (this.device !== device) return;
    this.device = this.guest = undefined;
    this.#isLost = false;
  }
}
