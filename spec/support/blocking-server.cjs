'use strict';
/**
 * A server in a thread of its own that blocks, as C servers do, for specs of synchronous calls: before it answers a
 * region access it sends the requests that it was given, one after another, and waits for the reply of each. The replies
 * go to the parent as `{ command, flags, errno, payload }`.
 *
 * workerData: `fd`, the server's end; `twin`, undefined or the two ends `[ours, theirs]` of the twin socket; `requests`,
 * whole messages. It shares nothing with lib/ but the addon's socket.
 */
const { parentPort, workerData } = require('node:worker_threads');
const { join } = require('node:path');

const root = join(__dirname, '..', '..');
const named = process.env.VFIO_USER_ADDON;
const addon = named ? require(named) : require('node-gyp-build')(root);

const HEADER = 16;
const READABLE = 1;
const WRITABLE = 2;
const EAGAIN = 11;
/** As in lib/native.ts. */
const NO_SOCKET = -1;
const WITH_FDS = 2 ** 40;
const VERSION = 1;
const DMA_UNMAP = 3;
const REGION_READ = 9;
const REGION_WRITE = 10;

class Stream {
  #socket;
  #bytes = Buffer.alloc(0);

  constructor(fd) {
    this.#socket = new addon.Socket(fd, () => undefined);
  }

  /** The next message; undefined at the end. */
  receive() {
    while (this.#bytes.length < HEADER || this.#bytes.length < this.#bytes.readUInt32LE(4)) {
      const chunk = Buffer.alloc(1 << 20);
      const count = addon.recvWait(this.#socket.handle, chunk, 0, chunk.length, 50, NO_SOCKET);
      if (count === -EAGAIN) continue;
      if (count <= 0) return undefined;
      for (const fd of this.#socket.takeFds()) addon.closeFd(fd);
      this.#bytes = Buffer.concat([this.#bytes, chunk.subarray(0, count % WITH_FDS)]);
    }
    const message = Buffer.from(this.#bytes.subarray(0, this.#bytes.readUInt32LE(4)));
    this.#bytes = this.#bytes.subarray(message.length);
    return message;
  }

  send(bytes, fds = null) {
    for (let sent = 0; sent < bytes.length;) {
      const took = addon.send(
        this.#socket.handle,
        bytes,
        bytes.length,
        null,
        0,
        0,
        sent,
        sent === 0 ? fds : null,
      );
      if (took > 0) sent += took;
      else if (took === -EAGAIN) addon.wait(this.#socket.handle, WRITABLE | READABLE, 1, NO_SOCKET);
      else return;
    }
  }

  close() {
    this.#socket.close();
  }
}

function reply(to, payload) {
  const bytes = Buffer.alloc(HEADER + payload.length);
  to.copy(bytes, 0, 0, 4);
  bytes.writeUInt32LE(bytes.length, 4);
  bytes.writeUInt32LE(1, 8);
  bytes.set(payload, HEADER);
  return bytes;
}

function version() {
  const twinSocket = workerData.twin === undefined ? {} : { twin_socket: { supported: true, fd_index: 0 } };
  return Buffer.concat([
    Buffer.from([0, 0, 1, 0]),
    Buffer.from(`${JSON.stringify({ capabilities: twinSocket })}\0`),
  ]);
}

function serveRequests(stream) {
  for (const request of workerData.requests) {
    stream.send(Buffer.from(request));
    const got = stream.receive();
    if (got === undefined) return;
    parentPort.postMessage({
      command: got.readUInt16LE(2),
      flags: got.readUInt32LE(8),
      errno: got.readUInt32LE(12),
      payload: got.subarray(HEADER),
    });
  }
}

const main = new Stream(workerData.fd);
const twin = workerData.twin === undefined ? undefined : new Stream(workerData.twin[0]);
for (let message = main.receive(); message !== undefined; message = main.receive()) {
  const command = message.readUInt16LE(2);
  const payload = message.subarray(HEADER);
  if (command === VERSION) {
    main.send(reply(message, version()), twin === undefined ? null : [workerData.twin[1]]);
    if (twin !== undefined) addon.closeFd(workerData.twin[1]);
  } else if (command === REGION_READ || command === REGION_WRITE) {
    serveRequests(twin ?? main);
    const data = command === REGION_READ ? Buffer.alloc(payload.readUInt32LE(12), 0x2a) : Buffer.alloc(0);
    main.send(reply(message, Buffer.concat([payload.subarray(0, 16), data])));
  } else main.send(reply(message, command === DMA_UNMAP ? payload : Buffer.alloc(0)));
}
main.close();
twin?.close();
