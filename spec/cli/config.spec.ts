import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { EduDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { Scratch, vfioUser } from './cli.js';

jest.setTimeout(60_000);

let scratch: Scratch;
let socket: string;
let server: EmulatorServer;
let device: EduDevice;

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('edu');
  device = new EduDevice();
  server = await serve(device, { path: socket });
});

afterEach(async () => {
  await server.close();
  scratch.remove();
});

async function config(...registers: string[]): Promise<string> {
  const { status, stdout, stderr } = await vfioUser('config', socket, ...registers);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

async function misuse(register: string): Promise<string> {
  const { status, stdout, stderr } = await vfioUser('config', '/nonexistent', register);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
  return stderr;
}

describe('vfio-user config', () => {
  test('reads registers by name, by offset and from a capability on, in order', async () => {
    expect(await config('VENDOR_ID', 'device_id', '2.w', '0x8.B', 'CAP_MSI.b', 'CAP05+2.w')).toBe(
      '1234\n11e8\n11e8\n10\n05\n0080\n',
    );
  });

  test('writes, under a mask only those bits', async () => {
    expect(await config('COMMAND=0x7', 'COMMAND=0x0:0x1', 'COMMAND', 'INTERRUPT_LINE=b')).toBe('0006\n');
    expect(device.config.command).toBe(6);
    expect(await config('INTERRUPT_LINE')).toBe('0b\n');
  });

  test('sizes a BAR as software does', async () => {
    expect(await config('BASE_ADDRESS_0=ffffffff', 'BASE_ADDRESS_0.l')).toBe('fff00000\n');
  });

  test('writes registers that follow each other', async () => {
    expect(await config('10.l=12300000,0', '10.l', '14.l')).toBe('12300000\n00000000\n');
  });

  test('says what was written, with --json', async () => {
    const values = JSON.parse(await config('COMMAND=ffff', 'STATUS', '--json')) as unknown;
    expect(values).toEqual([
      { register: 'COMMAND', offset: 4, width: 2, value: device.config.command },
      { register: 'STATUS', offset: 6, width: 2, value: 0x10 },
    ]);
  });

  test('lists the header where no register is named', async () => {
    const text = await config();
    expect(text).toMatch(/^ {2}0x00 {2}VENDOR_ID +0x1234$/m);
    expect(text).toMatch(/^ {2}0x10 {2}BASE_ADDRESS_0 +0x00000000$/m);
    expect(text).not.toMatch(/PRIMARY_BUS/);
  });

  test('writes nothing where one of the capabilities is missing', async () => {
    const { status, stderr } = await vfioUser('config', socket, 'COMMAND=7', 'CAP_PM+4.w');
    expect(stderr).toBe(
      'vfio-user: CAP_PM+4.w: the device has no capability 0x01 [ERR_VFIO_USER_UNSUPPORTED]\n',
    );
    expect(status).toBe(1);
    expect(device.config.command).toBe(0);
    expect((await vfioUser('config', socket, 'CAP_MSI@1.w')).stderr).toMatch(/no 2\. capability 0x05/);
    expect((await vfioUser('config', socket, 'ECAP_AER.l')).stderr).toMatch(/no extended capability 0x01/);
    expect((await vfioUser('config', socket, '100.l')).stderr).toMatch(/this ends at 0x104 \[RangeError\]/);
  });

  test('says in a line what makes no sense, before it connects', async () => {
    expect(await misuse('VENDOR')).toMatch(/there is no register VENDOR; --names lists them/);
    expect(await misuse('41.l')).toMatch(/0x41 is not aligned to 4 bytes/);
    expect(await misuse('40')).toMatch(/it wants a width: \.b, \.w or \.l/);
    expect(await misuse('CAP_PM')).toMatch(/it wants a width/);
    expect(await misuse('COMMAND=12345')).toMatch(/0x12345 does not fit the register/);
    expect(await misuse('COMMAND=six')).toMatch(/'six' is no hexadecimal number/);
    expect(await misuse('COMMAND=1:2:3')).toMatch(/one mask/);
    expect(await misuse('COMMAND@1')).toMatch(/@n counts capabilities/);
    expect(await misuse('')).toMatch(/it is REGISTER/);
    expect((await vfioUser('config')).stderr).toMatch(/missing required argument 'SOCKET'/);
  });

  // setpci of pciutils is the authority on its own names.
  const dump = spawnSync('setpci', ['--dumpregs'], { encoding: 'utf8' });
  (dump.status === 0 ? test : test.skip)('has the names that setpci has (needs setpci)', async () => {
    const { stdout } = await vfioUser('config', '--names', '--json');
    const { registers, capabilities } = JSON.parse(stdout) as {
      registers: { name: string; offset: number; width: number }[];
      capabilities: { name: string; id: number }[];
    };
    const ours = new Map<string, number[]>([
      ...registers.map(({ name, offset, width }) => [name, [offset, width]] as [string, number[]]),
      ...capabilities.map(({ name, id }) => [name, [id]] as [string, number[]]),
    ]);
    const widths: Record<string, number> = { B: 1, W: 2, L: 4 };
    const missing = dump.stdout
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter((words) => words.length >= 3)
      .filter((words) => {
        const isRegister = widths[words[1]!] !== undefined;
        const [name, expected] = isRegister
          ? [words[2]!, [Number.parseInt(words[0]!, 16), widths[words[1]!]]]
          : [words[3]!, [Number.parseInt(words[0]!, 16)]];
        return JSON.stringify(ours.get(name)) !== JSON.stringify(expected);
      });
    expect(missing).toEqual([]);
  });
});
