/** Streams that the caller opens: how long is waited for one, and what becomes of one that comes too late. */
import type { Duplex } from 'node:stream';
import { TimeoutError } from '../errors.js';
import * as option from '../options.js';
import { MAX_TIMER_MS } from '../system-numbers.js';

/** Opens a stream; the signal says that nobody waits for it any more. */
export type Dial = (signal: AbortSignal) => Duplex | Promise<Duplex>;

/** @throws what `dial` throws, TimeoutError, the signal's reason. */
export async function openDialled(
  dial: Dial,
  name: string,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<Duplex> {
  const giveUp = new AbortController();
  const onAbort = (): void => giveUp.abort(signal?.reason);
  const onTime = (): void => giveUp.abort(new TimeoutError(`dial ${name}`, timeoutMs));
  const timer = setTimeout(onTime, Math.min(timeoutMs, MAX_TIMER_MS));
  signal?.addEventListener('abort', onAbort, { once: true });
  const dialling = (async () => {
    const stream = await dial(giveUp.signal);
    const problem = option.duplex(stream, `dial ${name}`, 'what it gives');
    if (problem !== undefined) throw problem;
    return stream;
  })();
  const givenUp = new Promise<never>((_, reject) => {
    giveUp.signal.addEventListener('abort', () => reject(giveUp.signal.reason as Error), { once: true });
  });
  try {
    return await Promise.race([dialling, givenUp]);
  } catch (error) {
    // A stream that comes too late is nobody's.
    dialling.then(
      (stream) => stream.destroy(),
      () => undefined,
    );
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}
