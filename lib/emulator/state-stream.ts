/**
 * The stream of a device's state: records, each with its length. A device that was read while it ran has written more
 * than one; the last one counts.
 *
 * ```
 *   | length u32 | state | …
 * ```
 */
const PREFIX_BYTES = 4;

/** The parts of a record of the state that has these parts. */
export function recordOf(state: readonly Uint8Array[]): Uint8Array[] {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32LE(state.reduce((sum, part) => sum + part.byteLength, 0));
  return [prefix, ...state];
}

/** Takes a stream apart as it comes, in memory for two states: the last whole one, and the one that is arriving. */
export class RecordReader {
  readonly #stateBytes: number;
  readonly #prefix = Buffer.alloc(PREFIX_BYTES);
  /** Of the record that is arriving, its prefix included. */
  #arrived = 0;
  #arriving: Buffer | undefined;
  #last: Buffer | undefined;
  #fault: string | undefined;

  /** `stateBytes` is the size of every state of this device. */
  constructor(stateBytes: number) {
    this.#stateBytes = stateBytes;
  }

  push(data: Buffer): void {
    for (let at = 0; at < data.byteLength && this.#fault === undefined;) {
      const part = data.subarray(at);
      at += this.#arrived < PREFIX_BYTES ? this.#takePrefix(part) : this.#takeState(part);
    }
  }

  /** The last state. @throws RangeError where there is none, or the stream is no stream of states. */
  take(): Buffer {
    if (this.#fault === undefined && this.#arrived > 0) this.#fault = 'the stream has been cut';
    if (this.#fault !== undefined) throw new RangeError(this.#fault);
    if (this.#last === undefined) throw new RangeError('the stream is empty');
    return this.#last;
  }

  #takePrefix(data: Buffer): number {
    const taken = data.copy(this.#prefix, this.#arrived, 0, PREFIX_BYTES - this.#arrived);
    this.#arrived += taken;
    if (this.#arrived < PREFIX_BYTES) return taken;
    const length = this.#prefix.readUInt32LE(0);
    if (length !== this.#stateBytes) {
      this.#fault = `a state of ${length} bytes, this device's are of ${this.#stateBytes}`;
    } else this.#arriving = Buffer.alloc(length);
    return taken;
  }

  #takeState(data: Buffer): number {
    const state = this.#arriving!;
    const taken = data.copy(state, this.#arrived - PREFIX_BYTES);
    this.#arrived += taken;
    if (this.#arrived - PREFIX_BYTES === state.byteLength) {
      this.#last = state;
      this.#arriving = undefined;
      this.#arrived = 0;
    }
    return taken;
  }
}
