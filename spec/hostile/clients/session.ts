/**
 * What the specs of hostile clients share: the servers of this package, each with a neighbour that nobody touches, and the
 * promises that must hold whatever a client sends: an errno or the end of its connection, by name; nothing of it left; the
 * neighbour served.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect } from '@jest/globals';
import { existsSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RAM_IDENTIFICATION, RamDevice, serve, type EmulatorServer } from '../../../lib/emulator/index.js';
import { ClosedError, VfioUserError } from '../../../lib/errors.js';
import { native } from '../../../lib/native.js';
import { proxy, type ProxyServer } from '../../../lib/proxy/index.js';
import { replay, type ReplayOptions, type ReplayServer } from '../../../lib/replay/index.js';
import { RawClient } from '../../emulator/raw-client.js';
import { openFds } from '../../support/fds.js';
import { until } from '../../support/until.js';
import { writeRecording, type RecordingOptions } from './recording.js';

export { until } from '../../support/until.js';

export const PAGE = 4096;
/** What a client may have mapped. */
export const MOST_MAPS = 64;
/** What a client may have of our memory while it is hostile, bytes. */
const MOST_MEMORY = 160 << 20;

/** Which server a hostile client has before it. */
export type Where = 'emulator' | 'proxy' | 'replay';
/** Those behind which there is a device. */
export const SERVERS: readonly Where[] = ['emulator', 'proxy'];
export const ALL_SERVERS: readonly Where[] = ['emulator', 'proxy', 'replay'];

let directory: string;
let model: RamDevice;
let server: EmulatorServer;
let legacy: EmulatorServer;
let front: ProxyServer;
let recorded: ReplayServer;
/** A replay serves one client, so its neighbours' is another one. */
let otherRecorded: ReplayServer;
let neighbours: RawClient[] = [];
let fdsBefore: number;
let memoryBefore: number;
let rejections = 0;
/** Why clients' connections ended. */
const ends: unknown[] = [];
/** What a server was told that is its own fault. */
const faults: unknown[] = [];
const cleanups: (() => unknown)[] = [];

export function cleanup(run: () => unknown): void {
  cleanups.push(run);
}

function countRejection(): void {
  rejections++;
}

export function turn(ms = 2): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A replay that goes on whatever comes. */
const FORGIVING: ReplayOptions = { mode: 'matching', repeatLast: true, afterDifference: 'continue' };

async function noteEnds(server: ReplayServer): Promise<void> {
  try {
    for (;;) ends.push((await server.nextReport()).reason);
  } catch (error) {
    if (!(error instanceof ClosedError)) throw error;
  }
}

/** A replay with other options, for one test. */
export async function otherReplay(
  options: ReplayOptions,
  recording: RecordingOptions = {},
): Promise<ReplayServer> {
  const path = join(directory, `recording ${JSON.stringify(recording)}`);
  if (!existsSync(path)) await writeRecording(path, recording);
  const server = await replay(path, { ...FORGIVING, ...options });
  cleanup(() => server.close());
  return server;
}

async function start(): Promise<void> {
  directory = mkdtempSync(join(tmpdir(), 'hostile-'));
  const at = (name: string): string => join(directory, name);
  const features = new Map([[1000, Buffer.alloc(8)]]);
  model = new RamDevice({ migration: 'pre-copy', doorbells: true, features, ramSize: 1 << 16 });
  const options = {
    clients: 'many',
    maxDmaMaps: MOST_MAPS,
    maxEventFds: 64,
    onClient: ({ closed }: { closed: Promise<VfioUserError> }) => void closed.then((why) => ends.push(why)),
    onError: (error: unknown) => faults.push(error),
  } as const;
  server = await serve(model, { path: at('device'), dirtyPages: 'logging', ...options });
  legacy = await serve(model, { path: at('legacy'), dirtyPages: 'legacy', ...options });
  front = await proxy({ listen: at('front'), connect: at('device'), interrupts: true });
  await writeRecording(at('recording'));
  recorded = await replay(at('recording'), { ...FORGIVING, path: at('replay') });
  void noteEnds(recorded);
  otherRecorded = await replay(at('recording'), { ...FORGIVING, path: at('other replay') });
  for (const path of [at('device'), at('front'), at('other replay')]) {
    const neighbour = RawClient.connect(path);
    await neighbour.negotiate();
    neighbours.push(neighbour);
  }
}

async function stop(): Promise<void> {
  for (const neighbour of neighbours) neighbour.close();
  neighbours = [];
  await front.close();
  await Promise.all([server, legacy, recorded, otherRecorded].map((one) => one.close()));
  model.close();
  rmSync(directory, { recursive: true });
}

/** The promises that every test keeps. */
export function keepPromises(): void {
  beforeAll(async () => {
    process.on('unhandledRejection', countRejection);
    await start();
    // The test runner itself opens and closes files while it starts.
    await turn(200);
  });

  beforeEach(() => {
    fdsBefore = openFds();
    memoryBefore = process.memoryUsage().rss;
    ends.length = 0;
  });

  afterEach(async () => {
    for (const run of cleanups.splice(0).reverse()) await run();
    for (const neighbour of neighbours) {
      expect(await neighbour.read32(0, 0)).toBe(RAM_IDENTIFICATION);
      expect(neighbour.inbox).toHaveLength(0);
    }
    const isAlone = () =>
      server.clientCount === 2 && legacy.clientCount === 0 && recorded.progress === undefined;
    await until(isAlone, 'the client disconnected');
    await until(() => openFds() <= fdsBefore, 'its file descriptors are closed');
    expect(process.memoryUsage().rss - memoryBefore).toBeLessThan(MOST_MEMORY);
    expect(faults).toEqual([]);
    expect(rejections).toBe(0);
    for (const why of ends) expect(why).toBeInstanceOf(VfioUserError);
  });

  afterAll(async () => {
    process.off('unhandledRejection', countRejection);
    await stop();
  });
}

/** A client that has said nothing yet, closed after the test. */
export function stranger(where: Where | 'legacy'): RawClient {
  return strangerAt(pathOf(where));
}

export function pathOf(where: Where | 'legacy'): string {
  const name = { emulator: 'device', proxy: 'front', legacy: 'legacy', replay: 'replay' }[where];
  return join(directory, name);
}

export function strangerAt(path: string): RawClient {
  const client = RawClient.connect(path);
  cleanup(() => client.close());
  return client;
}

/** A client that has negotiated. */
export async function client(
  where: Where | 'legacy',
  capabilities: object = { write_multiple: true },
): Promise<RawClient> {
  const raw = stranger(where);
  const { fds } = await raw.negotiate(capabilities);
  for (const fd of fds) cleanup(() => native().closeFd(fd));
  return raw;
}

/** What a whole message is answered: `ok`, the errno of a bare error header, or the end of the connection. */
export type Outcome = 'ok' | 'closed' | number;

export async function outcomeOf(
  raw: RawClient,
  bytes: Buffer,
  fds: readonly number[] = [],
): Promise<Outcome> {
  try {
    const { flags, errno, payload, fds: came } = await raw.ask(bytes, fds);
    for (const fd of came) native().closeFd(fd);
    if ((flags & 0x20) === 0) return 'ok';
    // "If an error occurs, the reply message must only include the reply header."
    expect(payload).toHaveLength(0);
    expect(errno).toBeGreaterThan(0);
    return errno;
  } catch (error) {
    if (raw.ended) return 'closed';
    throw error;
  }
}

/** How the last connection to the emulator or the replay ended. */
export async function whyItEnded(): Promise<VfioUserError> {
  await until(() => ends.length > 0, 'the end of the connection');
  return ends.at(-1) as VfioUserError;
}

/** The client is served: it was only that command which was wrong. */
export async function expectServed(raw: RawClient): Promise<void> {
  expect(await raw.read32(0, 0)).toBe(RAM_IDENTIFICATION);
}

export function memory(size: number): number {
  return kept(native().memfd('hostile', size, false));
}

export function emptyFile(): number {
  return kept(openSync(join(directory, 'empty'), 'w+'));
}

export function eventfd(): number {
  return kept(native().eventfd(0));
}

/** Closed after the test. */
function kept(fd: number): number {
  if (fd < 0) throw new Error(`no file descriptor: errno ${-fd}`);
  cleanup(() => native().closeFd(fd));
  return fd;
}

/** Whoever has done nothing is served, while others do what they do. */
export async function expectNeighboursServed(): Promise<void> {
  for (const neighbour of neighbours) expect(await neighbour.read32(0, 0)).toBe(RAM_IDENTIFICATION);
}
