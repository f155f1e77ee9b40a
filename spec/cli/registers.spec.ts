import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from '../../lib/index.js';
import { serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { bindRegisters, parseRegisterMap } from '../../lib/registers/index.js';
import { Uart, UART_SVD, type UartFault } from '../registers/uart.js';
import { Scratch, start, vfioUser } from './cli.js';

jest.setTimeout(120_000);

let scratch: Scratch;
let socket: string;
let map: string;
let server: EmulatorServer | undefined;
let model: Uart;

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('uart');
  map = `${scratch.path('uart.svd')}:UART`;
  writeFileSync(scratch.path('uart.svd'), UART_SVD);
  await serveUart();
});

afterEach(async () => {
  await server?.close();
  scratch.remove();
});

async function serveUart(...faults: UartFault[]): Promise<void> {
  await server?.close();
  model = new Uart(faults);
  server = await serve(model, { path: socket });
}

async function succeed(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await vfioUser(...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

describe('read and write', () => {
  test('a register or a field by name, values by theirs', async () => {
    expect(await succeed('read', socket, 'STATUS', '--map', map)).toBe('0x00000100 {busy}\n');
    await succeed('write', socket, 'CTRL.MODE', 'fast', '--map', map);
    expect(await succeed('read', socket, 'ctrl.mode', '--map', map)).toBe('0x2 FAST\n');
    expect(model.memory.readUInt32LE(0)).toBe(0x14);
    await succeed('write', socket, 'KEY', '0x12345678', '--map', map);
    expect(model.memory.readUInt32LE(0x10)).toBe(0x12345678);
  });

  test('where the map says that it is', async () => {
    model.memory.writeUInt32LE(0x3, 0x104);
    expect(await succeed('read', socket, 'STATUS', '--map', `${map}@bar0+0x100`)).toBe(
      '0x00000003 {ready, err=1}\n',
    );
  });

  test.each<[string, string[], RegExp]>([
    ['no such register', ['read', 'SPEED', '--map'], /the map ACME has no register or field "SPEED"/],
    [
      'a value that does not fit',
      ['write', 'CTRL.MODE', '4', '--map'],
      /0x4 does not fit the 2 bits of CTRL.MODE/,
    ],
    ['no number', ['write', 'CTRL.MODE', 'quick', '--map'], /'quick' is invalid for argument 'VALUE'/],
    [
      'a name without a map',
      ['read', 'STATUS'],
      /'STATUS' is invalid for argument 'REGION': .* a register's name needs --map/,
    ],
    ['a region without an offset', ['read', 'bar0'], /missing required argument 'OFFSET'/],
  ])('%s is wrong usage', async (_, [verb, ...args], message) => {
    const { status, stderr } = await vfioUser(
      verb!,
      socket,
      ...args,
      ...(args.at(-1) === '--map' ? [map] : []),
    );
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringMatching(message) });
  });

  test('a map that is none says its line', async () => {
    writeFileSync(scratch.path('uart.svd'), UART_SVD.replace('0x40001000', 'somewhere'));
    const { status, stderr } = await vfioUser('read', socket, 'STATUS', '--map', map);
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: expect.stringMatching(/uart\.svd: line 13: "somewhere" is no number/),
    });
  });
});

describe('registers', () => {
  test('show prints what they hold, and reads none that changes by it', async () => {
    const lines = (await succeed('registers', 'show', socket, '--map', map)).split('\n');
    expect(lines[0]).toBe('  CTRL         0x00  RW, RW once, W0C  0x00000010 {divider=1}');
    expect(lines[3]).toBe('  DATA         0x0c  RC, RW            not read');
    expect(lines[4]).toBe('  KEY          0x10  WO                not read');
    expect(model.accesses).not.toContain('read c');
    const [status] = JSON.parse(
      await succeed('registers', 'show', socket, 'STATUS', '--map', map, '--json'),
    ) as unknown[];
    expect(status).toEqual({
      name: 'STATUS',
      offset: 4,
      bits: 32,
      access: 'RO',
      value: '0x00000100',
      fields: { ready: 0, err: 0, busy: 1 },
    });
  });

  test('diff prints those that are not as after a reset', async () => {
    expect(await succeed('registers', 'diff', socket, '--map', map)).toBe('');
    model.memory.writeUInt32LE(0x11, 0);
    expect(await succeed('registers', 'diff', socket, '--map', map)).toBe(
      '  CTRL  0x00  RW, RW once, W0C  0x00000011 {enable, divider=1}\n',
    );
  });

  test('watch prints changes until there were enough', async () => {
    const child = start([
      'registers',
      'watch',
      socket,
      'STATUS',
      '--map',
      map,
      '--interval',
      '10',
      '--count',
      '1',
    ]);
    let out = '';
    await new Promise<void>((resolve) => {
      child.stdout!.on('data', (chunk: Buffer) => {
        out += chunk.toString();
        model.memory[4] = 1;
      });
      child.on('close', () => resolve());
    });
    expect(out).toBe('  STATUS  0x04  RO  0x00000100 {busy}\nSTATUS 0x00000101 {ready, busy}\n');
  });

  test('check finds what is not as the map says, and fails', async () => {
    expect(await succeed('registers', 'check', socket, '--map', map)).toBe(
      '0 findings; registers tested: reset 10, read-only 1, clear 0, bits 7, alias 7; 2 skipped\n',
    );
    await serveUart('reset', 'read-only', 'alias');
    const { status, stdout, stderr } = await vfioUser('registers', 'check', socket, '--map', map);
    expect(stdout.split('\n').slice(0, 3)).toEqual([
      expect.stringMatching(/^reset: CTRL is 0x00000030/),
      expect.stringMatching(/^read-only: STATUS is read-only/),
      expect.stringMatching(/^alias: CH\[0\]\.LIMIT and CH\[1\]\.LIMIT are the same/),
    ]);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: 'vfio-user: the device is not as its map says [ERR_VFIO_USER_REGISTERS]\n',
    });
  });

  test('gen writes a module, and warnings with their lines', async () => {
    const output = scratch.path('uart.ts');
    await succeed('registers', 'gen', scratch.path('uart.svd'), '--block', 'UART', '--output', output);
    expect(readFileSync(output, 'utf8')).toContain('export function bindUart(');
    const json = await succeed('registers', 'gen', scratch.path('uart.svd'), '--json');
    expect(parseRegisterMap(json).format).toBe('json');
    writeFileSync(scratch.path('uart.svd'), UART_SVD.replace('<size>16</size>', '<size>12</size>'));
    const { stderr } = await vfioUser('registers', 'gen', scratch.path('uart.svd'), '--output', output);
    expect(stderr).toMatch(/^vfio-user: .*uart\.svd:\d+: a register of 12 bits is accessed as one of 16\n/);
  });
});

test('a capture is shown with names, and says what of a map it touched', async () => {
  const capture = scratch.path('run.pcapng');
  const device = await connect(socket, { capture });
  const uart = bindRegisters(parseRegisterMap(UART_SVD).map.block('UART'), device.bar(0));
  await uart.field('CTRL.MODE').write(2);
  await uart.register('STATUS').read();
  await device.close();
  const shown = await succeed('capture', 'show', capture, '--map', map);
  expect(shown).toMatch(
    /REGION_WRITE offset=0x0 region=0 count=4 data=14010000 CTRL 0x00000114 \{mode=FAST, divider=1, cleared\}\n/,
  );
  expect(shown).toMatch(/REGION_READ reply offset=0x4 .* STATUS 0x00000100 \{busy\}\n/);
  const report = JSON.parse(
    await succeed('registers', 'coverage', capture, '--map', map, '--json'),
  ) as object;
  expect(report).toMatchObject({
    touched: 2,
    registers: expect.arrayContaining([
      { name: 'CTRL', offset: 0, reads: 1, writes: 1, order: 1 },
      { name: 'STATUS', offset: 4, reads: 1, writes: 0, order: 2 },
    ]),
  });
});
