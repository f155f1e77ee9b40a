/** What is inspected: a device, or a capture. */
import type { EventLog } from './event-log.js';

/** A register of the map. */
export interface RegisterSummary {
  readonly name: string;
  readonly offset: number;
  readonly bits: number;
  readonly access: string;
  readonly description: string;
  /** Whether it may be read: that it can be, and that reading it changes nothing. */
  readonly isRead: boolean;
  readonly isWritable: boolean;
}

export interface Subject {
  readonly log: EventLog;
  /** What does not change. */
  describe(): object;
  /** What does, and costs nothing to ask: whether the device is there. */
  state(): { readonly isOver: boolean; readonly reason: string | undefined };
  /** Config space, decoded, and its bytes; undefined where there is none. */
  config(): object | undefined;
  /** What these registers hold now; those that must not be read are left out. */
  registers(names: readonly string[]): Promise<object>;
  /** Bytes of a region, as hexadecimal digits. */
  memory(region: string, offset: number, length: number, width: number): Promise<string>;
  /** @throws WritesRefused where they are not allowed. */
  write(target: string, value: string): Promise<void>;
}

/** Writes were not allowed when the inspector was started. */
export class WritesRefused extends Error {}

/** What was asked for makes no sense. */
export class BadRequest extends Error {}
