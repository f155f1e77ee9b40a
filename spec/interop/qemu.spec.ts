/** QEMU's own edu device. VFIO_USER_QEMU names a qemu-system-x86_64 that was built with its vfio-user server. */
import { describe, expect, jest, test } from '@jest/globals';
import { outcomeOf, start } from '../cli/cli.js';
import { runExample } from '../support/example.js';
import { ServerProcess } from './server-process.js';

jest.setTimeout(60_000);

const program = process.env['VFIO_USER_QEMU'] ?? '';
const withQemu = program === '' ? describe.skip : describe;

function serveEdu(): ServerProcess {
  return new ServerProcess(program, (path) => [
    ...['-machine', 'x-remote,vfio-user=on,auto-shutdown=off'],
    ...['-nodefaults', '-display', 'none', '-device', 'edu,id=d'],
    '-object',
    JSON.stringify({
      'qom-type': 'x-vfio-user-server',
      id: 'v',
      device: 'd',
      socket: { type: 'unix', path },
    }),
  ]);
}

// Each client has a QEMU of its own: the server object is gone after the first.
withQemu("QEMU's edu (VFIO_USER_QEMU names the program)", () => {
  test('the example drives it as it drives the emulator', async () => {
    await using server = serveEdu();
    const { status, stdout, stderr } = await runExample('edu', '--socket', server.socket);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/all \d+ steps verified/);
    expect(stdout).toMatch(/protocol 0\.1, over/);
  });

  test.each(['interrupts', 'dma'])('so does %s', async (name) => {
    await using server = serveEdu();
    expect(await runExample(name, '--socket', server.socket)).toMatchObject({ status: 0, stderr: '' });
  });

  test('BARs are refused until they are enabled, and the error says what to do', async () => {
    await using server = serveEdu();
    const args = ['read', server.socket, 'bar0', '0', '--wait'];
    const refused = await outcomeOf(start(args));
    expect(refused.status).toBe(1);
    expect(refused.stderr).toMatch(
      /^vfio-user: REGION_READ: the server answered EINVAL; .*memory space is off .*--enable turns it on\n$/,
    );
    await using another = serveEdu();
    const enabled = await outcomeOf(start(['read', another.socket, 'bar0', '0', '--wait', '--enable']));
    expect(enabled).toMatchObject({ status: 0, stdout: '0x010000ed\n' });
  });

  test('lspci', async () => {
    await using server = serveEdu();
    const { status, stdout } = await outcomeOf(start(['lspci', server.socket, '--wait']));
    expect(status).toBe(0);
    expect(stdout).toMatch(/^00:00\.0 .* QEMU edu 1234:11e8\n00: 34 12 e8 11 /);
  });

  test('config space byte by byte at odd places, which a careless client kills it with', async () => {
    await using server = serveEdu();
    const device = await server.connect();
    try {
      expect(await device.config.read(2, 2)).toBe(0x11e8);
      expect(await device.region(7).readUInt8(3)).toBe(0x11);
      await device.config.refresh();
      expect(device.config.problems).toEqual([]);
    } finally {
      await device.close();
    }
  });
});
