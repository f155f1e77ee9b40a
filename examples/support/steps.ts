/** Steps that say what they did, one line each. */

export class Steps {
  #count = 0;
  readonly #begun = performance.now();

  /** Runs a step; what it resolves to is told. Its failure says which step it was. */
  async run(name: string, work: () => Promise<string>): Promise<void> {
    this.#count++;
    const label = `${String(this.#count).padStart(2)}  ${name.padEnd(22)}`;
    try {
      console.log(`${label}${await work()}`);
    } catch (error) {
      console.log(`${label}FAILED`);
      throw new Error(`step ${this.#count} (${name}) failed: ${reasonOf(error)}`, { cause: error });
    }
  }

  /** Runs a step that gives something to go on with, and what is told. */
  async open<T>(name: string, work: () => Promise<[T, string]>): Promise<T> {
    let result!: T;
    await this.run(name, async () => {
      const [opened, text] = await work();
      result = opened;
      return text;
    });
    return result;
  }

  /** The last line. */
  summary(): string {
    const seconds = (performance.now() - this.#begun) / 1000;
    return `all ${this.#count} steps verified (${seconds.toFixed(1)} s)`;
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
