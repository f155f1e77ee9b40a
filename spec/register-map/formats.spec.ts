/** The formats beside CMSIS-SVD: IP-XACT, compiled SystemRDL, and JSON with its schema. */
import { describe, expect, test } from '@jest/globals';
import Ajv from 'ajv';
import {
  accessWords,
  parseRegisterMap,
  REGISTER_MAP_FORMAT,
  REGISTER_MAP_SCHEMA,
  RegisterMap,
  type RegisterMapData,
} from '../../lib/registers/index.js';
import { UART_SVD } from '../registers/uart.js';

/** Everything of a map that counts, in lines. */
function lines(map: RegisterMap): string[] {
  return map.blocks.flatMap(({ name, base, registers }) =>
    registers.map(({ path, offset, bits, reset, fields }) => {
      const of = fields
        .map((one) => `${one.name}[${one.lsb}+${one.bits}] ${accessWords(one.access)}`)
        .join(', ');
      return `${name}@${base.toString(16)} ${path} ${offset.toString(16)} ${bits} ${reset?.toString(16)}: ${of}`;
    }),
  );
}

const IP_XACT = (prefix: string, more = ''): string => `<?xml version="1.0"?>
<${prefix}:component xmlns:${prefix}="http://example.org/">
  <${prefix}:name>timer</${prefix}:name>
  <${prefix}:memoryMaps><${prefix}:memoryMap><${prefix}:name>m</${prefix}:name>
    <${prefix}:addressBlock>
      <${prefix}:name>TIMER</${prefix}:name><${prefix}:baseAddress>'h1000</${prefix}:baseAddress>
      <${prefix}:range>0x100</${prefix}:range><${prefix}:width>32</${prefix}:width>
      <${prefix}:register>
        <${prefix}:name>CTRL</${prefix}:name><${prefix}:addressOffset>0x0</${prefix}:addressOffset><${prefix}:size>32</${prefix}:size>
        ${more}
        <${prefix}:field>
          <${prefix}:name>EN</${prefix}:name><${prefix}:bitOffset>0</${prefix}:bitOffset>
          <${prefix}:resets><${prefix}:reset><${prefix}:value>1</${prefix}:value></${prefix}:reset></${prefix}:resets>
          <${prefix}:bitWidth>1</${prefix}:bitWidth><${prefix}:access>read-write</${prefix}:access>
        </${prefix}:field>
        <${prefix}:field>
          <${prefix}:name>DONE</${prefix}:name><${prefix}:bitOffset>4</${prefix}:bitOffset><${prefix}:bitWidth>2</${prefix}:bitWidth>
          <${prefix}:access>read-write</${prefix}:access><${prefix}:modifiedWriteValue>oneToClear</${prefix}:modifiedWriteValue>
          <${prefix}:readAction>set</${prefix}:readAction>
          <${prefix}:enumeratedValues>
            <${prefix}:enumeratedValue usage="read"><${prefix}:name>IDLE</${prefix}:name><${prefix}:value>2'b00</${prefix}:value></${prefix}:enumeratedValue>
            <${prefix}:enumeratedValue usage="write"><${prefix}:name>CLEAR</${prefix}:name><${prefix}:value>3</${prefix}:value></${prefix}:enumeratedValue>
          </${prefix}:enumeratedValues>
        </${prefix}:field>
      </${prefix}:register>
      <${prefix}:registerFile>
        <${prefix}:name>CH</${prefix}:name><${prefix}:dim>2</${prefix}:dim>
        <${prefix}:addressOffset>0x20</${prefix}:addressOffset><${prefix}:range>0x10</${prefix}:range>
        <${prefix}:register>
          <${prefix}:name>LOAD</${prefix}:name><${prefix}:addressOffset>4</${prefix}:addressOffset><${prefix}:size>16</${prefix}:size><${prefix}:access>writeOnce</${prefix}:access>
        </${prefix}:register>
      </${prefix}:registerFile>
    </${prefix}:addressBlock>
  </${prefix}:memoryMap></${prefix}:memoryMaps>
</${prefix}:component>`;

describe('IP-XACT', () => {
  test.each(['spirit', 'ipxact'])('of the %s namespace', (prefix) => {
    const { map, format, warnings } = parseRegisterMap(IP_XACT(prefix));
    expect({ format, warnings }).toEqual({ format: 'ip-xact', warnings: [] });
    expect(lines(map)).toEqual([
      'TIMER@1000 CTRL 0 32 1: EN[0+1] RW, DONE[4+2] W1C RS',
      'TIMER@1000 CH[0].LOAD 24 16 undefined: ',
      'TIMER@1000 CH[1].LOAD 34 16 undefined: ',
    ]);
    const [ctrl, load] = map.lowestBlock.registers;
    expect(ctrl!.resetMask).toBe(1n);
    expect(ctrl!.fields[1]!.values.map(({ name }) => name)).toEqual(['IDLE']);
    expect(ctrl!.fields[1]!.writeValues.map(({ name }) => name)).toEqual(['CLEAR']);
    expect(accessWords(load!.access)).toBe('WO once');
  });

  test('a reset of the register, as of 2009', () => {
    const reset = '<x:reset><x:value>0x11</x:value><x:mask>0xff</x:mask></x:reset>';
    const [ctrl] = parseRegisterMap(IP_XACT('x', reset)).map.lowestBlock.registers;
    expect([ctrl!.reset, ctrl!.resetMask]).toEqual([0x11n, 0xffn]);
  });

  test('what cannot be said is a warning with its line, an expression an error', () => {
    expect(parseRegisterMap(IP_XACT('x', '<x:isPresent>1</x:isPresent>')).warnings).toEqual([
      { message: 'isPresent is not looked at', line: 8 },
    ]);
    expect(() => parseRegisterMap(IP_XACT('x').replace("'h1000", 'BASE + 4'))).toThrow(
      'line 6: "BASE + 4" is no number; expressions are not calculated',
    );
    expect(() => parseRegisterMap('<component/>')).toThrow('line 1: <component> has no memory maps');
  });
});

const SYSTEM_RDL = {
  type: 'addrmap',
  inst_name: 'top',
  addr_offset: 0,
  children: [
    {
      type: 'reg',
      inst_name: 'ID',
      addr_offset: 0,
      children: [{ type: 'field', inst_name: 'value', lsb: 0, msb: 31, reset: 0x1234, sw_access: 'r' }],
    },
    {
      type: 'addrmap',
      inst_name: 'DMA',
      addr_offset: 0x100,
      children: [
        {
          type: 'regfile',
          inst_name: 'CH',
          addr_offset: 0,
          dimensions: [2],
          array_stride: 16,
          children: [
            {
              type: 'reg',
              inst_name: 'CTRL',
              addr_offset: 4,
              children: [
                {
                  type: 'field',
                  inst_name: 'GO',
                  lsb: 0,
                  msb: 0,
                  reset: 0,
                  sw_access: 'rw',
                  singlepulse: true,
                },
                { type: 'field', inst_name: 'IRQ', lsb: 1, msb: 1, sw: 'rw', onwrite: 'woclr', hw: 'rw' },
                { type: 'field', inst_name: 'CNT', lsb: 8, msb: 15, sw: 'r', onread: 'rclr' },
                {
                  type: 'field',
                  inst_name: 'KEY',
                  lsb: 16,
                  msb: 17,
                  sw: 'rw1',
                  encode: { OPEN: 1, SHUT: 2 },
                  we: 'x',
                },
              ],
            },
          ],
        },
      ],
    },
  ],
};

describe('compiled SystemRDL', () => {
  test('address maps are blocks, register files groups, and properties are access', () => {
    const { map, format, warnings } = parseRegisterMap(JSON.stringify(SYSTEM_RDL));
    expect(format).toBe('systemrdl');
    expect(lines(map)).toEqual([
      'top@0 ID 0 32 1234: value[0+32] RO',
      'DMA@100 CH[0].CTRL 4 32 0: GO[0+1] RW self-clearing, IRQ[1+1] W1C, CNT[8+8] RC, KEY[16+2] RW once',
      'DMA@100 CH[1].CTRL 14 32 0: GO[0+1] RW self-clearing, IRQ[1+1] W1C, CNT[8+8] RC, KEY[16+2] RW once',
    ]);
    expect(warnings).toEqual([
      {
        message: '$.children[1].children[0].children[0].children[3]: the property we is not kept',
        line: undefined,
      },
    ]);
    expect(map.block('DMA').registers[0]!.fields[3]!.values.map(({ name }) => name)).toEqual([
      'OPEN',
      'SHUT',
    ]);
  });

  test.each<[string, (data: typeof SYSTEM_RDL) => unknown, string]>([
    ['no type', () => ({ inst_name: 'x' }), "$.type must be 'addrmap', got undefined"],
    [
      'bits that make no sense',
      (data) => ((data.children[0]!.children[0] as { msb: number }).msb = 99),
      'lsb and msb must be bits from 0 to 63',
    ],
    [
      'dimensions without end',
      (data) => Object.assign(data.children[0]!, { dimensions: [1e6, 1e6] }),
      'the dimensions must give 1 to 262144 elements',
    ],
    [
      'an access that there is not',
      (data) => Object.assign(data.children[0]!.children[0]!, { sw_access: 'rwx' }),
      'must be one of rw, r, w, rw1, w1, na, got "rwx"',
    ],
  ])('%s is refused by name', (_, change, message) => {
    const data = structuredClone(SYSTEM_RDL);
    const changed = change(data);
    const text = JSON.stringify(
      typeof changed === 'object' && 'inst_name' in changed! && !('type' in changed) ? changed : data,
    );
    expect(() => parseRegisterMap(text)).toThrow(
      expect.objectContaining({
        code: 'ERR_VFIO_USER_REGISTER_MAP',
        message: expect.stringContaining(message),
      }),
    );
  });
});

const JSON_MAP: RegisterMapData = {
  format: REGISTER_MAP_FORMAT,
  name: 'timer',
  blocks: [
    {
      name: 'T',
      base: '0xffffffff00000000',
      children: [
        {
          name: 'R',
          offset: 0,
          reset: 5,
          fields: [{ name: 'F', lsb: 0, bits: 4, access: 'WO', onWrite: 'W1C' }],
        },
        { name: 'G', offset: 16, count: 2, stride: 8, children: [{ name: 'A', offset: 0, access: 'RC' }] },
      ],
    },
  ],
};

describe('JSON', () => {
  const validate = new Ajv().compile(REGISTER_MAP_SCHEMA);

  test('is what an imported map is as data, and both the schema and the library take it', () => {
    const { map } = parseRegisterMap(UART_SVD);
    const again = parseRegisterMap(JSON.stringify(map));
    expect(again.format).toBe('json');
    expect(lines(again.map)).toEqual(lines(map));
    for (const data of [JSON_MAP, map.toJSON()]) {
      expect(validate(JSON.parse(JSON.stringify(data)))).toBe(true);
      expect(RegisterMap.from(data).name).toBe(data.name);
    }
  });

  const [block] = JSON_MAP.blocks;
  const [first, group] = block!.children;
  const withRegister = (more: object): unknown => ({
    ...JSON_MAP,
    blocks: [{ ...block, children: [{ ...first, ...more }] }],
  });
  const withField = (more: object): unknown => withRegister({ fields: [{ name: 'F', lsb: 0, ...more }] });

  test.each<[string, unknown, string]>([
    ['another format', { ...JSON_MAP, format: 'x' }, 'map.format must be \'vfio-user-registers/1\', got "x"'],
    [
      'a property that there is not',
      withRegister({ width: 4 }),
      'blocks[0].children[0] has an unknown property "width"',
    ],
    [
      'a name with a dot',
      withRegister({ name: 'A.B' }),
      '.name must be 1 to 128 letters, digits, _ and -, got "A.B"',
    ],
    [
      'a negative offset',
      withRegister({ offset: -1 }),
      '.offset must be an integer from 0 to 9007199254740991, got -1',
    ],
    ['bits that there are not', withRegister({ bits: 24 }), '.bits must be 8, 16, 32 or 64, got 24'],
    ['an access that there is not', withField({ access: 'R1' }), '.access must be one of RW, RO'],
    [
      'an effect that there is not',
      withField({ onRead: 'clear' }),
      '.onRead must be one of none, RC, RS, RM, got "clear"',
    ],
    ['a number in words', withRegister({ reset: '12' }), '.reset must be an unsigned 32-bit integer'],
    [
      'an array without a stride',
      { ...JSON_MAP, blocks: [{ ...block, children: [{ ...group, stride: undefined }] }] },
      '.stride must be an integer',
    ],
    ['a flag that is none', withField({ once: 1 }), '.once must be true or false, got 1'],
  ])('%s is refused by the library and by the schema', (_, data, message) => {
    expect(() => RegisterMap.from(data as RegisterMapData)).toThrow(message);
    expect(validate(JSON.parse(JSON.stringify(data)))).toBe(false);
  });

  test.each<[string, unknown, string]>([
    [
      'a value that does not fit',
      withRegister({ reset: '0x100000000' }),
      '.reset must be an unsigned 32-bit integer',
    ],
    [
      'a field beyond its register',
      withField({ lsb: 30, bits: 4 }),
      '.lsb must be an integer from 0 to 28, got 30',
    ],
    ['a name twice', { ...JSON_MAP, blocks: [block, block] }, 'blocks has the name T twice'],
    ['no object', 5, 'map must be an object'],
  ])('%s is refused by the library', (_, data, message) => {
    expect(() => RegisterMap.from(data as RegisterMapData)).toThrow(message);
  });

  test('a file that is neither is refused', () => {
    expect(() => parseRegisterMap('name: timer')).toThrow(/^neither XML nor JSON: /);
  });
});
