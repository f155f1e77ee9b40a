/** Devices over streams: what re-chunks, breaks and ends them. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, connect as connectTcp, type AddressInfo } from 'node:net';
import { Duplex, PassThrough, Transform } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { RAM_IDENTIFICATION, RamDevice, RamDma, RamRegister, serveStream } from '../../lib/emulator/index.js';
import { ClosedError, ProtocolError, UnsupportedError, connect, type Device } from '../../lib/index.js';

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

/** Two ends of one stream; what goes from one to the other passes `via`. */
function pair(via: () => Transform = () => new PassThrough()): [Duplex, Duplex] {
  const there = via();
  const back = via();
  return [Duplex.from({ readable: back, writable: there }), Duplex.from({ readable: there, writable: back })];
}

/** Passes bytes on in pieces of `size`, whatever they came in. */
function rechunk(size: number): Transform {
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      for (let at = 0; at < chunk.length; at += size) this.push(chunk.subarray(at, at + size));
      done();
    },
  });
}

function served(stream: Duplex): RamDevice {
  const model = new RamDevice({ sharedSize: 0 });
  const server = serveStream(model, stream);
  cleanups.push(() => server.close());
  return model;
}

async function opened(stream: Duplex): Promise<Device> {
  const device = await connect({ stream, name: 'the relay' });
  cleanups.push(() => device.close());
  return device;
}

async function expectWorking(device: Device): Promise<void> {
  await device.enable();
  expect(await device.bar(0).readUInt32(0)).toBe(RAM_IDENTIFICATION);
  const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 31) & 0xff));
  await device.bar(2).write(0, bytes);
  expect((await device.bar(2).read(0, bytes.length)).equals(bytes)).toBe(true);
  const source = await device.dma.alloc(8192);
  const destination = await device.dma.alloc(8192);
  source.bytes.fill(0x5a);
  await device.bar(0).writeUInt64(RamRegister.DMA_SOURCE, source.iova);
  await device.bar(0).writeUInt64(RamRegister.DMA_DESTINATION, destination.iova);
  await device.bar(0).writeUInt32(RamRegister.DMA_LENGTH, 8192);
  await device.bar(0).writeUInt32(RamRegister.DMA_COMMAND, RamDma.COPY);
  expect(destination.bytes.equals(source.bytes)).toBe(true);
  expect(device.counters.served).toBeGreaterThanOrEqual(2);
}

describe('a device behind', () => {
  test.each([1, 7, 4096])('a relay that re-chunks to %i bytes', async (size) => {
    const [ours, theirs] = pair(() => rechunk(size));
    served(theirs);
    const device = await opened(ours);
    if (size > 1) await expectWorking(device);
    else expect(await device.bar(0).readUInt32(0)).toBe(RAM_IDENTIFICATION);
  });

  test('TCP on loopback', async () => {
    const listener = createServer((socket) => served(socket));
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    cleanups.push(() => listener.close());
    const { port } = listener.address() as AddressInfo;
    await expectWorking(await opened(connectTcp({ port, host: '127.0.0.1', noDelay: true })));
  });

  test("a child's stdio", async () => {
    const script = fileURLToPath(new URL('../support/stdio-server.mjs', import.meta.url));
    const child = spawn(process.execPath, [script], { stdio: ['pipe', 'pipe', 'inherit'] });
    cleanups.push(async () => {
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    });
    await expectWorking(await opened(Duplex.from({ readable: child.stdout, writable: child.stdin })));
  });
});

describe('without fds', () => {
  test('what needs them says so, and synchronous calls do', async () => {
    const [ours, theirs] = pair();
    served(theirs);
    const device = await opened(ours);
    await expect(device.irqs.msix.enable(1)).rejects.toBeInstanceOf(UnsupportedError);
    expect(() => device.bar(0).readUInt32Sync(0)).toThrow(UnsupportedError);
    expect(() => device.bar(2).map()).toThrow(RangeError);
    expect(device.negotiated.twinSocket).toBe(false);
    await expect(device.dma.alloc(4096, { share: true })).rejects.toBeInstanceOf(UnsupportedError);
  });
});

describe('the end', () => {
  test.each<[string, (stream: Duplex, theirs: Duplex) => void, new (...args: never[]) => Error]>([
    ['the server ends', (_ours, theirs) => theirs.end(), ClosedError],
    ['the stream fails', (ours) => ours.destroy(new Error('cable')), ClosedError],
    ['the stream is closed', (ours) => ours.destroy(), ClosedError],
    ['half a message', (_ours, theirs) => void theirs.end(Buffer.alloc(7)), ProtocolError],
    ['a message of no size', (_ours, theirs) => void theirs.write(Buffer.alloc(16)), ProtocolError],
  ])('%s', async (_title, end, kind) => {
    const [ours, theirs] = pair();
    const model = new RamDevice({ sharedSize: 0 });
    const server = serveStream(model, theirs);
    const device = await opened(ours);
    server.closed.catch(() => undefined);
    end(ours, theirs);
    const reason = await device.closed;
    expect(reason).toBeInstanceOf(kind);
    await expect(device.bar(0).readUInt32(0)).rejects.toBeInstanceOf(ClosedError);
    await server.close();
  });

  test('streams that carry no bytes are refused', async () => {
    const text = new PassThrough();
    text.setEncoding('utf8');
    await expect(connect({ stream: text })).rejects.toThrow(TypeError);
    await expect(connect({ stream: new PassThrough({ objectMode: true }) })).rejects.toThrow(TypeError);
  });
});
