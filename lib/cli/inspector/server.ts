/**
 * The inspector's HTTP server, for one user's browser. All that it has lies under a path that begins with a random token; other
 * web pages are kept out by that, by the Host and Origin that browsers send, and by a Content-Security-Policy without exceptions.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { VfioUserError } from '../../index.js';
import { toJsonLine } from '../json.js';
import { documentOf, STYLE } from './document.js';
import { BadRequest, WritesRefused, type Subject } from './subject.js';

const MOST_CONNECTIONS = 32;
/** Requests that are being answered, and bytes of one's body. */
const MOST_REQUESTS = 16;
const MOST_BODY = 64 << 10;
/** A request must be there by then, in milliseconds. */
const REQUEST_TIMEOUT_MS = 5_000;
const LOOPBACK = ['127.0.0.1', 'localhost', '[::1]'];
const ANY = ['0.0.0.0', '::'];
const SCRIPT = /^[\w-]+\.js$/;

const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; " +
    "form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'cache-control': 'no-store',
};

/** What is answered, with a status. */
class Refusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

interface Answer {
  readonly type: string;
  readonly body: string | Buffer;
}

export class InspectorServer implements AsyncDisposable {
  readonly #server;
  readonly #subject: Subject;
  readonly #host: string;
  readonly #token = randomBytes(16).toString('hex');
  #requests = 0;

  private constructor(subject: Subject, host: string) {
    this.#subject = subject;
    this.#host = host;
    this.#server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
      void this.#serve(request, response);
    });
    this.#server.maxConnections = MOST_CONNECTIONS;
  }

  /** @throws the system's error where the address cannot be listened at. */
  static async listen(subject: Subject, host: string, port: number): Promise<InspectorServer> {
    const inspector = new InspectorServer(subject, host);
    const server = inspector.#server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
    return inspector;
  }

  /** What a browser is to open. It is all that is needed to use the inspector. */
  get url(): string {
    const { address, port, family } = this.#server.address() as AddressInfo;
    const host = family === 'IPv6' ? `[${address}]` : address;
    return `http://${host}:${port}/${this.#token}/`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#requests++;
    let status = 200;
    let answer: Answer;
    try {
      if (this.#requests > MOST_REQUESTS) throw new Refusal(503, 'too many requests at once');
      answer = await this.#answer(request);
    } catch (error) {
      // A browser that has gone is told nothing.
      if (!(error instanceof Refusal) && request.destroyed && !request.complete) return;
      status = statusOf(error);
      const { message } = error as Error;
      const code = error instanceof VfioUserError ? error.code : undefined;
      answer = json({ error: { code, message: status === 500 ? 'the inspector failed' : message } });
      if (status === 500) process.stderr.write(`vfio-user: inspect: ${message}\n`);
    } finally {
      this.#requests--;
    }
    const { type, body } = answer;
    // What of the request's body was not read is not to be taken for the next request.
    const end = request.complete ? {} : { connection: 'close' };
    response.writeHead(status, { ...HEADERS, ...end, 'content-type': type }).end(body);
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    this.#checkHost(request);
    const { method = '', url = '/' } = request;
    const [pathname = '', query = ''] = url.split('?', 2);
    const [, token = '', ...rest] = pathname.split('/');
    if (!isSame(token, this.#token))
      throw new Refusal(404, 'there is nothing: the address that was printed has a token');
    const name = rest.join('/');
    if (method === 'GET' || method === 'HEAD') return this.#get(name, new URLSearchParams(query));
    if (method !== 'POST') throw new Refusal(405, 'GET and POST are what there is');
    this.#checkOrigin(request);
    return this.#post(name, await bodyOf(request));
  }

  async #get(name: string, query: URLSearchParams): Promise<Answer> {
    switch (name) {
      case '':
        return { type: 'text/html; charset=utf-8', body: documentOf() };
      case 'style.css':
        return { type: 'text/css; charset=utf-8', body: STYLE };
      case 'api/device':
        return json(this.#subject.describe());
      case 'api/config':
        return json(this.#subject.config() ?? null);
      case 'api/events':
        return json({
          ...this.#subject.log.page(countOf(query, 'from'), countOf(query, 'count')),
          state: this.#subject.state(),
        });
      default:
        return script(name);
    }
  }

  async #post(name: string, body: Readonly<Record<string, unknown>>): Promise<Answer> {
    const subject = this.#subject;
    switch (name) {
      case 'api/registers':
        return json(await subject.registers(textsOf(body['names'])));
      case 'api/memory': {
        const { region, offset, length, width } = body;
        const hex = await subject.memory(
          textOf('region', region),
          wholeOf('offset', offset),
          wholeOf('length', length),
          wholeOf('width', width),
        );
        return json({ hex });
      }
      case 'api/write':
        await subject.write(textOf('target', body['target']), textOf('value', body['value']));
        return json({});
      default:
        throw new Refusal(404, 'there is no such thing');
    }
  }

  /** A name of another page's that leads here (DNS rebinding) is not ours. */
  #checkHost({ headers: { host = '' } }: IncomingMessage): void {
    if (ANY.includes(this.#host)) return;
    const { port } = this.#server.address() as AddressInfo;
    const own = this.#host.includes(':') ? `[${this.#host}]` : this.#host;
    const names = LOOPBACK.includes(own) ? LOOPBACK : [own];
    if (!names.some((name) => host.toLowerCase() === `${name}:${port}`))
      throw new Refusal(403, 'the Host is another one');
  }

  #checkOrigin({ headers }: IncomingMessage): void {
    const { origin, host } = headers;
    if (origin !== undefined && origin !== `http://${host}`)
      throw new Refusal(403, 'the Origin is another one');
    if (headers['content-type']?.split(';', 1)[0] !== 'application/json')
      throw new Refusal(415, 'a body is application/json');
  }
}

function isSame(given: string, token: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
}

function json(value: unknown): Answer {
  return { type: 'application/json', body: toJsonLine(value) };
}

/** A module of the page's, which are compiled beside this file. */
async function script(name: string): Promise<Answer> {
  if (!SCRIPT.test(name)) throw new Refusal(404, 'there is no such thing');
  const file = new URL(`./page/${name}`, import.meta.url);
  const body = await readFile(file).catch(() => {
    throw new Refusal(404, 'there is no such thing');
  });
  return { type: 'text/javascript; charset=utf-8', body };
}

async function bodyOf(request: IncomingMessage): Promise<Readonly<Record<string, unknown>>> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MOST_BODY) throw new Refusal(413, `a body is at most ${MOST_BODY} bytes`);
    chunks.push(chunk);
  }
  let body: unknown;
  try {
    body = JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new Refusal(400, 'the body is no JSON');
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw new Refusal(400, 'the body must be an object');
  return body as Record<string, unknown>;
}

function statusOf(error: unknown): number {
  if (error instanceof Refusal) return error.status;
  if (error instanceof WritesRefused) return 403;
  if (error instanceof BadRequest || error instanceof RangeError || error instanceof TypeError) return 400;
  // The device's, or its server's.
  return error instanceof VfioUserError ? 502 : 500;
}

function countOf(query: URLSearchParams, name: string): number {
  const text = query.get(name) ?? '0';
  if (!/^\d{1,15}$/.test(text)) throw new Refusal(400, `${name} must be a whole number`);
  return Number(text);
}

function textOf(name: string, value: unknown): string {
  if (typeof value !== 'string' || value.length > 1_024)
    throw new Refusal(400, `${name} must be a string of at most 1,024 characters`);
  return value;
}

function textsOf(value: unknown): string[] {
  if (!Array.isArray(value)) throw new Refusal(400, 'names must be a list');
  return value.map((one) => textOf('a name', one));
}

function wholeOf(name: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
    throw new Refusal(400, `${name} must be a whole number`);
  return value;
}
