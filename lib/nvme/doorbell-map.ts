/** Which kind of doorbell each queue gets, and the memory behind those that need some. */
import {
  TransportError,
  UnsupportedError,
  type Device,
  type DmaBuffer,
  type MappedArea,
  type Region,
} from '../index.js';
import { completionDoorbell, NvmeRegister, submissionDoorbell } from './registers.js';
import { MappedDoorbell, MessageDoorbell, ShadowDoorbell, type Doorbell } from './rings.js';

export class DoorbellMap {
  readonly #bar: Region;
  readonly #stride: number;
  readonly #onError: (error: unknown) => void;
  #areas: MappedArea[] = [];
  #shadow: DmaBuffer | undefined;
  #pageSize = 0;

  /** `onError` hears of doorbells that could not be written. */
  constructor(bar: Region, stride: number, onError: (error: unknown) => void) {
    this.#bar = bar;
    this.#stride = stride;
    this.#onError = onError;
  }

  /** The buffers for Doorbell Buffer Config, one page each, cleared: they last until the controller is reset. */
  async shadowBuffers(device: Device, pageSize: number): Promise<{ shadow: bigint; eventIndexes: bigint }> {
    this.#pageSize = pageSize;
    this.#shadow ??= await device.dma.alloc(2 * pageSize, { alignment: pageSize });
    this.#shadow.bytes.fill(0);
    return { shadow: this.#shadow.iova, eventIndexes: this.#shadow.iova + BigInt(pageSize) };
  }

  /** The doorbells of a queue pair: tail of the submission queue, head of the completion queue. */
  pair(queue: number): { sq: Doorbell; cq: Doorbell } {
    return {
      sq: this.#doorbell(queue, submissionDoorbell(queue, this.#stride)),
      cq: this.#doorbell(queue, completionDoorbell(queue, this.#stride)),
    };
  }

  /** Unmaps; doorbells that are made later map again. */
  close(): void {
    for (const area of this.#areas) area.close();
    this.#areas = [];
  }

  /** @internal For the controller to free, when the device is done with it. */
  get buffer(): DmaBuffer | undefined {
    return this.#shadow;
  }

  #doorbell(queue: number, offset: number): Doorbell {
    const real = this.#real(offset);
    const at = offset - NvmeRegister.DOORBELLS;
    // The admin queue's never are in the shadow buffer; nor those beyond its page.
    if (this.#shadow === undefined || queue === 0 || at + 4 > this.#pageSize) return real;
    const { buffer, byteOffset } = this.#shadow.bytes;
    const words = this.#pageSize >>> 2;
    return new ShadowDoorbell(
      new Uint32Array(buffer, byteOffset, words),
      new Uint32Array(buffer, byteOffset + this.#pageSize, words),
      at >>> 2,
      real,
    );
  }

  #real(offset: number): Doorbell {
    const area = this.#map(offset);
    if (area === undefined) return new MessageDoorbell(this.#bar, offset, this.#onError);
    return new MappedDoorbell(area, offset - area.offset);
  }

  /** The area that has the doorbell; undefined where there is none, or it must not be mapped. */
  #map(offset: number): MappedArea | undefined {
    const has = (area: { offset: number; size: number }) =>
      area.offset <= offset && offset + 4 <= area.offset + area.size;
    const mapped = this.#areas.find(has);
    if (mapped !== undefined) return mapped;
    const area = this.#bar.areas.find(has);
    if (area === undefined) return undefined;
    // Registers before the doorbells may lie in the same area; they are the controller's, and stay out of reach.
    const begin = Math.max(area.offset, NvmeRegister.DOORBELLS);
    try {
      const made = this.#bar.map(begin, area.offset + area.size - begin);
      this.#areas.push(made);
      return made;
    } catch (error) {
      if (error instanceof UnsupportedError || error instanceof TransportError) return undefined;
      throw error;
    }
  }
}
