/** structuredClone, and a message to a worker, would give an object without methods: it is an error instead. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { MessageChannel } from 'node:worker_threads';
import { inspect } from 'node:util';
import {
  MemoryStore,
  NvmeDevice,
  RamDevice,
  SharedMemory,
  serve,
  type EmulatorServer,
} from '../lib/emulator/index.js';
import { connect, type Device } from '../lib/index.js';
import { NvmeController } from '../lib/nvme/index.js';

let directory: string;
let servers: EmulatorServer[];
let device: Device;

beforeEach(async () => {
  directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
  servers = [await serve(new RamDevice(), { path: path.join(directory, 'ram') })];
  device = await connect(path.join(directory, 'ram'));
});

afterEach(async () => {
  await device.close();
  for (const server of servers) await server.close();
  rmSync(directory, { recursive: true });
});

function expectRefused(object: object): void {
  const refusal = expect.objectContaining({ name: 'DataCloneError' });
  expect(() => structuredClone(object)).toThrow(refusal);
  const { port1, port2 } = new MessageChannel();
  expect(() => port1.postMessage({ object })).toThrow(refusal);
  port1.close();
  port2.close();
}

describe('cloning', () => {
  test('of a device and of what it gives is refused', async () => {
    const area = device.bar(1).map();
    const vector = (await device.irqs.msix.enable(1))[0];
    const buffer = await device.dma.alloc(4096);
    const { config, irqs, dma, features, migration } = device;
    for (const object of [
      device,
      device.bar(0),
      config,
      area,
      irqs,
      irqs.msix,
      vector,
      dma,
      buffer,
      features,
      migration,
    ])
      expectRefused(object);
    expect(() => structuredClone(buffer)).toThrow('a DmaBuffer cannot be cloned: it belongs to its thread');
    // Memory is cloned as any other.
    buffer.bytes.fill(7);
    expect(structuredClone(buffer.bytes)).toEqual(new Uint8Array(4096).fill(7));
  });

  test('of a server, a memory, a controller and a queue, too', async () => {
    const nvme = new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] });
    servers.push(await serve(nvme, { path: path.join(directory, 'nvme') }));
    await using other = await connect(path.join(directory, 'nvme'));
    await using controller = await NvmeController.open(other);
    const queue = await controller.createQueue();
    for (const object of [servers[0]!, new SharedMemory(4096), controller, queue]) expectRefused(object);
  });

  test('costs nothing else: they are shown, and made into JSON', () => {
    expect(JSON.stringify(device.bar(0))).toContain('"index":0');
    expect(inspect(device.bar(0))).toMatch(/^Region \{/);
  });
});
