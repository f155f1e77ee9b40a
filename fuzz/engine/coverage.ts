/** Which blocks of the library's code have run, as V8 counts them. */
import { Session, type Profiler } from 'node:inspector';

export class Coverage {
  readonly #session = new Session();
  readonly #seen = new Set<string>();

  constructor() {
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** How many blocks have been seen. */
  get size(): number {
    return this.#seen.size;
  }

  /** Forgets what has run since the last look: it was not an input's doing. */
  skip(): void {
    this.#take();
  }

  /** The blocks that have run since the last look and never before that. `keep` says that they are known from now on. */
  news(keep: boolean): number {
    let count = 0;
    for (const block of this.#take()) {
      if (this.#seen.has(block)) continue;
      count++;
      if (keep) this.#seen.add(block);
    }
    return count;
  }

  *#take(): Generator<string> {
    let scripts: Profiler.ScriptCoverage[] = [];
    // In this thread the answer comes before `post` returns.
    this.#session.post('Profiler.takePreciseCoverage', (error, { result }) => {
      if (error !== null) throw error;
      scripts = result;
    });
    for (const { url, scriptId, functions } of scripts) {
      if (!url.includes('/lib/') || url.includes('/node_modules/')) continue;
      for (const { ranges } of functions) {
        for (const { count, startOffset, endOffset } of ranges) {
          if (count > 0) yield `${scriptId}:${startOffset}:${endOffset}`;
        }
      }
    }
  }
}
