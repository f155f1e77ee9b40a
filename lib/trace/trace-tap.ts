/**
 * The tap of one device: what goes over its sockets is handed to lines of text, a capture file, and the subscribers of
 * the diagnostics channel, who may come and go at any time. While nobody listens a message costs a branch.
 */
import type { Writable } from 'node:stream';
import { boolean, wrongType } from '../fields.js';
import * as option from '../options.js';
import { HEADER_SIZE } from '../protocol/constants.js';
import { headerSize } from '../protocol/header.js';
import type { MessageTap } from '../transport/message-tap.js';
import type { OutgoingMessage } from '../transport/transport.js';
import { CAPTURE_OPTIONS, CaptureWriter, type CaptureOptions } from './capture-writer.js';
import { LineFormatter, registersCheck, type TraceRegisters } from './format-line.js';
import { now, type Direction } from './traced-message.js';
import { LineWriter } from './line-writer.js';
import { CaptureSink, DiagnosticsSink, LineSink, messages, type Lines, type Sink } from './sinks.js';
import path from 'node:path';
import { isMainThread, threadId } from 'node:worker_threads';

let devices = 0;

/**
 * The file for the next device of this thread, undefined where the environment names none. `%p` is the process's id.
 * Each device has a file of its own: `dev.pcapng`, then `dev-2.pcapng`; in a worker `dev-w1.pcapng`, `dev-w1-2.pcapng`.
 */
export function captureName(): string | undefined {
  const { VFIO_USER_CAPTURE: wanted = '' } = process.env;
  if (wanted === '') return undefined;
  devices++;
  const { dir, name, ext } = path.parse(wanted.replaceAll('%p', String(process.pid)));
  const worker = isMainThread ? '' : `-w${threadId}`;
  const number = devices === 1 ? '' : `-${devices}`;
  return path.join(dir, `${name}${worker}${number}${ext}`);
}

export type { CaptureOptions } from './capture-writer.js';

/** Where the messages of a device, or of what a proxy passes on, are shown and kept. */
export interface TraceOptions {
  /**
   * One line of text for each message: `true` for stderr, a function that is given each line, or a stream. Where nothing
   * is said the environment decides: `VFIO_USER_TRACE=1` is `true`. The function must not use the device. A stream that
   * is read more slowly than messages come holds 4 MiB of lines: further ones are left out, and a line says how many.
   */
  trace?: boolean | ((line: string) => void) | Writable | undefined;
  /**
   * Every message into a pcapng file: its path, or a path and how to rotate it. Where nothing is said the environment
   * decides: `VFIO_USER_CAPTURE=dev.pcapng` (`dev-2.pcapng` for a second device, `dev-w1.pcapng` in a worker). `false`
   * captures nothing in any case. A file that another device of this thread captures to is refused (`EBUSY`).
   */
  capture?: string | CaptureOptions | false | undefined;
  /** Names of registers in the lines of `trace`: a `RegisterPlacement` of `vfio-user/registers`. */
  registers?: TraceRegisters | undefined;
}

const TRACE = 'true, false, a function that takes a line, or a stream';

/** The checks of `TraceOptions`. */
export const TRACE_CHECKS: option.Checks<TraceOptions> = {
  trace: option.byType(TRACE, {
    boolean: option.boolean,
    function: option.callback,
    object: (value, caller, name) =>
      typeof (value as Partial<Writable>).write === 'function'
        ? undefined
        : wrongType(`${caller}: ${name}`, TRACE, value),
  }),
  capture: option.byType('the path of a file, { path }, or false', {
    string: option.path,
    object: option.options(CAPTURE_OPTIONS),
    boolean: (value, caller, name) =>
      value === false
        ? undefined
        : wrongType(`${caller}: ${name}`, 'the path of a file, { path }, or false', value),
  }),
  registers: registersCheck,
};
const TRACE_OPTIONS = new option.OptionTable<TraceOptions>(TRACE_CHECKS);

const NO_FDS: readonly number[] = [];

/**
 * Opens what the options ask for. With `fromFirstMessage` a capture replaces what has its name when there is a message
 * to capture: what fails before has cost nothing.
 * @throws TypeError and RangeError for options that make no sense; VfioUserError EBUSY where another capture of this
 * thread has the file; what opening it throws.
 */
export async function openTap(options: TraceOptions, fromFirstMessage = false): Promise<TraceTap> {
  TRACE_OPTIONS.check('openTap', options);
  boolean('openTap: fromFirstMessage', fromFirstMessage);
  const lines = linesTo(options.trace ?? isTraceWanted());
  const sinks: Sink[] = [];
  const capture = options.capture ?? captureName();
  if (capture !== undefined && capture !== false) sinks.push(await captureSink(capture, fromFirstMessage));
  if (lines !== undefined)
    sinks.push(new LineSink(new LineFormatter({ registers: options.registers }), lines));
  return new TraceTap(sinks);
}

async function captureSink(capture: string | CaptureOptions, fromFirstMessage: boolean): Promise<Sink> {
  const options = typeof capture === 'string' ? { path: capture } : capture;
  const writer = await (fromFirstMessage ? CaptureWriter.prepare(options) : CaptureWriter.open(options));
  return new CaptureSink(writer, options.path);
}

function isTraceWanted(): boolean {
  const { VFIO_USER_TRACE = '' } = process.env;
  return VFIO_USER_TRACE !== '' && VFIO_USER_TRACE !== '0';
}

function linesTo(trace: TraceOptions['trace']): Lines | undefined {
  if (trace === false || trace === undefined) return undefined;
  if (typeof trace === 'function') return { write: (line) => trace(line), close: () => undefined };
  return new LineWriter(trace === true ? process.stderr : trace);
}

/**
 * Hears of the messages of one device or proxy, and hands them to lines, a capture and the subscribers of `MESSAGE_CHANNEL`.
 * `openTap` makes one.
 *
 * @example
 * ```ts
 * const tap = await openTap({ trace: true, capture: 'dev.pcapng' });
 * tap.passed('dev', 'sent', bytes, [], undefined);
 * tap.close();
 * ```
 */
export class TraceTap implements MessageTap {
  #sinks: readonly Sink[];
  #telling = false;
  /** There are sinks, or something is being told: asked before each message. */
  #isBusy = false;
  /** Made with the first message that somebody hears of. */
  #diagnostics: DiagnosticsSink | undefined;

  /** @internal See `openTap`. */
  constructor(sinks: readonly Sink[]) {
    this.#sinks = sinks;
    this.#note(false);
  }

  /** Whether anybody listens now: while it is false nothing needs to be told. */
  get active(): boolean {
    return this.#isBusy || messages.hasSubscribers;
  }

  /** A listener is being called: what it calls must not block for a message. */
  get telling(): boolean {
    return this.#telling;
  }

  /** A message has gone out on `socket`, all of it. Its memory is lent. */
  sent(socket: string, { head, headLength, body, fds }: OutgoingMessage): void {
    const start = Buffer.from(head.buffer, head.byteOffset, headLength);
    this.#message(socket, 'sent', body === null ? start : Buffer.concat([start, body]), fds ?? NO_FDS);
  }

  /**
   * A message has come on `socket`: `bytes[start, end)`, followed by `rest` where its data went to memory of its own. The
   * memory is lent.
   */
  received(
    socket: string,
    bytes: Buffer,
    start: number,
    end: number,
    fds: readonly number[] | undefined,
    rest: Uint8Array | undefined,
  ): void {
    const message = bytes.subarray(start, end);
    this.#message(
      socket,
      'received',
      rest === undefined ? message : Buffer.concat([message, rest]),
      fds ?? NO_FDS,
    );
  }

  /** A message that passes by, as a proxy sees it. The memory is lent. */
  passed(
    socket: string,
    direction: Direction,
    bytes: Buffer,
    fds: readonly number[],
    note: string | undefined,
  ): void {
    this.#message(socket, direction, bytes, fds, note);
  }

  /** An interrupt's eventfd had `count`: the interrupt `subindex` of `index`. */
  interrupt(socket: string, index: number, subindex: number, count: number): void {
    const interrupt = { socket, time: now(), index, subindex, count };
    this.#tell((sink) => sink.interrupt?.(interrupt));
  }

  /** The stream has ended, other than by our closing it. */
  ended(socket: string, reason: Error): void {
    const time = now();
    this.#tell((sink) => sink.ended(socket, time, reason));
  }

  /** Ends what was opened; idempotent. The diagnostics channel stays. */
  close(): void {
    const sinks = this.#sinks;
    this.#sinks = [];
    this.#note(this.#telling);
    for (const sink of sinks) sink.close();
  }

  #message(socket: string, direction: Direction, bytes: Buffer, fds: readonly number[], note?: string): void {
    const size = Math.max(bytes.length, bytes.length < HEADER_SIZE ? 0 : headerSize(bytes, 0));
    const message = {
      socket,
      direction,
      time: now(),
      bytes,
      size,
      fds,
      ...(note !== undefined && { note }),
    };
    this.#tell((sink) => sink.message(message));
  }

  #tell(say: (sink: Sink) => void): void {
    const before = this.#telling;
    this.#note(true);
    this.#diagnostics ??= new DiagnosticsSink();
    for (const sink of [...this.#sinks, this.#diagnostics]) {
      try {
        say(sink);
      } catch (error) {
        // A listener's mistake is not the connection's: it becomes an uncaught exception, as an event listener's would.
        process.nextTick(() => {
          throw error;
        });
      }
    }
    this.#note(before);
  }

  #note(telling: boolean): void {
    this.#telling = telling;
    this.#isBusy = telling || this.#sinks.length > 0;
  }
}
