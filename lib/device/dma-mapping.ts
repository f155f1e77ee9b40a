/** Memory of the caller's that the device reads and writes. */
import { forbidCloning } from '../cloning.js';
import type { CallOptions } from '../connection/index.js';
import * as option from '../options.js';
import type { DmaRegion } from './dma-region.js';
import type { DmaMapManager } from './dma-map-manager.js';

/**
 * Memory of the caller's that the device reads and writes. `device.dma.map` makes it.
 *
 * @example
 * ```ts
 * await using mapping = await device.dma.map({ fd, size: 1 << 20 });
 * await bar.writeUInt64(0x80, mapping.iova);
 * ```
 */
export class DmaMapping {
  /** Where the device finds it. */
  readonly iova: bigint;
  /** In bytes. */
  readonly size: number;
  readonly #manager: DmaMapManager;
  readonly #region: DmaRegion;

  /** @internal */
  constructor(manager: DmaMapManager, region: DmaRegion) {
    this.#manager = manager;
    this.#region = region;
    this.iova = region.iova;
    this.size = region.size;
    forbidCloning(this, 'a DmaMapping');
  }

  /** @internal */
  get region(): DmaRegion {
    return this.#region;
  }

  /** Whether the memory has been unmapped (or given up while it was), or the device has been closed. */
  get isClosed(): boolean {
    return this.#region.state !== 'mapped';
  }

  /**
   * DMA_UNMAP; idempotent. Once it resolves the server does not use the memory any more.
   * @throws RemoteError, after which it is still mapped; TimeoutError, ProtocolError, or the signal's reason: the server
   * may still use the memory then, and its addresses stay reserved until the device is closed.
   */
  async close(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('DmaMapping.close', options);
    return this.#manager.unmap(this.#region, options);
  }

  /** Another name for `close`. */
  async unmap(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('DmaMapping.unmap', options);
    return this.close(options);
  }

  /** Does what `close` does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
