/**
 * Who watches a device's requests: subscribers of the tracing channel, and the histograms of `Device.metrics`. While nobody
 * does, nothing is done for it but to see that.
 */
import { tracingChannel } from 'node:diagnostics_channel';
import { performance } from 'node:perf_hooks';
import { DurationTable, type Durations } from '../open-metrics.js';
import { commandName } from '../protocol/constants.js';
import type { Access } from './region-access-codec.js';

/**
 * What subscribers of the tracing channel `vfio-user:request` are given, one object for each request: see
 * `diagnostics_channel.tracingChannel`. A promise's requests publish `start`, `end`, `asyncStart` and `asyncEnd`; those of
 * synchronous calls and of posted writes `start` and `end`; `error` comes before the last of them.
 */
export interface RequestTrace {
  /** Where the server is, as `connect` names it in errors: a path, `@name`, `host:port`. */
  readonly peer: string;
  /** The command's name in the specification: `REGION_READ`. */
  readonly command: string;
  /** `async` is answered by a promise, `sync` blocks, `posted` asks for no reply. */
  readonly kind: 'async' | 'sync' | 'posted';
  /** Of REGION_READ and REGION_WRITE: the region's index. */
  readonly region?: number;
  /** Of REGION_READ and REGION_WRITE: from where in the region. */
  readonly offset?: number;
  /** Of REGION_READ and REGION_WRITE: how many bytes. */
  readonly count?: number;
  /** What the request gave; from `asyncStart`, or `end` of a synchronous call, on. */
  result?: unknown;
  /** Why it failed; from `error` on. */
  error?: unknown;
}

const channel = tracingChannel<string, RequestTrace>('vfio-user:request');

/** What a request is, before it is known whether somebody wants to hear of it. */
export type Observed = Access | number;

/** Of one device, over all of its connections. */
export class RequestObserver {
  #table: DurationTable | undefined;

  /** Whether anybody wants to hear of requests. */
  get isActive(): boolean {
    return this.#table !== undefined || channel.hasSubscribers;
  }

  /** How long requests took, by command. They are measured from the first time on that somebody asks. */
  get durations(): Durations {
    return (this.#table ??= new DurationTable()).durations;
  }

  /** A request that a promise answers. */
  async<T>(peer: string, what: Observed, request: () => Promise<T>): Promise<T> {
    const trace = traceOf(peer, what, 'async');
    const done = this.#measure(trace.command);
    const answer = channel.hasSubscribers ? channel.tracePromise(request, trace) : request();
    if (done !== undefined) answer.then(done, done);
    return answer;
  }

  /** A request that is over when it returns. */
  sync<T>(peer: string, what: Observed, kind: 'sync' | 'posted', request: () => T): T {
    const trace = traceOf(peer, what, kind);
    // What asks for no reply takes no time that is the server's.
    const done = kind === 'sync' ? this.#measure(trace.command) : undefined;
    try {
      return channel.traceSync(request, trace);
    } finally {
      done?.();
    }
  }

  /** What is to be called when the request is over. */
  #measure(command: string): (() => void) | undefined {
    const table = this.#table;
    if (table === undefined) return undefined;
    const begun = performance.now();
    return () => table.record(command, performance.now() - begun);
  }
}

function traceOf(peer: string, what: Observed, kind: RequestTrace['kind']): RequestTrace {
  if (typeof what === 'number') return { peer, command: commandName(what), kind };
  const { command, region, offset, count } = what;
  return { peer, command: commandName(command), kind, region, offset, count };
}
