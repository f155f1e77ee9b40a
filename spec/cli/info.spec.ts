import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { spawn, spawnSync } from 'node:child_process';
import { serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { MAIN, Scratch, outcomeOf, vfioUser } from './cli.js';
import { space } from '../pci/config-bytes.js';
import { PatternDevice, serveEdu } from './emulator.js';

jest.setTimeout(60_000);

const scratch = new Scratch();
const edu = scratch.path('edu');
const pattern = scratch.path('pattern');
const servers: EmulatorServer[] = [];

beforeAll(async () => {
  servers.push(await serveEdu(edu), await serve(new PatternDevice(), { path: pattern }));
});

afterAll(async () => {
  for (const server of servers) await server.close();
  scratch.remove();
});

describe('info --json', () => {
  test('has the keys that programs count on', async () => {
    const { status, stdout, stderr } = await vfioUser('info', edu, '--json');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const report = JSON.parse(stdout) as Record<string, unknown>;
    expect(report).toMatchObject({
      socket: edu,
      vendorId: 0x1234,
      deviceId: 0x11e8,
      flagNames: ['RESET', 'PCI'],
      negotiated: {
        major: 0,
        minor: 2,
        twinSocket: true,
        capabilities: { maxDataXferSize: 1048576, pgsizes: 4096 },
      },
    });
    expect(report['regions']).toHaveLength(9);
    expect(report['regions']).toEqual(
      expect.arrayContaining([
        { index: 0, name: 'bar0', size: 1048576, flags: 3, flagNames: ['READ', 'WRITE'], mmap: [] },
        { index: 7, name: 'config', size: 256, flags: 3, flagNames: ['READ', 'WRITE'], mmap: [] },
        { index: 8, name: 'vga', size: 0, flags: 0, flagNames: [], mmap: [] },
      ]),
    );
    expect(report['irqs']).toHaveLength(5);
    expect(report['irqs']).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ index: 0, name: 'INTx', count: 1, flags: 3 }),
        expect.objectContaining({ index: 1, name: 'MSI', count: 1, flags: 3 }),
        expect.objectContaining({ index: 2, name: 'MSI-X', count: 0, flags: 0 }),
      ]),
    );
    expect(report['config']).toMatchObject({
      size: 256,
      header: {
        revisionId: 0x10,
        bars: expect.arrayContaining([expect.objectContaining({ index: 0, address: 0 })]),
      },
      capabilities: [{ id: 5, name: 'MSI', offset: 64, kind: 'msi', vectorsCapable: 1 }],
      problems: [],
    });
  });

  test('lists the areas that can be mapped', async () => {
    const { stdout } = await vfioUser('info', pattern, '--json');
    const { regions } = JSON.parse(stdout) as { regions: { size: number; mmap: unknown }[] };
    expect(regions[2]).toMatchObject({ size: 8192, mmap: [{ offset: 4096, size: 4096 }] });
  });
});

describe('a device that is not on PCI', () => {
  test('has regions and interrupts by number, and no config space', async () => {
    const socket = scratch.path('platform');
    const memory = { bytes: Buffer.alloc(64, 0xab) };
    servers.push(
      await serve({ flags: 0, regions: [{ index: 0, size: 64, memory }], irqs: [] }, { path: socket }),
    );
    const { stdout } = await vfioUser('info', socket, '--json');
    const report = JSON.parse(stdout) as { regions: { name: string }[] };
    expect(report).toMatchObject({ vendorId: null, deviceId: null, name: null, config: null, flagNames: [] });
    expect(report.regions[0]).toMatchObject({ name: 'region 0', size: 64 });
    expect((await vfioUser('info', socket)).stdout).toMatch(/^a device {2}at /);
    expect((await vfioUser('read', socket, '0', '4')).stdout).toBe('0xabababab\n');
    expect(await vfioUser('lspci', socket)).toMatchObject({
      status: 1,
      stderr: 'vfio-user: the device has no config space [ERR_VFIO_USER_UNSUPPORTED]\n',
    });
  });
});

describe('info', () => {
  test('says the same in words', async () => {
    const { status, stdout } = await vfioUser('info', edu);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^1234:11e8 {2}QEMU edu {2}at /);
    expect(stdout).toMatch(/flags\s+RESET PCI/);
    expect(stdout).toMatch(/version\s+0\.2/);
    expect(stdout).toMatch(/0\s+bar0\s+0x100000\s+1 MiB\s+READ WRITE\s+-/);
    expect(stdout).toMatch(/none: bar1, bar2, bar3, bar4, bar5, rom, vga/);
    expect(stdout).toMatch(/0\s+INTx\s+1\s+EVENTFD MASKABLE/);
    expect(stdout).toMatch(/class\s+0x00ff00/);
    expect(stdout).toMatch(/bar0\s+32-bit memory, 1 MiB, no address yet/);
    expect(stdout).toMatch(/\[0x40\]\s+MSI: off, 1 vector/);
  });

  test('shows mappable areas', async () => {
    const { stdout } = await vfioUser('info', pattern);
    expect(stdout).toMatch(/2\s+bar2\s+0x2000\s+8 KiB\s+READ WRITE MMAP CAPS\s+0x1000\+0x1000/);
  });

  test('has no colours where nobody looks', async () => {
    const { stdout } = await vfioUser('info', edu);
    expect(stdout).not.toContain('\u001b');
  });

  // script(1) of util-linux makes a terminal.
  // Its child's sanitizer and its own do not bear each other.
  const isPlain = process.env['LD_PRELOAD'] === undefined;
  const hasScript =
    isPlain && /util-linux/.test(spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout ?? '');
  (hasScript ? test : test.skip)('has colours on a terminal, unless told not to (needs script)', async () => {
    const onTerminal = async (...args: string[]) => {
      const command = [process.execPath, MAIN, 'info', edu, ...args].join(' ');
      const env = { ...process.env, NO_COLOR: '', TERM: 'xterm' };
      const stdio = ['ignore', 'pipe', 'pipe'] as const;
      return (await outcomeOf(spawn('script', ['-qec', command, '/dev/null'], { env, stdio: [...stdio] })))
        .stdout;
    };
    expect(await onTerminal()).toContain('\u001b[1m1234:11e8\u001b[22m');
    expect(await onTerminal('--no-color')).toMatch(/^1234:11e8/);
  });
});

describe('config space', () => {
  async function infoOf(bytes: Buffer, ...options: string[]): Promise<string> {
    const socket = scratch.path(`config-${servers.length}`);
    const region = { index: 7, size: bytes.length, memory: { bytes } };
    servers.push(await serve({ regions: [region], irqs: [] }, { path: socket }));
    const { status, stdout, stderr } = await vfioUser('info', socket, ...options);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    return stdout;
  }

  test('shows the link, and what people look for in capabilities', async () => {
    const bytes = space(4096, {
      0x000: '3412 7856 0604 1000 01 00 00 02',
      0x034: '40',
      0x040:
        '1000 0200 01800010 3028 0100 43384100 0000 4310 00000000 0000 0000 0000 0000 00000000 1f080000 0a04',
      0x100: '0100 0214 10000000 00001000 30204600 01000000',
      0x140:
        '1000 0118 00000000 0900 0000 0800 0800 0200 0000 8000 0200 0000 6f15 53050000 01000000 0c0000d0 38000000',
      0x180: '1500 011c 00700000 20080000',
      0x1c0: '2300 0100 981e 0103 0800',
    });
    const text = await infoOf(bytes);
    expect(text).toContain('PCI Express: Endpoint, payload 256 of 256\n');
    expect(text).toMatch(/link 8 GT\/s x4, at most 8 GT\/s x4/);
    expect(text).toMatch(/device control: relaxed ordering, no snoop\n/);
    expect(text).toMatch(/device status: correctable error\n/);
    expect(text).toMatch(/device control 2: completion timeout 1 s to 3.5 s, latency tolerance reporting\n/);
    expect(text).toMatch(/uncorrectable errors: data link protocol\n/);
    expect(text).toMatch(/masked: unsupported request; fatal: /);
    expect(text).toMatch(/Single Root I\/O Virtualization: on, 2 VFs, 8 at first, at most 8\n/);
    expect(text).toMatch(/VF BAR 0: 64-bit memory, prefetchable, at 0x38d0000000\n/);
    expect(text).toMatch(/BAR 0: 256 MiB, can have 256 MiB, 512 MiB, 1 GiB\n/);
    expect(text).toMatch(
      /Designated Vendor-Specific Extended: vendor 0x1e98, id 0x0008, revision 1, 48 bytes\n/,
    );
  });

  test('of a bridge shows its buses and windows', async () => {
    const bytes = space(256, {
      0x00: '3412 7856 0701 1000 00 00 04 06 00 00 01',
      0x18: '00 05 06 00 3030 0000 00f0 f0f1',
      0x34: '40',
      0x40: '0d00 0000 f41a 3412',
    });
    const text = await infoOf(bytes);
    expect(text).toMatch(/subsystem +1af4:1234\n/);
    expect(text).toMatch(/buses +on 0, in front of 5 to 6\n/);
    expect(text).toMatch(/window +I\/O, 0x3000 to 0x3fff\n/);
    expect(text).toMatch(/window +memory, 0xf0000000 to 0xf1ffffff\n/);
    const { config } = JSON.parse(await infoOf(bytes, '--json')) as {
      config: { header: Record<string, unknown> };
    };
    expect(config.header).toMatchObject({
      bridge: { primary: 0, secondary: 5, subordinate: 6 },
      bridgeWindows: expect.arrayContaining([{ kind: 'io', base: 0x3000, limit: 0x3fff }]),
    });
  });
});
