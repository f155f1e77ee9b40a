/** rust-vmm's gpio example: `cargo install vfio_user --example gpio`. VFIO_USER_GPIO names the program. */
import { describe, expect, jest, test } from '@jest/globals';
import type { Device } from '../../lib/index.js';
import { outcomeOf, start } from '../cli/cli.js';
import { GPIO_SESSIONS } from './gpio-session.js';
import { ServerProcess } from './server-process.js';

jest.setTimeout(60_000);

const program = process.env['VFIO_USER_GPIO'] ?? '';
const withGpio = program === '' ? describe.skip : describe;

function serve(): ServerProcess {
  return new ServerProcess(program, (socket) => ['--socket-path', socket]);
}

async function withDevice(work: (device: Device) => Promise<void>): Promise<void> {
  await using server = serve();
  const device = await server.connect();
  try {
    await work(device);
  } finally {
    await device.close();
  }
  // It serves one client, and ends well when that one has gone.
  expect(await server.exited()).toBe(0);
}

withGpio("rust-vmm's gpio (VFIO_USER_GPIO names the program)", () => {
  test.each(Object.keys(GPIO_SESSIONS))('%s', (name) => withDevice(GPIO_SESSIONS[name]!));

  test('a thousand reads in flight come back in order', () =>
    withDevice(async (device) => {
      const bar = device.bar(2);
      // It counts in eight bits.
      const values = await Promise.all(Array.from({ length: 999 }, () => bar.readUInt8(0)));
      expect(values).toEqual(Array.from({ length: 999 }, (_, i) => (((i + 1) & 0xff) % 3 === 0 ? 1 : 0)));
    }));

  test('the command line: info', async () => {
    await using server = serve();
    const { status, stdout } = await outcomeOf(start(['info', server.socket, '--wait', '--json']));
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      vendorId: 0x494f,
      deviceId: 0x0dc8,
      negotiated: { minor: 0 },
      irqs: expect.arrayContaining([expect.objectContaining({ index: 0, name: 'INTx', count: 1, flags: 1 })]),
    });
  });

  test('the command line: read', async () => {
    await using server = serve();
    const { status, stdout } = await outcomeOf(
      start(['read', server.socket, 'bar2', '0', '3', '--width', '1', '--format', 'hex', '--wait']),
    );
    expect({ status, stdout }).toEqual({ status: 0, stdout: '0x00\n0x00\n0x00\n' });
  });

  test('the command line: lspci reads a space of a server that answers minor 0', async () => {
    await using server = serve();
    const { status, stdout } = await outcomeOf(start(['lspci', server.socket, '--wait']));
    expect(status).toBe(0);
    expect(stdout).toMatch(/\n00: 4f 49 c8 0d /);
  });
});
