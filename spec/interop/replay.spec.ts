/**
 * What servers of others did, recorded and replayed. The fixture is made again with VFIO_USER_RECORD=1 and VFIO_USER_GPIO.
 */
import { describe, expect, jest, test } from '@jest/globals';
import { mkdirSync, readFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect, type Device } from '../../lib/index.js';
import { PciRegion } from '../../lib/protocol/index.js';
import { RECORDABLE, ReplayError, formatReport, replay } from '../../lib/replay/index.js';
import { MAIN, Scratch } from '../cli/cli.js';
import { mergeCaptures } from '../support/merge-captures.js';
import { GPIO_SESSIONS } from './gpio-session.js';
import { ServerProcess } from './server-process.js';

jest.setTimeout(60_000);

const FIXTURES = fileURLToPath(new URL('../fixtures/', import.meta.url));
const GPIO = path.join(FIXTURES, 'gpio.pcapng');
const { VFIO_USER_GPIO = '', VFIO_USER_LVU_SAMPLES = '', VFIO_USER_RECORD = '' } = process.env;

(VFIO_USER_GPIO !== '' && VFIO_USER_RECORD === '1' ? test : test.skip)(
  "records rust-vmm's gpio for spec/fixtures (VFIO_USER_RECORD=1 and VFIO_USER_GPIO)",
  async () => {
    const scratch = new Scratch();
    const parts: Record<string, string> = {};
    for (const [name, session] of Object.entries(GPIO_SESSIONS)) {
      const capture = scratch.path(`${Object.keys(parts).length}.pcapng`);
      await using server = new ServerProcess(VFIO_USER_GPIO, (socket) => ['--socket-path', socket]);
      const device = await server.connect({ ...RECORDABLE, capture });
      await session(device);
      await device.close();
      parts[name] = capture;
    }
    mkdirSync(FIXTURES, { recursive: true });
    await mergeCaptures(parts, GPIO);
    scratch.remove();
  },
);

describe("a recording of rust-vmm's gpio is what the program is", () => {
  // In a process of its own, as the program: sessions make synchronous calls.
  test.each(Object.keys(GPIO_SESSIONS))('%s', async (name) => {
    const args = (socket: string) => [
      MAIN,
      'replay',
      GPIO,
      '--connection',
      name,
      '--complete',
      '--socket',
      socket,
    ];
    await using server = new ServerProcess(process.execPath, args);
    const device = await server.connect();
    try {
      await GPIO_SESSIONS[name]!(device);
    } finally {
      await device.close();
    }
    const status = await server.exited();
    expect([status, server.log]).toEqual([0, expect.stringContaining('\ncomplete: ')]);
  });

  test('the fixture names nobody and no place', () => {
    const text = readFileSync(GPIO, 'latin1');
    for (const word of [tmpdir(), process.cwd(), userInfo().homedir, '/tmp', '/home', '.sock']) {
      expect(text).not.toContain(word);
    }
    expect(text.length).toBeLessThan(200_000);
  });
});

describe('a changed client', () => {
  test('is told the first message that differs, field by field', async () => {
    await using server = await replay(GPIO, { connection: 'BAR2 reads: every third one is 1' });
    const device = await connect(server.path);
    await device.enable();
    const bar = device.bar(2);
    expect([await bar.readUInt8(0), await bar.readUInt8(0), await bar.readUInt8(0)]).toEqual([0, 0, 1]);
    await expect(bar.readUInt16(2)).rejects.toMatchObject({ code: 'EIO' });
    await expect(bar.readUInt8(0)).rejects.toMatchObject({ code: 'EIO' });
    await device.close();
    const report = await server.report();
    expect(report).toMatchObject({ outcome: 'different', differenceCount: 1, refused: 2 });
    expect(report.differences[0]).toMatchObject({
      kind: 'changed',
      number: report.next!.number,
      expected: 'REGION_READ offset=0x0 region=2 count=1',
      received: 'REGION_READ offset=0x2 region=2 count=2',
      fields: [
        { field: 'offset', expected: '0x0', received: '0x2' },
        { field: 'count', expected: '1', received: '2' },
      ],
    });
    await expect(server.assertComplete()).rejects.toThrow(ReplayError);
    expect(formatReport(report)).toContain(
      '  offset: recorded 0x0, received 0x2\n  count: recorded 1, received 2\n',
    );
  });
});

(VFIO_USER_LVU_SAMPLES === '' ? describe.skip : describe)(
  "libvfio-user's samples (VFIO_USER_LVU_SAMPLES names their directory)",
  () => {
    test('server: a timer interrupt, DMA both ways by message; recorded and replayed', async () => {
      const scratch = new Scratch();
      const capture = scratch.path('server.pcapng');
      const alarm = BigInt(Math.floor(Date.now() / 1000) + 2);
      const session = async (device: Device): Promise<Buffer> => {
        expect([device.config.vendorId, device.config.deviceId]).toEqual([0xdead, 0xbeef]);
        const [vector] = await device.irqs.intx.enable(1);
        // It accesses the first mapping by message and the second one as memory.
        const buffer = await device.dma.alloc(8 << 20);
        await device.dma.alloc(8 << 20);
        await device.bar(0).writeUInt64(0, alarm);
        expect(await vector.wait({ timeoutMs: 20_000 })).toBe(1);
        // It is answered when the DMA of the alarm is over.
        await device.region(PciRegion.CONFIG).readUInt32(0);
        const bytes = Buffer.from(buffer.bytes.subarray(0, 4096));
        await device.close();
        return bytes;
      };
      await using original = new ServerProcess(path.join(VFIO_USER_LVU_SAMPLES, 'server'), (socket) => [
        '-v',
        socket,
      ]);
      const bytes = await session(await original.connect({ mmap: 'never', capture }));
      expect(bytes.toString('latin1')).toBe(['A', 'B', 'C', 'D'].map((char) => char.repeat(1024)).join(''));
      await using server = await replay(capture);
      expect(await session(await connect(server.path, { mmap: 'never' }))).toEqual(bytes);
      await server.assertComplete();
      scratch.remove();
    });
  },
);
