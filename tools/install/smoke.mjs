/**
 * What test-install.cjs runs in a project that has the package: a device is connected to, with registers, an interrupt and
 * DMA. The server is a process of its own, since a Node that an emulator runs cannot start itself again.
 *
 *     node smoke.mjs serve PATH     until standard input ends
 *     node smoke.mjs PATH           prints which Node and which addon it was
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

async function serveDevice(path) {
  const { EduDevice, serve } = await import('vfio-user/emulator');
  const server = await serve(new EduDevice(), { path });
  console.log('ready');
  process.stdin.resume().once('end', () => void server.close());
}

async function drive(path) {
  const { connect } = await import('vfio-user');
  const device = await connect(path, { timeoutMs: 60_000, waitForSocket: true });
  await device.enable();
  const bar = device.bar(0);
  assert.equal(await bar.readUInt32(0), 0x0100_00ed);
  assert.equal(bar.readUInt32Sync(0), 0x0100_00ed);

  const [vector] = await device.irqs.msi.enable(1);
  await bar.writeUInt32(0x60, 1);
  assert.equal(await vector.wait({ timeoutMs: 20_000 }), 1);

  const buffer = await device.dma.alloc(4096, { addressBits: 28 });
  buffer.bytes.write('there and back', 0);
  for (const [source, target, command] of [
    [buffer.iova, 0x40000n, 1n],
    [0x40000n, buffer.iova + 1024n, 3n],
  ]) {
    await bar.writeUInt64(0x80, source);
    await bar.writeUInt64(0x88, target);
    await bar.writeUInt64(0x90, 14n);
    await bar.writeUInt64(0x98, command);
    await bar.waitFor(0x98, 1, 0, { timeoutMs: 20_000 });
  }
  assert.equal(buffer.bytes.toString('latin1', 1024, 1038), 'there and back');
  await device.close();
  const [addon = ''] = /\/\S+\.node$/m.exec(readFileSync('/proc/self/maps', 'utf8')) ?? [];
  console.log(JSON.stringify({ version: process.version, arch: process.arch, addon }));
}

const [first, second] = process.argv.slice(2);
await (first === 'serve' ? serveDevice(second) : drive(first));
