/**
 * What a device must hold. A write that was acknowledged has happened; one that failed on the way may have happened or
 * not, so its place has more than one right answer until it is read, or written again.
 */

/** A read gave what nobody wrote, or an acknowledged write has gone. */
export class MismatchError extends Error {}

/** Words of a register file, each of 32 bits. */
export class Words {
  readonly #answers: number[][];

  constructor(count: number) {
    this.#answers = Array.from({ length: count }, () => [0]);
  }

  get count(): number {
    return this.#answers.length;
  }

  /** A write is about to be sent. */
  begin(index: number, value: number): void {
    const answers = this.#answers[index]!;
    if (!answers.includes(value)) answers.push(value);
  }

  acknowledge(index: number, value: number): void {
    this.#answers[index] = [value];
  }

  /** @throws MismatchError. */
  check(index: number, value: number): void {
    const answers = this.#answers[index]!;
    if (!answers.includes(value)) {
      throw new MismatchError(
        `word ${index} is ${hex(value)}, and was written ${answers.map(hex).join(' or ')}`,
      );
    }
    this.#answers[index] = [value];
  }
}

/** Pieces of `size` bytes, each filled from a seed; a failed write may have replaced any `unit` bytes of one. */
export class Extents {
  readonly size: number;
  readonly #unit: number;
  readonly #answers: number[][];

  constructor(count: number, size: number, unit: number) {
    this.size = size;
    this.#unit = unit;
    this.#answers = Array.from({ length: count }, () => [0]);
  }

  get count(): number {
    return this.#answers.length;
  }

  begin(index: number, seed: number): void {
    const answers = this.#answers[index]!;
    if (!answers.includes(seed)) answers.push(seed);
  }

  acknowledge(index: number, seed: number): void {
    this.#answers[index] = [seed];
  }

  /** @throws MismatchError. */
  check(index: number, bytes: Buffer): void {
    const answers = this.#answers[index]!;
    const whole = answers.find((seed) => isFilled(bytes, 0, bytes.byteLength, seed));
    if (whole !== undefined) {
      this.#answers[index] = [whole];
      return;
    }
    for (let at = 0; at < bytes.byteLength; at += this.#unit) {
      const end = Math.min(bytes.byteLength, at + this.#unit);
      if (answers.some((seed) => isFilled(bytes, at, end, seed))) continue;
      const found = hex(bytes.readUInt32LE(at));
      throw new MismatchError(
        `piece ${index} has ${found} at ${at}, and was written from ${answers.map(hex).join(' or ')}`,
      );
    }
  }
}

/** Fills memory of whole words from a seed; 0 is zeroes, as a device has them at first. */
export function fill(bytes: Buffer, seed: number): void {
  for (let at = 0; at < bytes.byteLength; at += 4) bytes.writeUInt32LE(word(seed, at), at);
}

export function isFilled(bytes: Buffer, start: number, end: number, seed: number): boolean {
  for (let at = start; at < end; at += 4) {
    if (bytes.readUInt32LE(at) !== word(seed, at)) return false;
  }
  return true;
}

function word(seed: number, at: number): number {
  return seed === 0 ? 0 : Math.imul(seed ^ Math.imul(at, 0x9e3779b1), 0x85ebca6b) >>> 0;
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
