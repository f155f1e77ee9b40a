/** DMA addresses behind which there is no memory, but functions of the caller's: a bridge to hardware, a simulator. */
import { DmaHandlerError } from '../errors.js';
import { EIO } from '../system-numbers.js';

/**
 * What the server's DMA_READ and DMA_WRITE come to. One call is one request, or the part of it that lies in the mapping:
 * 1 byte to 1 MiB, wherever it begins. `address` is the device's.
 *
 * What is thrown is answered EIO, a `DmaHandlerError` with its errno; part of the request may have been done by then.
 */
export interface DmaHandler {
  /** Exactly `length` bytes, which stay unchanged until the next turn of the event loop. */
  read(address: bigint, length: number): Uint8Array | Promise<Uint8Array>;
  /** `bytes` are the handler's to keep. */
  write(address: bigint, bytes: Buffer): void | Promise<void>;
}

/** libvfio-user takes these for the end of its client: ENOMSG, ECONNRESET. */
const NEVER_ANSWERED = new Set([42, 104]);

/** A handler whose mistakes are errnos. */
export class HandlerBacking {
  /** It gives promises: it cannot be asked while a synchronous call blocks. */
  readonly isAsync: boolean;
  readonly #handler: DmaHandler;

  constructor(handler: DmaHandler, isAsync: boolean) {
    this.#handler = handler;
    this.isAsync = isAsync;
  }

  /** Fills `into`; returns 0 or an errno. */
  readSync(address: bigint, into: Buffer): number {
    try {
      return fill(into, refusePromise(this.#handler.read(address, into.length)));
    } catch (error) {
      return errnoOf(error);
    }
  }

  writeSync(address: bigint, bytes: Buffer): number {
    try {
      refusePromise(this.#handler.write(address, Buffer.from(bytes)));
      return 0;
    } catch (error) {
      return errnoOf(error);
    }
  }

  /** Like `readSync`; never rejects. */
  async read(address: bigint, into: Buffer): Promise<number> {
    try {
      return fill(into, await this.#handler.read(address, into.length));
    } catch (error) {
      return errnoOf(error);
    }
  }

  async write(address: bigint, bytes: Buffer): Promise<number> {
    try {
      await this.#handler.write(address, Buffer.from(bytes));
      return 0;
    } catch (error) {
      return errnoOf(error);
    }
  }
}

function fill(into: Buffer, bytes: unknown): number {
  if (!(bytes instanceof Uint8Array) || bytes.length !== into.length) {
    throw new TypeError(`a DMA handler's read gives a Uint8Array of exactly ${into.length} bytes`);
  }
  into.set(bytes);
  return 0;
}

/** A handler that was declared synchronous is not waited for. */
function refusePromise<T>(result: T | Promise<T>): T {
  if (!(result instanceof Promise)) return result;
  result.catch(() => undefined);
  throw new TypeError('a DMA handler that gives promises is mapped with async: true');
}

function errnoOf(error: unknown): number {
  return error instanceof DmaHandlerError && !NEVER_ANSWERED.has(error.errno) ? error.errno : EIO;
}
