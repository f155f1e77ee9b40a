/**
 * Asynchronous events (NVM Express Base 2.0, section 5.2): the driver keeps one Asynchronous Event Request outstanding, and
 * hands what comes to everyone who waits. Its completion is polled for with other admin commands, and a few times within
 * the default deadline.
 */
import { TimeoutError, type CallOptions } from '../index.js';
import { MAX_TIMER_MS } from '../system-numbers.js';
import type { NvmeCommandQueue } from './command-queue.js';
import { NvmeCommand } from './command.js';
import { AdminOpcode } from './opcodes.js';

/** Asynchronous event type, bits 2:0 of dword 0: a notice. Information, bits 15:8: namespace attributes have changed. */
const TYPE_MASK = 7;
const NOTICE = 2;
const NAMESPACE_ATTRIBUTE_CHANGED = 0;
/** How often events are polled for while somebody waits for one. */
const POLL_MS = 5;
/** No more events than one each so many milliseconds: a controller must not keep the loop busy with them. */
const PAUSE_MS = 1;

export class AsyncEvents {
  readonly #queue: NvmeCommandQueue;
  readonly #onNamespacesChanged: () => void;
  readonly #waiting = new Set<(event: number) => void>();
  /** Tell whoever waits that no event comes any more. */
  readonly #stops = new Set<() => void>();
  /** What they get, once the controller has ended. */
  #ended: (() => Error) | undefined;
  #isOut = false;

  /** `onNamespacesChanged` hears of Namespace Attribute Changed. */
  constructor(queue: NvmeCommandQueue, onNamespacesChanged: () => void) {
    this.#queue = queue;
    this.#onNamespacesChanged = onNamespacesChanged;
  }

  /** In a controller that was just brought up: the request of before is gone. */
  start(): void {
    if (this.#isOut) return;
    this.#isOut = true;
    const command = new NvmeCommand('Asynchronous Event Request', AdminOpcode.ASYNC_EVENT_REQUEST, 0);
    command.isUnattended = true;
    this.#queue.execute<number>(command, undefined, 'driver').then(
      (event) => {
        this.#isOut = false;
        this.#onEvent(event);
      },
      // The controller was reset, which begins anew, has ended, or has no events.
      () => (this.#isOut = false),
    );
  }

  /** The controller has ended: whoever waits for an event gets that error. */
  end(error: () => Error): void {
    this.#ended ??= error;
    for (const stop of [...this.#stops]) stop();
  }

  /** Dword 0 of the next event. @throws TimeoutError; the signal's reason; what ended the controller. */
  async next({ timeoutMs = Infinity, signal }: CallOptions = {}): Promise<number> {
    signal?.throwIfAborted();
    this.#throwIfEnded();
    let stop!: () => void;
    const stopped = new Promise<void>((resolve) => (stop = resolve));
    let listener!: (event: number) => void;
    const came = new Promise<number>((resolve) => this.#waiting.add((listener = resolve)));
    const timer = timeoutMs === Infinity ? undefined : setTimeout(stop, Math.min(timeoutMs, MAX_TIMER_MS));
    const polling = setInterval(() => void this.#queue.pollSafely(), POLL_MS);
    signal?.addEventListener('abort', stop, { once: true });
    this.#stops.add(stop);
    try {
      const event = await Promise.race([came, stopped]);
      if (event !== undefined) return event;
      signal?.throwIfAborted();
      this.#throwIfEnded();
      throw new TimeoutError('Asynchronous Event Request', timeoutMs);
    } finally {
      clearTimeout(timer);
      clearInterval(polling);
      this.#waiting.delete(listener);
      this.#stops.delete(stop);
      signal?.removeEventListener('abort', stop);
    }
  }

  #throwIfEnded(): void {
    if (this.#ended !== undefined) throw this.#ended();
  }

  #onEvent(event: number): void {
    for (const listener of [...this.#waiting]) listener(event);
    const isNotice = (event & TYPE_MASK) === NOTICE;
    if (isNotice && ((event >>> 8) & 0xff) === NAMESPACE_ATTRIBUTE_CHANGED) this.#onNamespacesChanged();
    // Its log page is to be read by whoever handles it; another event of that type comes after that only.
    setTimeout(() => this.start(), PAUSE_MS).unref();
  }
}
