/** Something that takes any bytes and must not mind. */
export interface Target {
  readonly name: string;
  /** Throws, or rejects, where a promise of the library is broken. */
  run(input: Buffer): void | Promise<void>;
}

/** @throws Error with that text, where a promise of the library is broken. */
export function promise(kept: boolean, what: string): asserts kept {
  if (!kept) throw new Error(what);
}
