/** What nobody holds any more is collected; what is closed by nobody is closed then, and a process is none the worse. */
import { expect, test } from '@jest/globals';
import { built, runScript } from './child.js';

async function reports(script: string): Promise<unknown[]> {
  const { status, signal, stderr, reports: all } = await runScript(script);
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
  return all;
}

test('closed devices are collected, and so is all that they had', async () => {
  const [{ left, fds }] = (await reports(`
    const warm = await open(); await warm.device.close(); await warm.server.close(); warm.model.close();
    await sleep(50);
    const before = countFds();
    const use = async () => {
      const { device, server, model } = await open();
      const area = device.bar(1).map();
      const bytes = area.bytes;
      bytes[0] = 1;
      const [vector] = await device.irqs.msix.enable(1);
      const buffer = await device.dma.alloc(4096);
      await device.close();
      await server.close();
      model.close();
      return [device, area, vector, buffer].map((object) => new WeakRef(object));
    };
    const weak = [];
    for (let i = 0; i < 5; i++) weak.push(...(await use()));
    const left = () => weak.filter((reference) => reference.deref() !== undefined).length;
    await collect(() => left() === 0);
    report({ left: left(), fds: countFds() - before });
  `)) as [{ left: number; fds: number }];
  expect(fds).toBe(0);
  expect(left).toBe(0);
});

test('closed devices are collected, too, where others that were asked before and after them stay open', async () => {
  expect(
    await reports(`
      const stays = await open();
      const ask = async ({ device }) => await device.bar(0).readUInt32(8);
      const use = async () => {
        const goes = await open();
        for (let i = 0; i < 3; i++) { await ask(goes); await ask(stays); }
        await goes.device.close();
        await goes.server.close();
        goes.model.close();
        return new WeakRef(goes.device);
      };
      const weak = [];
      for (let i = 0; i < 5; i++) weak.push(await use());
      const left = () => weak.filter((reference) => reference.deref() !== undefined).length;
      await collect(() => left() === 0);
      report([left(), await ask(stays)]);
      await stays.device.close();
      await stays.server.close();
      stays.model.close();
    `),
  ).toEqual([[0, 4]]);
});

test('a device over a stream that nobody holds is collected, whoever was asked after it', async () => {
  expect(
    await reports(`
      import { duplexPair } from 'node:stream';
      import { serveStream } from '${built('emulator/index.js')}';
      const use = async () => {
        const [here, there] = duplexPair();
        serveStream(new RamDevice(), there);
        const device = await connect({ stream: here }, { timeoutMs: 1_000 });
        await device.bar(0).readUInt32(8);
        return new WeakRef(device);
      };
      const weak = [];
      for (let i = 0; i < 5; i++) weak.push(await use());
      const left = () => weak.filter((reference) => reference.deref() !== undefined).length;
      await sleep(1_500);
      await collect(() => left() === 0);
      report(left());
    `),
  ).toEqual([0]);
});

test('a device that nobody holds goes on, as its socket is watched', async () => {
  expect(
    await reports(`
      const counts = [];
      const { server, model } = await (async () => {
        const { device, server, model } = await open();
        const [vector] = await device.irqs.msix.enable(1);
        vector.onInterrupt((count) => counts.push(count));
        await device.bar(0).writeUInt32(0x0c, 2 << 16);
        return { server, model };
      })();
      await collect(() => false);
      await server.close();
      model.close();
      await sleep(20);
      report(counts.length > 0);
    `),
  ).toEqual([true]);
});

test('areas, buffers and vectors that nobody closed are closed with the device, collected or not', async () => {
  expect(
    await reports(`
      const warm = await open(); await warm.device.close(); await warm.server.close(); warm.model.close();
      await sleep(50);
      const before = countFds();
      const { device, server, model } = await open();
      for (let i = 0; i < 50; i++) {
        device.bar(1).map();
        await device.dma.alloc(4096);
      }
      await device.irqs.msix.enable(4);
      await collect(() => false);
      await device.close();
      await server.close();
      model.close();
      await collect(() => countFds() === before);
      report(countFds() - before);
    `),
  ).toEqual([0]);
});

test('native objects that nobody closed give their fds back when they are collected', async () => {
  expect(
    await reports(`
      const before = countFds();
      (() => {
        for (let i = 0; i < 20; i++) {
          const [a, b] = native().socketPair();
          new (native().Socket)(a, () => {});
          new (native().Socket)(b, () => {});
          new (native().EventFd)(native().eventfd(0), () => {});
        }
      })();
      await collect(() => countFds() === before);
      report(countFds() - before);
    `),
  ).toEqual([0]);
});

test('a view outlives its device and its area: it reads what nobody else sees', async () => {
  expect(
    await reports(`
      const { device, server, model } = await open();
      const area = device.bar(1).map();
      const view = new Uint8Array(area.bytes.buffer, area.bytes.byteOffset, 4096);
      const moved = structuredClone(area.bytes.buffer, { transfer: [] });
      view[0] = 9;
      await device.close();
      await server.close();
      model.close();
      await collect(() => false);
      report([view.length, view[0] === undefined, moved.byteLength > 0]);
    `),
  ).toEqual([[0, true, true]]);
});
