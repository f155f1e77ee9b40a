/** A capture that is inspected: its messages, and which registers they touched. */
import path from 'node:path';
import { RegisterCoverage, type RegisterPlacement } from '../../registers/index.js';
import { CaptureReader, isMessage } from '../../trace/index.js';
import { addAccesses } from '../register-map.js';
import { EventLog } from './event-log.js';
import { BadRequest, WritesRefused, type Subject } from './subject.js';

/** Events that are kept at the least: the last ones. */
const MOST_EVENTS = 100_000;

export class CaptureSubject implements Subject {
  readonly log: EventLog;
  readonly #file: string;
  readonly #coverage: RegisterCoverage | undefined;
  #problem: string | undefined;

  private constructor(file: string, placement: RegisterPlacement | undefined) {
    this.#file = file;
    this.log = new EventLog(MOST_EVENTS, placement);
    this.#coverage = placement === undefined ? undefined : new RegisterCoverage(placement);
  }

  /** @throws CaptureError where it is no capture. */
  static async read(file: string, placement: RegisterPlacement | undefined): Promise<CaptureSubject> {
    const subject = new CaptureSubject(file, placement);
    const reader = new CaptureReader(file);
    for await (const event of reader.events()) {
      if (!isMessage(event)) {
        subject.log.interrupt(event);
        continue;
      }
      subject.log.message(event);
      if (subject.#coverage !== undefined) addAccesses(subject.#coverage, event.bytes);
    }
    const { skipped, cutBytes } = reader;
    if (cutBytes > 0) subject.#problem = `the last ${cutBytes} bytes are not a whole block`;
    else if (skipped > 0) subject.#problem = `${skipped} packets of other protocols are not shown`;
    return subject;
  }

  describe(): object {
    const registers = this.#coverage?.report();
    return {
      kind: 'capture',
      title: path.basename(this.#file),
      source: this.#file,
      problem: this.#problem,
      allowsWrites: false,
      coverage: registers,
      registers: [],
    };
  }

  state(): { isOver: boolean; reason: string | undefined } {
    return { isOver: false, reason: undefined };
  }

  config(): undefined {
    return undefined;
  }

  async registers(): Promise<object> {
    throw new BadRequest('a capture has no registers to read');
  }

  async memory(): Promise<string> {
    throw new BadRequest('a capture has no memory to read');
  }

  async write(): Promise<void> {
    throw new WritesRefused('a capture cannot be written to');
  }
}
