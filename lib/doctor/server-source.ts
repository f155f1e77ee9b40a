/** Where servers come from: one that runs already, or a new one for each probe. */
import { canOpenAgain, type Endpoint } from '../transport/index.js';

/** A server that was started for a probe. */
export interface StartedServer {
  /** Where it listens, or will in a moment. */
  readonly endpoint: Endpoint;
  /** How it ended: `exit 0`, `SIGABRT`; settles, never rejects. */
  readonly exited: Promise<string>;
  /** Ends it, and settles when it has ended. Idempotent. */
  stop(): Promise<void>;
}

/** Starts a server; called again for every probe. */
export type StartServer = () => Promise<StartedServer>;

/** What is diagnosed. */
export type Subject = Endpoint | { start: StartServer };

/** One subject, as the runner sees it. */
export class ServerSource {
  readonly #start: StartServer | undefined;
  readonly #endpoint: Endpoint | undefined;
  #server: StartedServer | undefined;
  #used = false;

  constructor(subject: Subject) {
    if (typeof subject === 'object' && subject !== null && 'start' in subject) this.#start = subject.start;
    else this.#endpoint = subject;
  }

  get startsServers(): boolean {
    return this.#start !== undefined;
  }

  /** The server's endpoint; a server is started where none runs. @throws what starting throws. */
  async endpoint(): Promise<Endpoint> {
    if (this.#start === undefined) return this.#fixed();
    this.#server ??= await this.#start();
    return this.#server.endpoint;
  }

  /** The next probe gets a new server, where servers are started here. */
  async renew(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    await server?.stop();
  }

  /** How the server ended, if it does within `waitMs`; undefined where it runs, or where that is unknown. */
  async ended(waitMs: number): Promise<string | undefined> {
    if (this.#server === undefined) return undefined;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), waitMs);
    });
    try {
      return await Promise.race([this.#server.exited, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** A stream or an inherited socket is one connection, and no more. */
  #fixed(): Endpoint {
    const endpoint = this.#endpoint!;
    if (!canOpenAgain(endpoint) && this.#used) throw new EndpointUsed();
    this.#used = true;
    return endpoint;
  }
}

/** The endpoint is one connection, and it was used. */
export class EndpointUsed extends Error {
  constructor() {
    super('the endpoint is one connection, and it was used');
  }
}
