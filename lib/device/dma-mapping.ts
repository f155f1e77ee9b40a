/** Memory of the caller's that the device reads and writes. */
import { forbidCloning } from '../cloning.js';
import type { CallOptions } from '../connection/index.js';
import * as option from '../options.js';
import type { DmaWindow } from './dma-window.js';
import type { DmaWindows } from './dma-windows.js';

/** Made by `device.dma.map`. */
export class DmaMapping {
  /** Where the device finds it. */
  readonly iova: bigint;
  /** In bytes. */
  readonly size: number;
  readonly #windows: DmaWindows;
  readonly #window: DmaWindow;

  /** @internal */
  constructor(windows: DmaWindows, window: DmaWindow) {
    this.#windows = windows;
    this.#window = window;
    this.iova = window.iova;
    this.size = window.size;
    forbidCloning(this, 'a DmaMapping');
  }

  /** @internal */
  get window(): DmaWindow {
    return this.#window;
  }

  /** Whether the memory has been unmapped (or given up while it was), or the device has been closed. */
  get isClosed(): boolean {
    return this.#window.state !== 'mapped';
  }

  /**
   * DMA_UNMAP; idempotent. Once it resolves the server does not use the memory any more.
   * @throws RemoteError, after which it is still mapped; TimeoutError, ProtocolError, or the signal's reason: the server
   * may still use the memory then, and its addresses stay reserved until the device is closed.
   */
  async close(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('DmaMapping.close', options);
    return this.#windows.unmap(this.#window, options);
  }

  /** Another name for `close`. */
  async unmap(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('DmaMapping.unmap', options);
    return this.close(options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
