import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { connect, TimeoutError, type Device } from '../../lib/index.js';
import { serve, RamDevice, type EmulatorServer } from '../../lib/emulator/index.js';
import {
  bindRegisters,
  checkRegisters,
  parseRegisterMap,
  REGISTER_MAP_FORMAT,
  RegisterMap,
  type BoundRegisters,
} from '../../lib/registers/index.js';
import { Scratch } from '../cli/cli.js';
import { Uart, UART_SVD, type UartFault } from './uart.js';

jest.setTimeout(60_000);

const { map } = parseRegisterMap(UART_SVD);
let scratch: Scratch;
let server: EmulatorServer | undefined;
let device: Device;
let model: Uart;
let uart: BoundRegisters;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(async () => {
  await device.close();
  await server?.close();
  scratch.remove();
});

async function open(...faults: UartFault[]): Promise<void> {
  model = new Uart(faults);
  server = await serve(model, { path: scratch.path('uart') });
  device = await connect(scratch.path('uart'));
  uart = bindRegisters(map.block('UART'), device.bar(0));
}

describe('reading and writing', () => {
  beforeEach(() => open());

  test('a register by its path and by its member', async () => {
    expect(await uart.register('STATUS').read()).toBe(0x100);
    expect(await uart.register('CTRL').readFields()).toEqual({
      enable: 0,
      mode: 0,
      lock: 0,
      divider: 1,
      cleared: 0,
    });
    const { ch, trimB } = uart.members<{
      ch: readonly { level: { write(value: number): Promise<void> } }[];
      trimB: { write(value: number): Promise<void> };
    }>();
    await ch[1]!.level.write(7);
    await trimB.write(9);
    expect(model.accesses.slice(-2)).toEqual(['write 28=7', 'write 32=9']);
    expect(await uart.field('CH[1].LEVEL.VALUE').read()).toBe(7);
  });

  test('modify keeps what it is not told of, and writes what acts so that nothing happens', async () => {
    model.accesses.length = 0;
    await uart.register('CTRL').modify({ enable: 1, mode: 2 });
    // DIVIDER and LOCK as they were; CLEARED is W0C: 1 leaves it.
    expect(model.accesses).toEqual(['read 0', 'write 0=115']);
    model.memory.writeUInt32LE(0x50303, 8);
    model.accesses.length = 0;
    await expect(uart.register('IRQ').modify({ rx: 1 })).rejects.toThrow(
      'IRQ: any write changes IRQ.MASK (WM): name it, or use write()',
    );
    await uart.register('IRQ').modify({ rx: 1, mask: 1 });
    // TX is W1C and stays; COUNT is read-only. Nothing had to be read but bits without a field.
    expect(model.accesses.at(-1)).toBe('write 8=101');
    expect(model.memory.readUInt32LE(8)).toBe(0x50102);
  });

  test('write with fields begins from the value after a reset, and reads nothing', async () => {
    model.accesses.length = 0;
    await uart.register('CTRL').write({ mode: 2 });
    expect(model.accesses).toEqual(['write 0=114']);
  });

  test('a register that a read clears is read only where that is asked for', async () => {
    model.memory.writeUInt32LE(0x341, 0x0c);
    model.accesses.length = 0;
    await uart.field('DATA.WATERMARK').write(5);
    await uart.register('DATA').modify({ watermark: 6 });
    expect(model.accesses).toEqual(['write c=500', 'write c=600']);
    expect(await uart.field('DATA.BYTE').read()).toBe(0x41);
    expect(await uart.field('DATA.BYTE').read()).toBe(0);
  });

  test('what cannot be read comes from what was written last, and after a reset from the map', async () => {
    await uart.register('KEY').modify({ high: 0x1234 });
    await uart.register('KEY').modify({ low: 0x5678 });
    expect(model.memory.readUInt32LE(0x10)).toBe(0x12345678);
    uart.forget();
    await uart.register('KEY').modify({ low: 1 });
    expect(model.memory.readUInt32LE(0x10)).toBe(1);
  });

  test('modify calls that are made together come one after the other', async () => {
    const ctrl = uart.register('CTRL');
    await Promise.all([ctrl.modify({ enable: 1 }), ctrl.modify({ divider: 9 }), ctrl.modify({ mode: 2 })]);
    expect(await ctrl.readFields()).toMatchObject({ enable: 1, divider: 9, mode: 2 });
    const pending = ctrl.modify({ enable: 0 });
    expect(() => ctrl.modifySync({ mode: 0 })).toThrow(
      'modifySync while a modify is under way would undo it',
    );
    await pending;
  });

  test.each<[string, () => Promise<unknown>, string]>([
    ['a read-only field', () => uart.field('STATUS.ERR').write(1), 'STATUS.ERR (RO) cannot be written'],
    [
      'a read-only register',
      () => uart.register('STATUS').write(1),
      'STATUS cannot be written: it is read-only',
    ],
    ['a write-only register', () => uart.register('KEY').read(), 'KEY cannot be read: it is write-only'],
    ['a write-only field', () => uart.field('KEY.LOW').read(), 'KEY.LOW (WO) cannot be read'],
    [
      'a value that does not fit',
      () => uart.field('CTRL.MODE').write(4),
      'CTRL.MODE must be an integer from 0 to 3, got 4',
    ],
    [
      'a fraction',
      () => uart.register('CTRL').write(0.5),
      'CTRL must be an unsigned 32-bit integer, got 0.5',
    ],
    [
      'no such field',
      () => uart.register('STATUS').waitFor({ done: 1 }),
      'STATUS has no field done; it has ready, err, busy',
    ],
  ])('%s is refused, and nothing is sent', async (_, call, message) => {
    model.accesses.length = 0;
    await expect(call()).rejects.toThrow(message);
    expect(model.accesses).toEqual([]);
  });

  test('no such register, no such block', () => {
    expect(() => uart.register('NONE')).toThrow('UART has no register NONE');
    expect(() => map.block('SPI')).toThrow('the map ACME has no block SPI; it has UART, UART2');
    expect(() => bindRegisters(map.block('UART'), {} as never)).toThrow(
      'bindRegisters: target must be a Region',
    );
  });
});

describe('waiting', () => {
  beforeEach(() => open());

  test('ends when the field has its value', async () => {
    const ready = uart.field('STATUS.READY');
    const waiting = ready.waitFor(1, { timeoutMs: 10_000 });
    setTimeout(() => (model.memory[4] = 1), 5);
    await waiting;
    expect(await ready.read()).toBe(1);
  });

  test('that is over says the field, and what its register was', async () => {
    model.memory.writeUInt32LE(0x104, 4);
    const failure = uart.field('STATUS.READY').waitFor(1, { timeoutMs: 500 });
    await expect(failure).rejects.toThrow(
      'STATUS.READY stayed 0; STATUS was 0x00000104 {err=2, busy} after 500 ms',
    );
    await expect(failure).rejects.toBeInstanceOf(TimeoutError);
    await expect(uart.register('CTRL').waitFor({ enable: 1, mode: 2 }, { timeoutMs: 500 })).rejects.toThrow(
      'CTRL stayed 0x0 under 0x7, not 0x5; CTRL was 0x00000010 {divider=1} after 500 ms',
    );
    await expect(uart.field('CTRL.MODE').waitFor(2, { timeoutMs: 500 })).rejects.toThrow(
      'CTRL.MODE stayed SLOW;',
    );
  });

  test('can be given up', async () => {
    const reason = new Error('enough');
    const waiting = uart.field('STATUS.READY').waitFor(1, { signal: AbortSignal.abort(reason) });
    await expect(waiting).rejects.toBe(reason);
  });
});

describe('on a mapping', () => {
  test('registers are plain memory, and block without a message', async () => {
    const ram = new RamDevice();
    server = await serve(ram, { path: scratch.path('ram') });
    device = await connect(scratch.path('ram'));
    using area = device.bar(1).map();
    const bound = bindRegisters(
      RegisterMap.from({
        format: REGISTER_MAP_FORMAT,
        name: 'ram',
        blocks: [
          {
            name: 'B',
            children: [
              {
                name: 'W',
                offset: 0,
                fields: [
                  { name: 'LOW', lsb: 0, bits: 4 },
                  { name: 'TOP', lsb: 31 },
                ],
              },
              { name: 'H', offset: 6, bits: 16 },
              { name: 'Q', offset: 8, bits: 64, fields: [{ name: 'WIDE', lsb: 8, bits: 40 }] },
            ],
          },
        ],
      }).block('B'),
      area,
      { offset: 16 },
    );
    bound.register('W').writeSync({ low: 5 });
    bound.field('W.TOP').writeSync(1);
    bound.register('H').writeSync(0xabcd);
    bound.field('Q.WIDE').writeSync(0xff_ffff_fffen);
    expect(area.loadUInt32(16)).toBe(0x80000005);
    expect(area.bytes.readUInt16LE(22)).toBe(0xabcd);
    expect(bound.register('Q').readSync()).toBe(0xff_ffff_fffe00n);
    expect(bound.register('Q').readFieldsSync()).toEqual({ wide: 0xff_ffff_fffen });
    bound.field('W.LOW').waitForSync(5);
    expect(() => bound.field('W.LOW').waitForSync(6, { timeoutMs: 500 })).toThrow(
      'W.LOW stayed 5; W was 0x80000005',
    );
    await bound.register('H').write(1);
    expect(await bound.register('H').read()).toBe(1);
    ram.close();
  });
});

describe('on config space', () => {
  test('registers go through its shadow, by message and blocking', async () => {
    await open();
    const config = bindRegisters(
      RegisterMap.from({
        format: REGISTER_MAP_FORMAT,
        name: 'pci',
        blocks: [
          {
            name: 'CONFIG',
            children: [
              { name: 'VENDOR', offset: 0, bits: 16, access: 'RO' },
              {
                name: 'COMMAND',
                offset: 4,
                bits: 16,
                fields: [
                  { name: 'MEMORY', lsb: 1 },
                  { name: 'MASTER', lsb: 2 },
                ],
              },
              {
                name: 'COUNTER',
                offset: 0x40,
                fields: [{ name: 'N', lsb: 0, bits: 8, access: 'RW', onRead: 'RC' }],
              },
            ],
          },
        ],
      }).block('CONFIG'),
      device.config,
    );
    expect(await config.register('VENDOR').read()).toBe(0x1234);
    await config.register('COMMAND').modify({ memory: 1, master: 1 });
    expect(device.config.command).toBe(6);
    await expect(config.register('COUNTER').write(1)).rejects.toThrow(
      "COUNTER changes when it is read, and config space reads back what is written: bind to device.region('config')",
    );
  });
});

describe('checkRegisters', () => {
  test('finds nothing in a device that is as its map says, and leaves it as it was', async () => {
    await open();
    const before = Buffer.from(model.memory);
    const report = await checkRegisters(uart.registers());
    expect(report.findings).toEqual([]);
    expect(report.tested).toEqual({ reset: 10, 'read-only': 1, clear: 0, bits: 7, alias: 7 });
    expect(report.skipped.map(({ register, reason }) => `${register.path}: ${reason}`)).toEqual([
      'DATA: it changes when it is read',
      'KEY: it cannot be read',
    ]);
    expect(model.memory.equals(before)).toBe(true);
    expect(model.accesses).not.toContain('read c');
  });

  test('finds a wrong reset value, a read-only bit that is writable, and a register that is another one', async () => {
    await open('reset', 'read-only', 'alias');
    const { findings } = await checkRegisters(uart.registers());
    expect(findings.map(({ test: kind, message }) => `${kind}: ${message}`)).toEqual([
      'reset: CTRL is 0x00000030 {divider=3} after a reset, not 0x00000010 {divider=1} (DIVIDER)',
      'read-only: STATUS is read-only, and took what was written to READY: 0x101 where it was 0x100',
      'alias: CH[0].LIMIT and CH[1].LIMIT are the same: what is written to one is in the other',
    ]);
  });

  test('writes nothing where only values after a reset are asked for', async () => {
    await open();
    model.accesses.length = 0;
    await checkRegisters(uart.registers(), { tests: ['reset'] });
    expect(model.accesses.filter((access) => access.startsWith('write'))).toEqual([]);
  });
});
