/** Requests of the server that wait for asynchronous handlers: few at a time, and no more than memory allows. */
import PQueue from 'p-queue';

const MAX_RUNNING = 16;
/** A server that sends without waiting for its answers is refused beyond these. */
const MAX_WAITING = 1024;
const MAX_WAITING_BYTES = 32 << 20;

export class DmaBacklog {
  /** Made with the first request: most devices have none that waits. */
  #queue: PQueue | undefined;
  #count = 0;
  #bytes = 0;

  /** Whether one more request, of `bytes`, may wait. */
  hasRoom(bytes: number): boolean {
    return this.#count < MAX_WAITING && this.#bytes + bytes <= MAX_WAITING_BYTES;
  }

  /** Carries out `serve`, which does not reject, when its turn comes. Begun in order; they may end in any. */
  add(bytes: number, serve: () => Promise<void>): void {
    this.#count++;
    this.#bytes += bytes;
    this.#queue ??= new PQueue({ concurrency: MAX_RUNNING });
    void this.#queue.add(serve).finally(() => {
      this.#count--;
      this.#bytes -= bytes;
    });
  }
}
