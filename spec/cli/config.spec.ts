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
    expect(await misuse('VENDOR')).toMatch(/unknown register VENDOR; --names lists them/);
    expect(await misuse('41.l')).toMatch(/0x41 is not aligned to 4 bytes/);
    expect(await misuse('40')).toMatch(/it wants a width: \.b, \.w or \.l/);
    expect(await misuse('CAP_PM')).toMatch(/it wants a width/);
    expect(await misuse('COMMAND=12345')).toMatch(/0x12345 does not fit the register/);
    expect(await misuse('COMMAND=six')).toMatch(/'six' is not a hexadecimal number/);
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

describe('a header of another type', () => {
  const MIN = { VENDOR_ID: 0, MIN_GNT: 0x3e, BRIDGE_CONTROL: 0x3e };

  /** A server with nothing but that config space. */
  async function served(headerType: number): Promise<{ socket: string; bytes: Buffer }> {
    const bytes = Buffer.alloc(256);
    bytes.writeUInt16LE(0x1af4, MIN.VENDOR_ID);
    bytes[0x0e] = headerType | 0x80;
    bytes.writeUInt16LE(0x10, 6);
    bytes[headerType === 2 ? 0x14 : 0x34] = 0x48;
    bytes.set([0x09, 0x60, 0x10, 0x11, 0x22], 0x48);
    bytes.set([0x09, 0x00, 0x08, 0x33, 0x44], 0x60);
    const path = scratch.path(`type-${headerType}`);
    const region = { index: 7, size: 256, memory: { bytes } };
    const other = await serve({ regions: [region], irqs: [] }, { path });
    others.push(other);
    return { socket: path, bytes };
  }

  const others: EmulatorServer[] = [];

  afterEach(async () => {
    for (const other of others.splice(0)) await other.close();
  });

  test.each([
    [0, 'BRIDGE_CONTROL', 'type 1 has'],
    [0, 'CB_SUBSYSTEM_ID', 'type 2 has'],
    [1, 'MIN_GNT', 'type 0 has'],
    [1, 'BASE_ADDRESS_2', 'type 0 has'],
    [2, 'BASE_ADDRESS_0', 'type 0 and 1 has'],
    [2, 'PRIMARY_BUS', 'type 1 has'],
  ])('type %d has no %s, which is neither read nor written', async (type, register, who) => {
    const { socket: path, bytes } = await served(type);
    const before = Buffer.from(bytes);
    for (const operations of [[register], ['COMMAND=7', `${register}=40`]]) {
      const { status, stdout, stderr } = await vfioUser('config', path, ...operations);
      expect([status, stdout]).toEqual([1, '']);
      expect(stderr).toBe(
        `vfio-user: ${register}: a header of type ${type} has no register ${register}, only ${who} [ERR_VFIO_USER_UNSUPPORTED]\n`,
      );
    }
    expect(bytes).toEqual(before);
  });

  test('has its own', async () => {
    const bridge = await served(1);
    const { stdout } = await vfioUser(
      'config',
      bridge.socket,
      'BRIDGE_CONTROL=40',
      'BRIDGE_CONTROL',
      'BASE_ADDRESS_1',
      'CAPABILITIES',
      'INTERRUPT_PIN',
    );
    expect(stdout).toBe('0040\n00000000\n48\n00\n');
    expect(bridge.bytes.readUInt16LE(MIN.BRIDGE_CONTROL)).toBe(0x40);
    const cardBus = await served(2);
    expect(
      (await vfioUser('config', cardBus.socket, 'CB_CAPABILITIES', 'CB_CARDBUS_BASE', '3e.w')).stdout,
    ).toBe('0048\n00000000\n0000\n');
    expect((await vfioUser('config', cardBus.socket)).stdout).toMatch(
      /^ {2}0x19 {2}CB_CARDBUS_NUMBER +0x00$/m,
    );
  });

  test('the number of a capability stands where setpci has it, or in front', async () => {
    const { socket: path } = await served(0);
    const { stdout } = await vfioUser(
      'config',
      path,
      'CAP_VNDR+3.b',
      'CAP_VNDR+3.b@1',
      'CAP09@1+3.b',
      'CAP9+4.b@0',
    );
    expect(stdout).toBe('11\n33\n33\n22\n');
    expect((await vfioUser('config', path, 'CAP_VNDR+3.b@2')).stderr).toMatch(/no 3\. capability 0x09/);
    expect(await misuse('CAP_VNDR@1+3.b@1')).toMatch(/it is REGISTER/);
    expect(await misuse('CAP100.b')).toMatch(/unknown register CAP100/);
  });

  test('a place that is not aligned is refused before anything is written', async () => {
    const bytes = Buffer.alloc(256);
    bytes.set([0x10, 0x00], 6);
    bytes[0x34] = 0x44;
    bytes.set([0x09, 0x00, 0x08], 0x44);
    const path = scratch.path('odd');
    others.push(await serve({ regions: [{ index: 7, size: 256, memory: { bytes } }], irqs: [] }, { path }));
    expect(await misuse('CAP_VNDR+1.w=1')).toMatch(/0x1 is not aligned to 2 bytes/);
    expect((await vfioUser('config', path, 'CAP_VNDR+4.l=12345678', 'CAP_VNDR+4.l')).stdout).toBe(
      '12345678\n',
    );
  });
});
