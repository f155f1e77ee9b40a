/**
 * One suite for the DMA engine, whatever it is: `ENGINE=model`, `verilator`, `cocotb`, or where there is silicon
 * `ENGINE=pci:0000:01:00.0`.
 *
 *   ENGINE=verilator node --test engine.test.ts
 */
import assert from 'node:assert/strict';
import type { Vector } from 'vfio-user';
import { checkRegisters } from 'vfio-user/registers';
import { rigTest, type Rig } from 'vfio-user/testing/node-test';
import { map } from './engine-model.js';
import { engine } from './engine.js';

const test = rigTest({ ...engine(), timeoutMs: 120_000 });
const WITHIN = { within: 20_000 };

async function start(rig: Rig, from: bigint, to: bigint, length: number): Promise<void> {
  await rig.register('SOURCE').write(from);
  await rig.register('TARGET').write(to);
  await rig.field('LENGTH.BYTES').write(length);
  await rig.field('CTRL.START').write(1);
}

void test('registers are as their map says', async ({ rig }) => {
  const registers = map.block('DMA').registers.map(({ path }) => rig.register(path));
  const { findings, tested } = await checkRegisters(registers);
  assert.deepEqual(
    findings.map(({ message }) => message),
    [],
  );
  assert.ok(tested.bits >= 3, 'bits of LENGTH, SOURCE and TARGET were written');
});

void test('memory is copied, and there when the interrupt is', async ({ rig }) => {
  const [done, failed] = (await rig.device.irqs.msix.enable(2)) as [Vector, Vector];
  const buffer = await rig.device.dma.alloc(4096);
  for (const length of [1, 8, 100]) {
    const text = Buffer.alloc(length, `${length} bytes of the host's `);
    buffer.bytes.fill(0);
    text.copy(buffer.bytes, 3);
    await start(rig, buffer.iova + 3n, buffer.iova + 1029n, length);
    await rig.expectInterrupt(done, WITHIN);
    assert.deepEqual(Buffer.from(buffer.bytes.subarray(1029, 1029 + length)), text);
    assert.equal(buffer.bytes[1029 + length], 0);
    await rig.expectRegister('STATUS', { busy: 0, done: 1, error: 0 });
    await rig.expectRegister(
      'SUM',
      text.reduce((sum, byte) => sum + byte, 0),
    );
    await rig.field('STATUS.DONE').write(1);
    await rig.expectRegister('STATUS', 0);
  }
  await rig.expectNoInterrupt(failed);
});

void test('memory that is not there is an error with an interrupt of its own', async ({ rig }) => {
  const [done, failed] = (await rig.device.irqs.msix.enable(2)) as [Vector, Vector];
  const buffer = await rig.device.dma.alloc(4096);
  await start(rig, buffer.iova, 1n << 40n, 16);
  await rig.expectInterrupt(failed, WITHIN);
  await rig.expectRegister('STATUS', { busy: 0, done: 0, error: 1 });
  await rig.expectNoInterrupt(done);
});

void test('a reset ends what is under way', async ({ rig }) => {
  const buffer = await rig.device.dma.alloc(1 << 16);
  await start(rig, buffer.iova, buffer.iova + 0x8000n, 0x8000);
  await rig.device.reset();
  await rig.expectRegister('STATUS', 0);
  await rig.expectRegister('LENGTH', 0);
});
