/** `--metrics HOST:PORT`: what a server counts, over HTTP, for Prometheus and its like. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { InvalidArgumentError, type Command } from 'commander';
import { OPEN_METRICS_TYPE } from '../open-metrics.js';

const LOOPBACK = '127.0.0.1';
const ADDRESS = /^(?:(?:\[(?<ipv6>[^\]]+)\]|(?<host>[^:[\]]+)):)?(?<port>\d{1,5})$/;
const MAX_PORT = 65_535;
/** A scraper needs one. */
const MAX_CONNECTIONS = 16;
/** A request's header must be there by then, in milliseconds. */
const REQUEST_TIMEOUT_MS = 5_000;

export interface MetricsAddress {
  host: string;
  port: number;
}

/** Adds the option. */
export function addMetricsOption(command: Command): Command {
  return command.option(
    '--metrics <address>',
    'serve OpenMetrics by HTTP at HOST:PORT, or a PORT of this machine alone (/metrics)',
    metricsAddress,
  );
}

/** @throws InvalidArgumentError for what is no address. */
export function metricsAddress(text: string): MetricsAddress {
  const groups = ADDRESS.exec(text)?.groups;
  const port = Number(groups?.['port']);
  if (groups === undefined || port > MAX_PORT) {
    throw new InvalidArgumentError('It is HOST:PORT, [IPV6]:PORT, or a PORT of this machine.');
  }
  return { host: groups['ipv6'] ?? groups['host'] ?? LOOPBACK, port };
}

/** Answers GET /metrics with what `text` gives, until it is disposed of. */
export class MetricsServer implements AsyncDisposable {
  readonly #server;

  private constructor(text: () => string) {
    this.#server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, ({ method, url }, response) => {
      const path = url?.split('?', 1)[0];
      if (path !== '/metrics') response.writeHead(404).end('see /metrics\n');
      else if (method !== 'GET' && method !== 'HEAD') response.writeHead(405, { allow: 'GET, HEAD' }).end();
      else response.writeHead(200, { 'content-type': OPEN_METRICS_TYPE }).end(text());
    });
    this.#server.maxConnections = MAX_CONNECTIONS;
  }

  /** @throws the system's error where the address cannot be listened at. */
  static async listen({ host, port }: MetricsAddress, text: () => string): Promise<MetricsServer> {
    const metrics = new MetricsServer(text);
    const server = metrics.#server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
    // The first scrape's durations are those of what was done before it.
    text();
    return metrics;
  }

  /** Where it listens. */
  get url(): string {
    const { address, port, family } = this.#server.address() as AddressInfo;
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}/metrics`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** The server of `--metrics`, where that was given: its address is printed on stderr. */
export async function serveMetrics(
  address: MetricsAddress | undefined,
  text: () => string,
): Promise<MetricsServer | undefined> {
  if (address === undefined) return undefined;
  const server = await MetricsServer.listen(address, text);
  process.stderr.write(`metrics at ${server.url}\n`);
  return server;
}
