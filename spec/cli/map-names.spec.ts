/** `--map` where registers have no other names: config space, and what `irq watch` writes. */
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { writeFileSync } from 'node:fs';
import type { EmulatorServer } from '../../lib/emulator/index.js';
import { Scratch, vfioUser } from './cli.js';
import { EDU_MAP } from './edu-map.js';
import { serveEdu } from './emulator.js';

jest.setTimeout(90_000);

let scratch: Scratch;
let socket: string;
let server: EmulatorServer;

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('edu');
  server = await serveEdu(socket);
});

afterEach(async () => {
  await server.close();
  scratch.remove();
});

function mapFile(map: object): string {
  const file = scratch.path('map.json');
  writeFileSync(file, JSON.stringify(map));
  return file;
}

const CONFIG_MAP = {
  format: 'vfio-user-registers/1',
  name: 'head',
  blocks: [
    {
      name: 'HEAD',
      children: [
        {
          name: 'IDS',
          offset: 0,
          access: 'RO',
          fields: [
            { name: 'VENDOR', lsb: 0, bits: 16 },
            { name: 'DEVICE', lsb: 16, bits: 16 },
          ],
        },
        { name: 'LINE', offset: 0x3c, bits: 8 },
      ],
    },
  ],
};

test("config: registers and fields of the map, and setpci's beside them", async () => {
  const map = `${mapFile(CONFIG_MAP)}@config`;
  const { stdout, stderr } = await vfioUser(
    ...['config', socket, 'LINE=0x5', 'LINE', 'IDS.DEVICE', 'VENDOR_ID', '--map', map],
  );
  expect({ stdout, stderr }).toEqual({ stdout: '0x05\n0x11e8\n1234\n', stderr: '' });
  const listed = await vfioUser('config', socket, '--map', map);
  expect(listed.stdout).toMatch(/\n *0x00 +IDS +0x11e81234 \{vendor=4660, device=4584\}\n/);
  const elsewhere = await vfioUser('config', socket, '--map', mapFile(CONFIG_MAP));
  expect(elsewhere.status).toBe(2);
  expect(elsewhere.stderr).toMatch(/--map: config is about config space/);
});

test('irq watch: what is written has a name', async () => {
  const map = mapFile(EDU_MAP);
  const watch = ['irq', 'watch', socket, '--index', 'msi', '--count', '1', '--enable', '--write'];
  const { status, stdout } = await vfioUser(...watch, 'IRQ_RAISE=1', '--map', map);
  expect(status).toBe(0);
  expect(stdout).toMatch(/1 interrupt/);
  const { status: wrong, stderr } = await vfioUser(...watch, 'IRQ_RAISE=1');
  expect([wrong, stderr.split('\n')[0]]).toEqual([
    2,
    "vfio-user: --write IRQ_RAISE: a register's name needs --map",
  ]);
  expect((await vfioUser(...watch, 'NOTHING=1', '--map', map)).stderr).toMatch(
    /has no register or field "NOTHING"/,
  );
});
