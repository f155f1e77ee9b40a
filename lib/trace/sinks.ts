/** Where traced messages go. */
import diagnosticsChannel from 'node:diagnostics_channel';
import type { CaptureWriter } from './capture-writer.js';
import { describe, type Description } from './describe.js';
import { LatencyTracker } from './latency.js';
import type { LineFormatter } from './format-line.js';
import type { TracedEvent, TracedInterrupt, TracedMessage } from './traced-message.js';

export interface Sink {
  /** Each message, in the order on the wire. Its memory is lent until this returns. */
  message(message: TracedMessage): void;
  /** Each interrupt, as its count is read. Sinks that are about messages have none. */
  interrupt?(interrupt: TracedInterrupt): void;
  /** A stream has ended, other than by our closing it. */
  ended(socket: string, time: bigint, reason: Error): void;
  close(): void;
}

/** Where lines go, each without its line break. */
export interface Lines {
  write(line: string): void;
  close(): void;
}

export class LineSink implements Sink {
  readonly #formatter: LineFormatter;
  readonly #lines: Lines;

  constructor(formatter: LineFormatter, lines: Lines) {
    this.#formatter = formatter;
    this.#lines = lines;
  }

  message(message: TracedMessage): void {
    this.#lines.write(this.#formatter.format(message));
  }

  interrupt(interrupt: TracedInterrupt): void {
    this.#lines.write(this.#formatter.formatInterrupt(interrupt));
  }

  ended(socket: string, time: bigint, reason: Error): void {
    this.#lines.write(this.#formatter.formatEnd(socket, time, reason));
  }

  close(): void {
    this.#lines.close();
  }
}

/** The name of the warning that a capture is not whole. */
export const CAPTURE_WARNING = 'VfioUserCaptureWarning';

/** A capture file. One that cannot be written any more is given up with a warning: the device goes on. */
export class CaptureSink implements Sink {
  readonly #writer: CaptureWriter;
  readonly #path: string;

  constructor(writer: CaptureWriter, path: string) {
    this.#writer = writer;
    this.#path = path;
  }

  message(message: TracedMessage): void {
    this.#put(message);
  }

  interrupt(interrupt: TracedInterrupt): void {
    this.#put(interrupt);
  }

  #put(event: TracedEvent): void {
    try {
      this.#writer.write(event);
    } catch (error) {
      this.#writer.close();
      const why = error instanceof Error ? error.message : String(error);
      process.emitWarning(`the capture ${this.#path} ends here: ${why}`, CAPTURE_WARNING);
    }
  }

  ended(): void {
    // A capture has messages only.
  }

  close(): void {
    const { isLost } = this.#writer;
    this.#writer.close();
    if (!isLost) return;
    process.emitWarning(
      `the capture ${this.#path} was removed or replaced while it was written`,
      CAPTURE_WARNING,
    );
  }
}

/**
 * The name of the `node:diagnostics_channel` on which the messages of every device are published, as `MessageEvent`.
 * Subscribers may come and go while devices are open: they hear of each message from then on.
 */
export const MESSAGE_CHANNEL = 'vfio-user:message';

/** What is published for each message. It is the subscriber's to keep. */
export interface MessageEvent extends TracedMessage {
  /** What the message says. */
  description: Description;
  /** Nanoseconds from the request to this reply; undefined for requests. */
  latency?: bigint;
}

/** Whether anybody subscribes is asked before each message: they may come at any time. */
export const messages = diagnosticsChannel.channel(MESSAGE_CHANNEL);

/** Events for the subscribers of the diagnostics channel. */
export class DiagnosticsSink implements Sink {
  readonly #latencies = new LatencyTracker();

  message(message: TracedMessage): void {
    if (!messages.hasSubscribers) return;
    const { direction, fds } = message;
    const latency = this.#latencies.latencyOf(message);
    const event: MessageEvent = {
      ...message,
      bytes: Buffer.from(message.bytes),
      fds: [...fds],
      description: describe(message.bytes, { direction, fds: [...fds] }),
      ...(latency !== undefined && { latency }),
    };
    messages.publish(event);
  }

  ended(): void {
    // The device says so itself.
  }

  close(): void {
    // The channel belongs to the process.
  }
}
