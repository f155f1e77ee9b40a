import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import prettier from 'prettier';
import ts from 'typescript';
import {
  generateAccessors,
  parseRegisterMap,
  RegisterCoverage,
  RegisterPlacement,
  RegisterMap,
} from '../../lib/registers/index.js';
import { ROOT } from '../docs/programs.js';
import { UART_SVD } from './uart.js';

jest.setTimeout(120_000);

const { map } = parseRegisterMap(UART_SVD);
let directory: string;

beforeAll(() => {
  mkdirSync(path.join(ROOT, 'build'), { recursive: true });
  // In this package, so that 'vfio-user/registers' is found.
  directory = mkdtempSync(path.join(ROOT, 'build', 'generated-'));
});

afterAll(() => rmSync(directory, { recursive: true }));

/** What the compiler says of these files, with everything strict. */
function compile(files: Readonly<Record<string, string>>): string[] {
  const names = Object.entries(files).map(([name, text]) => {
    writeFileSync(path.join(directory, name), text);
    return path.join(directory, name);
  });
  const program = ts.createProgram(names, {
    ...{ strict: true, noEmit: true, noUnusedLocals: true, noUnusedParameters: true, skipLibCheck: true },
    ...{ noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, verbatimModuleSyntax: true },
    ...{ target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.NodeNext, types: ['node'] },
    ...{ lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'] },
  });
  return ts
    .getPreEmitDiagnostics(program)
    .map(
      ({ messageText, file }) =>
        `${path.basename(file?.fileName ?? '')}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`,
    );
}

describe('generated accessors', () => {
  const text = generateAccessors(map, { blocks: ['UART'], source: 'uart.svd' });

  test('compile under strict, and know what may be read and written', () => {
    const use = `
      import { bindUart, Mode } from './uart.js';
      import type { Device } from 'vfio-user';
      export async function drive(device: Device): Promise<number> {
        const { ctrl, status, ch, key } = bindUart(device.bar(0));
        await ctrl.modify({ enable: 1, mode: Mode.FAST });
        await ctrl.mode.write(Mode.FAST);
        await status.ready.waitFor(1, { timeoutMs: 10 });
        key.writeSync({ low: 1, high: 2 });
        const fields = await status.readFields();
        return fields.err + (ch[0]?.level.value.readSync() ?? 0) + (await ctrl.read());
      }`;
    expect(compile({ 'uart.ts': text, 'use.ts': use })).toEqual([]);
    const misuse = (line: string): string[] =>
      compile({
        'uart.ts': text,
        'misuse.ts': `import { bindUart } from './uart.js';\nimport type { Device } from 'vfio-user';\nexport const f = (device: Device) => { const u = bindUart(device.bar(0)); return ${line}; };`,
      });
    expect(misuse('u.status.ready.write(1)')).toEqual([
      expect.stringContaining("'1' is not assignable to parameter of type 'never'"),
    ]);
    expect(misuse('u.ctrl.modify({ speed: 1 })')).toEqual([
      expect.stringContaining("'speed' does not exist"),
    ]);
  });

  test('say the access of each field, its values and its bits', () => {
    expect(text).toContain('export const Mode = {\n  SLOW: 0,\n  FAST: 2,\n} as const;');
    expect(text).toContain('/** Bits 2:1, RW, Mode. */\n  readonly mode: Field<number, number>;');
    expect(text).toContain('/** Bit 3, RW once. */');
    expect(text).toContain('/** Bit 0, W1C. */');
    expect(text).toContain('/** Bits 7:0, RC. */\n  readonly byte: Field<number, never>;');
  });

  test('are formatted', async () => {
    const options = {
      ...(await prettier.resolveConfig(path.join(ROOT, 'lib', 'index.ts'))),
      parser: 'typescript',
    };
    expect(text).toBe(await prettier.format(text, options));
  });

  test('stay source whatever the file says', () => {
    const hostile = UART_SVD.replace('A UART', '*/ process.exit(1); /* \u2028 ${`').replace(
      'ACME',
      "x'; process.exit(1); //\\",
    );
    expect(compile({ 'hostile.ts': generateAccessors(parseRegisterMap(hostile).map) })).toEqual([]);
  });

  test('have names for what cannot be one', () => {
    const odd = RegisterMap.from({
      format: 'vfio-user-registers/1',
      name: 'odd',
      blocks: [
        {
          name: '1wire',
          children: [
            {
              name: 'read',
              offset: 0,
              fields: [
                { name: 'write', lsb: 0 },
                { name: '2ND', lsb: 1, values: [{ name: '8', value: 1 }] },
              ],
            },
            { name: 'A_B', offset: 4, bits: 64 },
            { name: 'AB', offset: 12, count: 0, stride: 4 },
            { name: 'a-b', offset: 16 },
          ],
        },
      ],
    });
    const source = generateAccessors(odd);
    expect(compile({ 'odd.ts': source })).toEqual([]);
    expect(source).toContain('readonly write_: Field<number, number>;');
    expect(source).toContain('readonly aB_2:');
  });
});

describe('a placement', () => {
  const placed = new RegisterPlacement(map, { block: 'UART', region: 2, offset: 0x100 });

  test('knows registers and fields by name', () => {
    expect(placed.find('ctrl.mode')).toMatchObject({ name: 'CTRL', offset: 0x100, field: { name: 'MODE' } });
    expect(placed.find('UART.CH[1].LIMIT')).toMatchObject({
      name: 'CH[1].LIMIT',
      offset: 0x12c,
      field: undefined,
    });
    expect(() => placed.find('SPEED')).toThrow('the map ACME has no register or field "SPEED"');
    const both = new RegisterPlacement(map);
    expect(both.find('UART2.CTRL')).toMatchObject({ name: 'UART2.CTRL', offset: 0x1000 });
    expect(() => both.find('CTRL')).toThrow(
      'CTRL is the name of several registers: say UART.CTRL and UART2.CTRL',
    );
  });

  test('knows what an access touches', () => {
    expect(placed.nameAt(2, 0x104, 4)).toBe('STATUS');
    expect(placed.nameAt(2, 0x106, 2)).toBe('STATUS+2');
    expect(placed.nameAt(2, 0x100, 12)).toBe('CTRL…IRQ');
    expect(placed.nameAt(2, 0x200, 4)).toBeUndefined();
    expect(placed.nameAt(0, 0x104, 4)).toBeUndefined();
    expect(placed.describe(2, 0x104, Buffer.from('02010000', 'hex'))).toBe('STATUS 0x00000102 {err=1, busy}');
  });

  test('counts what was touched, how often and in which order', () => {
    const coverage = new RegisterCoverage(placed);
    coverage.add('read', 2, 0x104, 4);
    coverage.add('read', 2, 0x104, 4);
    coverage.add('write', 2, 0x100, 4);
    coverage.add('write', 2, 0x800, 4);
    coverage.add('write', 0, 0x100, 4);
    const report = coverage.report();
    expect(report).toMatchObject({
      touched: 2,
      outside: 1,
      readable: { count: 11, read: 1 },
      writable: { count: 11, written: 1 },
    });
    expect(report.registers.slice(0, 3)).toEqual([
      { name: 'CTRL', offset: 0x100, reads: 0, writes: 1, order: 2 },
      { name: 'STATUS', offset: 0x104, reads: 2, writes: 0, order: 1 },
      { name: 'IRQ', offset: 0x108, reads: 0, writes: 0, order: undefined },
    ]);
  });
});
