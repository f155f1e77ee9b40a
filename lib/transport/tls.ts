/** TLS over a connected socket, with a certificate that is checked. */
import { isIP, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { TimeoutError, VfioUserError } from '../errors.js';
import { wrongType } from '../fields.js';
import * as option from '../options.js';
import { MAX_TIMER_MS } from '../system-numbers.js';

/** Certificates and keys, as PEM, of a `tls://` address. */
export interface TlsSettings {
  /** The certificates of those who may have signed the server's; by default those that Node trusts. */
  ca?: string | Uint8Array | undefined;
  /** Our own certificate, for a server that asks for one. */
  cert?: string | Uint8Array | undefined;
  /** The key of `cert`. */
  key?: string | Uint8Array | undefined;
  /** Whose certificate the server must have; by default the host of the address. */
  servername?: string | undefined;
}

const pem: option.Check = (value, caller, name) =>
  typeof value === 'string' || value instanceof Uint8Array
    ? undefined
    : wrongType(`${caller}: ${name}`, 'PEM, in a string or bytes', value);

const TABLE = new option.OptionTable<TlsSettings>({
  ca: pem,
  cert: pem,
  key: pem,
  servername: option.string,
});

/** A check of the option `tls`. */
export const tlsSettings = option.options(TABLE);

/**
 * TLS on a socket, which is closed where it does not come about.
 * @throws VfioUserError `ERR_VFIO_USER_TLS`, TimeoutError, the signal's reason.
 */
export function openTls(
  socket: Socket,
  host: string,
  name: string,
  { leftMs, timeoutMs }: { leftMs: number; timeoutMs: number },
  signal: AbortSignal | undefined,
  { ca, cert, key, servername }: TlsSettings = {},
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const expected = servername ?? host;
    const bytes = { ca: asBuffer(ca), cert: asBuffer(cert), key: asBuffer(key) };
    let tls: TLSSocket | undefined;
    const settle = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      tls?.off('error', onError);
      tls?.off('close', onClose);
    };
    const fail = (error: Error): void => {
      settle();
      tls?.on('error', () => undefined);
      socket.on('error', () => undefined);
      tls?.destroy();
      socket.destroy();
      reject(error);
    };
    const onError = (cause: Error): void => fail(tlsError(cause, name));
    const onClose = (): void => fail(tlsError(new Error('the server closed the connection'), name));
    const onAbort = (): void => fail(signal?.reason as Error);
    const onTime = (): void => fail(new TimeoutError(`connect to ${name}`, timeoutMs));
    const timer = setTimeout(onTime, Math.min(leftMs, MAX_TIMER_MS));
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted === true) return onAbort();
    try {
      // An address is no name that TLS could ask for; the certificate is compared with it all the same.
      const sni = isIP(expected) === 0 ? { servername: expected } : { host: expected };
      tls = connectTls({ socket, ...sni, ...bytes });
    } catch (error) {
      return fail(tlsError(error as Error, name));
    }
    tls.once('error', onError);
    tls.once('close', onClose);
    const secured = tls;
    tls.once('secureConnect', () => {
      settle();
      resolve(secured);
    });
  });
}

function tlsError(cause: Error, name: string): VfioUserError {
  const { code } = cause as NodeJS.ErrnoException;
  const what = code === undefined ? cause.message : `${cause.message} (${code})`;
  return new VfioUserError('ERR_VFIO_USER_TLS', `${name}: ${what}`, { cause });
}

function asBuffer(pem: string | Uint8Array | undefined): string | Buffer | undefined {
  return pem instanceof Uint8Array ? Buffer.from(pem) : pem;
}
