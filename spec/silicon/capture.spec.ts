/**
 * A session with the guest's NVMe, captured there (`npm run test:vm` leaves it in build/vm/out), replays outside. Memory that
 * hardware writes is in no capture: the session is one of registers, config space and interrupts.
 */
import { describe, expect, test } from '@jest/globals';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { connect, type Device } from '../../lib/index.js';
import { NvmeRegister } from '../../lib/nvme/registers.js';
import { RECORDABLE, replay } from '../../lib/replay/index.js';
import { describePci, openPci } from './pci-subjects.js';

/** Given in the guest. */
const OUT = process.env['VFIO_USER_TEST_OUT'];
const folder = OUT ?? path.resolve('build/vm/out');
const capture = path.join(folder, 'nvme.pcapng');
const answers = path.join(folder, 'nvme.json');

/** What an NVMe driver sees before it has memory, and an interrupt. */
async function session(device: Device): Promise<unknown> {
  await device.enable();
  const bar = device.bar(0);
  const registers = [
    String(await bar.readUInt64(NvmeRegister.CAP)),
    await bar.readUInt32(NvmeRegister.VS),
    await bar.readUInt32(NvmeRegister.CSTS),
  ];
  await bar.writeUInt32(NvmeRegister.AQA, 0x001f_001f);
  registers.push(await bar.readUInt32(NvmeRegister.AQA));
  const [vector] = await device.irqs.msix.enable(1);
  await device.irqs.msix.trigger();
  const count = await vector.wait({ timeoutMs: 60_000 });
  await device.irqs.msix.disable();
  await device.reset();
  registers.push(await bar.readUInt32(NvmeRegister.AQA));
  const { vendorId, deviceId, capabilities } = device.config;
  return { vendorId, deviceId, capabilities: capabilities.map(({ name }) => name), registers, count };
}

describePci('VFIO_USER_TEST_CAPTURED', 'a session', (address) => {
  test('is captured', async () => {
    if (OUT === undefined) return;
    const device = await openPci(address, { ...RECORDABLE, capture });
    const result = await session(device);
    await device.close();
    writeFileSync(answers, JSON.stringify(result));
    expect(result).toMatchObject({ count: 1 });
  });
});

const isThere = OUT === undefined && existsSync(answers);
(isThere ? describe : describe.skip)('the session of the guest, from build/vm/out', () => {
  test('replays', async () => {
    await using server = await replay(capture);
    const device = await connect(server.path, { ...RECORDABLE });
    const result = await session(device).finally(() => device.close());
    expect(result).toEqual(JSON.parse(readFileSync(answers, 'utf8')));
    expect(await server.report()).toMatchObject({ outcome: 'complete', differences: [] });
  });
});
