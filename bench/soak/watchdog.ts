/** Every call has a deadline of its own; this one is for calls that miss it. */

interface Watched {
  name: string;
  since: number;
  limitMs: number;
  reported: boolean;
}

const LOOK_EVERY_MS = 500;

export class Watchdog {
  /** What hung, in words. */
  readonly hung: string[] = [];
  readonly #calls = new Set<Watched>();
  readonly #timer: NodeJS.Timeout;

  constructor() {
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  /** How many calls are under way. */
  get pending(): number {
    return this.#calls.size;
  }

  /** The promise's outcome. Names the call where it takes longer than `limitMs`. */
  async watch<T>(name: string, limitMs: number, promise: Promise<T>): Promise<T> {
    const call: Watched = { name, since: performance.now(), limitMs, reported: false };
    this.#calls.add(call);
    try {
      return await promise;
    } finally {
      this.#calls.delete(call);
    }
  }

  close(): void {
    this.#look();
    clearInterval(this.#timer);
  }

  #look(): void {
    const now = performance.now();
    for (const call of this.#calls) {
      if (call.reported || now - call.since <= call.limitMs) continue;
      call.reported = true;
      this.hung.push(`${call.name} has been under way for more than ${call.limitMs} ms`);
    }
  }
}
