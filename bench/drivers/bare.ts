/** The same read as `Region.readUInt32Sync` makes, with nothing around the addon's calls. */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** What is used of the addon here; lib/native.ts has it all. */
interface BareSocket {
  readonly handle: number;
  close(): void;
}

interface BareAddon {
  connectUnix(path: string): number;
  Socket: new (fd: number, onEvent: () => void) => BareSocket;
  send(
    socket: number,
    head: Uint8Array,
    length: number,
    body: null,
    offset: 0,
    bodyLength: 0,
    sent: 0,
    fds: null,
  ): number;
  recvWait(
    socket: number,
    into: Uint8Array,
    offset: number,
    length: number,
    timeoutMs: number,
    other: number,
  ): number;
}

const HEADER = 16;
const NO_SOCKET = -1;

/** Seconds that `count` reads of 4 bytes from region 1 take. */
export function bareRoundTrips(path: string, count: number): Promise<number> {
  const require = createRequire(import.meta.url);
  const root = fileURLToPath(new URL('../../../..', import.meta.url));
  const addon = (require('node-gyp-build') as (directory: string) => BareAddon)(root);
  const socket = new addon.Socket(addon.connectUnix(path), () => undefined);
  const { handle } = socket;
  const answer = Buffer.alloc(65_536);
  const roundTrip = (message: Buffer): number => {
    addon.send(handle, message, message.length, null, 0, 0, 0, null);
    let got: number;
    do got = addon.recvWait(handle, answer, 0, answer.length, 50, NO_SOCKET);
    while (got < 0);
    return got;
  };
  const json = '{"capabilities":{"max_msg_fds":1}}\0';
  roundTrip(message(1, Buffer.concat([Buffer.from([0, 0, 1, 0]), Buffer.from(json)])));
  const access = Buffer.alloc(16);
  access.writeUInt32LE(1, 8);
  access.writeUInt32LE(4, 12);
  const read = message(9, access);
  for (let i = 0; i < 500; i++) roundTrip(read);
  const begin = performance.now();
  for (let i = 0; i < count; i++) {
    if (roundTrip(read) !== 36) throw new Error('a reply of another size');
  }
  const seconds = (performance.now() - begin) / 1e3;
  socket.close();
  return Promise.resolve(seconds);
}

function message(command: number, payload: Buffer): Buffer {
  const bytes = Buffer.alloc(HEADER + payload.length);
  bytes.writeUInt16LE(command, 2);
  bytes.writeUInt32LE(bytes.length, 4);
  payload.copy(bytes, HEADER);
  return bytes;
}
