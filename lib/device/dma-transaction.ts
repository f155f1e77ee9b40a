/**
 * Several DMA_MAP and DMA_UNMAP as one: sent without waiting, awaited together, undone together.
 *
 * What is unmapped keeps its memory, its addresses and its slot until the commit, so that it can be mapped again.
 */
import { forUndoing, type CallOptions } from '../connection/index.js';
import { DmaBatchError, type DmaFailure } from '../errors.js';
import type { ArenaPool } from './arena-pool.js';
import type { Arena, ArenaKind } from './arena.js';
import { DmaBuffer } from './dma-buffer.js';
import type { DmaMapping } from './dma-mapping.js';
import type { DmaAllocOptions, DmaHandlerOptions, DmaMapOptions } from './dma-options.js';
import type { DmaRegion } from './dma-region.js';
import type { DmaMapManager } from './dma-map-manager.js';

interface Step {
  readonly operation: DmaFailure['operation'];
  readonly region: DmaRegion;
  /** Never rejects. */
  readonly outcome: Promise<{ error: unknown } | undefined>;
}

/** What one transaction allocates: nobody else's before it is committed, and nobody's where it is not. */
export class TransactionBuffers {
  readonly #pool: ArenaPool;
  /** Arenas that it mapped. */
  readonly #begun: Arena[] = [];
  readonly #buffers: DmaBuffer[] = [];

  constructor(pool: ArenaPool) {
    this.#pool = pool;
  }

  alloc(
    size: number,
    alignment: number,
    kind: ArenaKind,
    log: TransactionLog,
    options: CallOptions,
  ): DmaBuffer {
    const { allocation, mapped } = this.#pool.begin(size, alignment, kind, this.#begun, options);
    if (mapped !== undefined) log.mapped(allocation.arena.region, mapped);
    const buffer = new DmaBuffer(this.#pool, allocation, size);
    this.#buffers.push(buffer);
    return buffer;
  }

  commit(): void {
    this.#pool.publish(this.#begun);
  }

  undo(): void {
    for (const buffer of this.#buffers) buffer.rollBack();
  }
}

/** What is recorded of a transaction; `Dma.transaction` commits it. */
export class TransactionLog {
  readonly #manager: DmaMapManager;
  readonly #steps: Step[] = [];
  #isOpen = true;

  constructor(manager: DmaMapManager) {
    this.#manager = manager;
  }

  /** @throws TypeError once the transaction is over. */
  checkOpen(): void {
    if (!this.#isOpen) throw new TypeError('the DMA transaction is over');
  }

  mapped(region: DmaRegion, done: Promise<void>): void {
    this.#add('DMA_MAP', region, done);
  }

  /** @throws TypeError for a mapping that is not mapped yet. */
  unmap(region: DmaRegion, options: CallOptions | undefined): void {
    if (region.state === 'mapping')
      throw new TypeError('it was mapped in this transaction, or is being mapped');
    if (region.state !== 'mapped') return;
    const done = this.#manager.beginUnmap(region, options);
    // Waiting for the commit would never end within the transaction's own callback.
    const refusal = Promise.reject<void>(new TypeError('a DMA transaction is unmapping it'));
    refusal.catch(() => undefined);
    region.unmapping = refusal;
    this.#add('DMA_UNMAP', region, done);
  }

  /** @throws DmaBatchError with all undone. */
  async commit(options: CallOptions | undefined): Promise<void> {
    const failures = await this.#finish();
    if (failures.length === 0) {
      for (const { operation, region } of this.#steps)
        if (operation === 'DMA_UNMAP') this.#manager.finishUnmap(region);
      this.#free();
      return;
    }
    const left = await this.#undo(options);
    this.#free();
    const count = `${failures.length} of ${this.#steps.length} failed`;
    const undone = left.length === 0 ? ', the rest was undone' : '';
    throw new DmaBatchError(`DMA transaction: ${count}${undone}`, failures, left);
  }

  /** The callback threw `cause`. @throws DmaBatchError where something could not be undone. */
  async rollBack(cause: unknown, options: CallOptions | undefined): Promise<void> {
    await this.#finish();
    const left = await this.#undo(options);
    this.#free();
    if (left.length === 0) return;
    const error = new DmaBatchError('DMA transaction: given up, and not all of it undone', [], left);
    error.cause = cause;
    throw error;
  }

  #add(operation: Step['operation'], region: DmaRegion, done: Promise<void>): void {
    const outcome = done.then(
      () => undefined,
      (error: unknown) => ({ error }),
    );
    this.#steps.push({ operation, region, outcome });
  }

  async #finish(): Promise<DmaFailure[]> {
    this.#isOpen = false;
    const failures: DmaFailure[] = [];
    for (const { operation, region, outcome } of this.#steps) {
      const failed = await outcome;
      if (failed !== undefined) failures.push(failureOf(operation, region, failed.error));
    }
    return failures;
  }

  /** Unmaps what was mapped, which frees addresses and slots, and then maps again what was unmapped. */
  async #undo(options: CallOptions | undefined): Promise<DmaFailure[]> {
    const patience = forUndoing(options, this.#manager.timeoutMs);
    const made = this.#steps.filter(({ operation }) => operation === 'DMA_MAP');
    const taken = this.#steps.filter(({ operation }) => operation === 'DMA_UNMAP');
    return [
      ...(await failuresOf(
        'DMA_UNMAP',
        made.filter(({ region }) => region.state === 'mapped'),
        (region) => this.#manager.unmap(region, patience),
      )),
      ...(await failuresOf(
        'DMA_MAP',
        taken.filter(({ region }) => region.state === 'unmapping'),
        (region) => this.#manager.undoUnmap(region, patience),
      )),
    ];
  }

  #free(): void {
    for (const { operation, region } of this.#steps) {
      if (operation === 'DMA_UNMAP') region.unmapping = undefined;
    }
  }
}

/** What `device.dma.transaction` gives its callback. */
export interface DmaTransaction {
  /**
   * Like `Dma.alloc`, without waiting: the memory and its addresses are there at once, and the device may use them after
   * the commit. Many of one transaction share a mapping as others do.
   * @throws what `Dma.alloc` rejects with before anything is sent.
   */
  alloc(size: number, options?: DmaAllocOptions): DmaBuffer;
  /**
   * Like `Dma.map`, without waiting: the mapping has its addresses at once, and is `closed` until the commit.
   * @throws what `Dma.map` rejects with before anything is sent.
   */
  map(options: DmaMapOptions | DmaHandlerOptions): DmaMapping;
  /** Like `DmaMapping.unmap`, without waiting. The addresses are free after the commit. */
  unmap(mapping: DmaMapping, options?: CallOptions): void;
}

async function failuresOf(
  operation: DmaFailure['operation'],
  steps: readonly Step[],
  undo: (region: DmaRegion) => Promise<void>,
): Promise<DmaFailure[]> {
  const outcomes = steps.map(({ region }) =>
    undo(region).then(
      () => [],
      (error: unknown) => [failureOf(operation, region, error)],
    ),
  );
  return (await Promise.all(outcomes)).flat();
}

function failureOf(
  operation: DmaFailure['operation'],
  { iova, size }: DmaRegion,
  error: unknown,
): DmaFailure {
  return { operation, iova, size, error };
}
