/** A device that is inspected: nothing is read of it but what reading does not change, or what the page was told to read. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import path from 'node:path';
import { InvalidArgumentError } from 'commander';
import { type Device, type Vector } from '../../index.js';
import { accessWords, type RegisterPlacement } from '../../registers/index.js';
import { isReadSafe, isReadable, isWritable } from '../../register-map/values.js';
import { MESSAGE_CHANNEL, now, type MessageEvent } from '../../trace/index.js';
import { describeDevice } from '../describe-device.js';
import { UsageError } from '../errors.js';
import type { AccessWidth } from '../numbers.js';
import { performWrite, readRange, regionRange, registerWrite } from '../region-io.js';
import { bindPlacement, namedWrite, type BoundRegister } from '../register-map.js';
import { regionIndex } from '../region-names.js';
import { registerJson, type ReadRegister } from '../render-registers.js';
import { EventLog } from './event-log.js';
import { BadRequest, WritesRefused, type RegisterSummary, type Subject } from './subject.js';

/** Events that are kept at the least. */
const MOST_EVENTS = 5_000;
/** Registers of one request, and bytes. */
const MOST_REGISTERS = 256;
const MOST_BYTES = 4_096;
const WIDTHS: readonly number[] = [1, 2, 4, 8];

export interface DeviceSubjectOptions {
  endpoint: string;
  placement: RegisterPlacement | undefined;
  allowsWrites: boolean;
}

/** Has all messages of this process in a log, until the function that it gives is called. */
export function tapMessages(placement: RegisterPlacement | undefined): { log: EventLog; stop: () => void } {
  const log = new EventLog(MOST_EVENTS, placement);
  const onMessage = (event: unknown): void => {
    const message = event as MessageEvent;
    log.message(message, message.description);
  };
  subscribe(MESSAGE_CHANNEL, onMessage);
  return { log, stop: () => void unsubscribe(MESSAGE_CHANNEL, onMessage) };
}

export class DeviceSubject implements Subject {
  readonly log: EventLog;
  readonly #device: Device;
  readonly #options: DeviceSubjectOptions;
  readonly #registers: readonly BoundRegister[];
  #over: string | undefined;

  /** `log` is what `tapMessages` filled while the device was opened. */
  constructor(device: Device, log: EventLog, options: DeviceSubjectOptions) {
    const { placement } = options;
    this.log = log;
    this.#device = device;
    this.#options = options;
    this.#registers = placement === undefined ? [] : bindPlacement(device, placement);
    void device.closed.then((reason: Error) => (this.#over = reason.message));
  }

  /** Has these vectors' interrupts in the log. */
  watch(vectors: readonly Vector[]): void {
    for (const vector of vectors) {
      const { index, subindex } = vector;
      vector.on('interrupt', (count) => this.log.interrupt({ time: now(), index, subindex, count }));
    }
  }

  describe(): object {
    const { endpoint, allowsWrites } = this.#options;
    return {
      kind: 'device',
      title: path.basename(endpoint),
      source: endpoint,
      allowsWrites,
      device: describeDevice(this.#device, endpoint),
      registers: this.#registers.map(summaryOf),
    };
  }

  state(): { isOver: boolean; reason: string | undefined } {
    return { isOver: this.#over !== undefined, reason: this.#over };
  }

  config(): object | undefined {
    if (!this.#device.hasConfig) return undefined;
    const { header, capabilities, extendedCapabilities, problems } = this.#device.config;
    const bytes = this.#device.config.bytes();
    return { header, capabilities, extendedCapabilities, problems, bytes };
  }

  async registers(names: readonly string[]): Promise<object> {
    if (names.length > MOST_REGISTERS)
      throw new BadRequest(`at most ${MOST_REGISTERS} registers are read at once, not ${names.length}`);
    const wanted = new Set(names);
    const read: ReadRegister[] = [];
    // One after the other, in the order of the map.
    for (const one of this.#registers) {
      if (!wanted.has(one.name) || !mayBeRead(one)) continue;
      read.push({ one, value: await one.bound.read() });
    }
    return registerJson(read).map((json, i) => ({
      ...json,
      text: read[i]?.value === undefined ? '' : read[i].one.bound.format(read[i].value),
    }));
  }

  async memory(region: string, offset: number, length: number, width: number): Promise<string> {
    if (length < 1 || length > MOST_BYTES)
      throw new BadRequest(`length must be from 1 to ${MOST_BYTES}, got ${length}`);
    if (!WIDTHS.includes(width)) throw new BadRequest(`width must be 1, 2, 4 or 8, got ${width}`);
    if (offset % width !== 0 || length % width !== 0)
      throw new BadRequest(`offset and length must be multiples of ${width}`);
    const index = asBadRequest(() => regionIndex(region));
    const range = regionRange(this.#device, index, offset, length, width as AccessWidth);
    const chunks: Buffer[] = [];
    for await (const chunk of readRange(range)) chunks.push(chunk);
    return Buffer.concat(chunks).toString('hex');
  }

  async write(target: string, value: string): Promise<void> {
    const { allowsWrites, placement } = this.#options;
    if (!allowsWrites) throw new WritesRefused('the inspector was started without --allow-writes');
    if (target.includes(':')) {
      const write = asBadRequest(() => registerWrite(`${target}=${value}`));
      return performWrite(this.#device, write);
    }
    if (placement === undefined) throw new BadRequest("a register's name needs --map");
    return asBadRequest(() => namedWrite(placement, target, value))(this.#device);
  }
}

/** What the command line says of wrong usage. */
function asBadRequest<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof InvalidArgumentError || error instanceof UsageError)
      throw new BadRequest(error.message);
    throw error;
  }
}

function mayBeRead({ register }: BoundRegister): boolean {
  return isReadable(register) && isReadSafe(register);
}

function summaryOf(one: BoundRegister): RegisterSummary {
  const { name, offset, register } = one;
  const { bits, access, fields, description } = register;
  const words =
    fields.length === 0 ? [accessWords(access)] : fields.map((field) => accessWords(field.access));
  return {
    name,
    offset,
    bits,
    access: [...new Set(words)].join(', '),
    description,
    isRead: mayBeRead(one),
    isWritable: isWritable(register),
  };
}
