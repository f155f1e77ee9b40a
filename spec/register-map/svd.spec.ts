import { describe, expect, test } from '@jest/globals';
import { accessWords, parseRegisterMap, type RegisterMap } from '../../lib/registers/index.js';
import { UART_SVD } from '../registers/uart.js';

function importUart(): RegisterMap {
  const { map, format, warnings } = parseRegisterMap(UART_SVD);
  expect({ format, warnings }).toEqual({ format: 'svd', warnings: [] });
  return map;
}

/** A device with one peripheral of these registers. */
function device(registers: string, properties = ''): string {
  return `<device>\n<name>D</name>${properties}<peripherals><peripheral><name>P</name><baseAddress>0</baseAddress><registers>\n${registers}\n</registers></peripheral></peripherals></device>`;
}

function registerNamed(text: string, path: string): RegisterMap['blocks'][number]['registers'][number] {
  const { map } = parseRegisterMap(text);
  return map.lowestBlock.registers.find((one) => one.path === path)!;
}

const register = (inside: string): string =>
  `<register><name>R</name><addressOffset>0</addressOffset>${inside}</register>`;
const field = (inside: string): string =>
  `<fields><field><name>F</name><bitOffset>0</bitOffset>${inside}</field></fields>`;

describe('registers', () => {
  test('clusters are arrays, lists have names, and a derived register has the fields of its base', () => {
    const { registers } = importUart().block('UART');
    expect(registers.map(({ path, offset, bits }) => `${path} ${offset.toString(16)} ${bits}`)).toEqual([
      'CTRL 0 32',
      'STATUS 4 32',
      'IRQ 8 32',
      'DATA c 32',
      'KEY 10 32',
      'CH[0].LEVEL 20 32',
      'CH[0].LIMIT 24 32',
      'CH[1].LEVEL 28 32',
      'CH[1].LIMIT 2c 32',
      'TRIM_A 30 16',
      'TRIM_B 32 16',
      'TRIM_C 34 16',
    ]);
    expect(registers[6]!.fields.map(({ name, bits }) => [name, bits])).toEqual([['VALUE', 16]]);
  });

  test('a derived peripheral has the registers of its base at its own address', () => {
    const map = importUart();
    expect(map.blocks.map(({ name, base }) => [name, base])).toEqual([
      ['UART', 0x40001000n],
      ['UART2', 0x40002000n],
    ]);
    expect(map.block('UART2').registers.length).toBe(map.block('UART').registers.length);
  });

  test('what a device says counts for peripherals, clusters and registers that do not say it', () => {
    const text = device(
      `<register><name>A</name><addressOffset>0</addressOffset></register>
       <cluster><name>C</name><addressOffset>8</addressOffset><access>write-only</access><resetValue>5</resetValue>
       <register><name>B</name><addressOffset>0</addressOffset></register></cluster>`,
      '<size>16</size><access>read-only</access><resetValue>0x1234</resetValue><resetMask>0xff00</resetMask>',
    );
    const a = registerNamed(text, 'A');
    expect([a.bits, accessWords(a.access), a.reset, a.resetMask]).toEqual([16, 'RO', 0x1234n, 0xff00n]);
    const b = registerNamed(text, 'C.B');
    expect([b.bits, accessWords(b.access), b.reset]).toEqual([16, 'WO', 5n]);
  });

  test('a register derives from one that an array makes, and says itself what it says itself', () => {
    const text = device(
      `<register><dim>2</dim><dimIncrement>4</dimIncrement><name>P%sCR</name><addressOffset>0</addressOffset>
       <access>read-only</access>${field('')}</register>
       <register derivedFrom="P1CR"><name>Q</name><addressOffset>8</addressOffset><access>write-only</access></register>`,
    );
    const { map } = parseRegisterMap(text);
    expect(map.lowestBlock.registers.map(({ path, offset }) => [path, offset])).toEqual([
      ['P0CR', 0],
      ['P1CR', 4],
      ['Q', 8],
    ]);
    expect(accessWords(registerNamed(text, 'Q').access)).toBe('WO');
    expect(registerNamed(text, 'Q').fields.map(({ name }) => name)).toEqual(['F']);
  });
});

describe('access', () => {
  test.each([
    ['', '', 'RW'],
    ['<access>read-only</access>', '', 'RO'],
    ['<access>write-only</access>', '', 'WO'],
    ['', '<access>writeOnce</access>', 'WO once'],
    ['', '<access>read-writeOnce</access>', 'RW once'],
    ['', '<modifiedWriteValues>oneToClear</modifiedWriteValues>', 'W1C'],
    ['<modifiedWriteValues>oneToSet</modifiedWriteValues>', '', 'W1S'],
    ['', '<modifiedWriteValues>oneToToggle</modifiedWriteValues>', 'W1T'],
    ['', '<modifiedWriteValues>zeroToClear</modifiedWriteValues>', 'W0C'],
    ['', '<modifiedWriteValues>zeroToSet</modifiedWriteValues>', 'W0S'],
    ['', '<modifiedWriteValues>zeroToToggle</modifiedWriteValues>', 'W0T'],
    ['', '<modifiedWriteValues>clear</modifiedWriteValues>', 'WC'],
    ['', '<modifiedWriteValues>set</modifiedWriteValues>', 'WS'],
    ['', '<modifiedWriteValues>modify</modifiedWriteValues>', 'WM'],
    ['<access>write-only</access>', '<modifiedWriteValues>oneToClear</modifiedWriteValues>', 'WO W1C'],
    ['<access>read-only</access>', '<readAction>clear</readAction>', 'RC'],
    ['<access>read-only</access><readAction>set</readAction>', '', 'RS'],
    ['', '<readAction>modify</readAction>', 'RW RM'],
    ['', '<readAction>modifyExternal</readAction>', 'RW RM'],
    ['<modifiedWriteValues>oneToClear</modifiedWriteValues>', '<access>read-only</access>', 'RO'],
  ])('of a register with %s and a field with %s is %s', (ofRegister, ofField, words) => {
    const { fields } = registerNamed(device(register(ofRegister + field(ofField))), 'R');
    expect(fields.map(({ access }) => accessWords(access))).toEqual([words]);
  });

  test('words that vendors write otherwise are taken, with a warning', () => {
    const { map, warnings } = parseRegisterMap(device(register('<access>write</access>')));
    expect(accessWords(map.lowestBlock.registers[0]!.access)).toBe('WO');
    expect(warnings).toEqual([{ message: 'the access write is taken for write-only', line: 3 }]);
  });

  test('a word that means nothing is refused: a guess would be a wrong policy', () => {
    expect(() => parseRegisterMap(device(register('<access>maybe</access>')))).toThrow(
      /^line 3: access must be one of read-write, read-only, .*, got "maybe"$/,
    );
  });
});

describe('values', () => {
  test('those that are read and those that are written have names of their own', () => {
    const values = (usage: string, name: string): string =>
      `<enumeratedValues><usage>${usage}</usage><enumeratedValue><name>${name}</name><value>1</value></enumeratedValue></enumeratedValues>`;
    const { fields } = registerNamed(
      device(register(field(values('read', 'BUSY') + values('write', 'START')))),
      'R',
    );
    expect(fields[0]!.values.map(({ name }) => name)).toEqual(['BUSY']);
    expect(fields[0]!.writeValues.map(({ name }) => name)).toEqual(['START']);
  });

  test('a number is decimal, hexadecimal or binary', () => {
    const { fields } = importUart().block('UART').registers[0]!;
    expect(fields[1]!.values).toEqual([
      { name: 'SLOW', description: '', value: 0n },
      { name: 'FAST', description: '', value: 2n },
    ]);
  });
});

describe('what cannot be said is a warning with its line', () => {
  test.each([
    [register('<size>24</size>'), 'a register of 24 bits is accessed as one of 32'],
    [register('<size>128</size>'), 'a register of 128 bits is left out: they have at most 64'],
    [register('<protection>s</protection>'), 'protection is not kept'],
    [
      register(field('<writeConstraint><writeAsRead>true</writeAsRead></writeConstraint>')),
      'writeConstraint is kept as noTest: checkRegisters leaves it alone',
    ],
    [
      register('<fields><field><name>F</name><bitRange>[40:39]</bitRange></field></fields>'),
      'the field F, bits 40:39, goes beyond its register of 32 bits and is left out',
    ],
    [
      register(
        field(
          '<enumeratedValues><enumeratedValue><name>ANY</name><value>#1x</value></enumeratedValue></enumeratedValues>',
        ),
      ),
      'the enumerated value ANY is left out: its value #1x has bits that do not count',
    ],
    [register('') + register(''), 'the name R is there twice; the second is R_2'],
  ])('%s', (text, message) => {
    expect(parseRegisterMap(device(text)).warnings).toEqual([{ message, line: expect.any(Number) }]);
    expect(parseRegisterMap(device(text)).warnings[0]!.line).toBeGreaterThan(1);
  });
});

describe('a hostile file', () => {
  test.each<[string, string, RegExp]>([
    ['no XML', '<device><name>', /^line \d+: no XML/],
    [
      'entities',
      '<!DOCTYPE d [<!ENTITY a "aaaa">]><device><name>&a;</name></device>',
      /no XML: Invalid character entity/,
    ],
    ['elements without end', `<device>${'<a>'.repeat(100)}`, /^line 1: more than 64 elements deep$/],
    ['a text without end', `<device><name>${'x'.repeat(70_000)}`, /more than 65536 characters/],
    [
      'a dim without end',
      device('<register><dim>99999999</dim><name>R%s</name><addressOffset>0</addressOffset></register>'),
      /^line 3: dim is 99999999; it is at most 262144$/,
    ],
    [
      'an index without end',
      device('<register><dim>4</dim><dimIndex>0-999999999</dimIndex><name>R%s</name></register>'),
      /dimIndex "0-999999999" does not have 4 indexes/,
    ],
    [
      'arrays of arrays',
      device(
        '<cluster><dim>60000</dim><name>C[%s]</name><addressOffset>0</addressOffset><register><dim>60000</dim><name>R[%s]</name><addressOffset>0</addressOffset></register></cluster>',
      ),
      /^the map has more than 262144 registers$/,
    ],
    [
      'lists of lists',
      device(`<register><dim>60000</dim><name>R%s</name></register>`.repeat(20)),
      /more than 1048576 registers, fields and values/,
    ],
    [
      'a circle',
      device(
        '<register derivedFrom="B"><name>A</name></register><register derivedFrom="A"><name>B</name></register>',
      ),
      /^line 3: derivedFrom="." goes in a circle$/,
    ],
    [
      'a base that is not there',
      device('<register derivedFrom="X"><name>A</name></register>'),
      /^line 3: derivedFrom="X" of <register> names nothing$/,
    ],
    [
      'no number',
      device('<register><name>A</name><addressOffset>here</addressOffset></register>'),
      /^line 3: "here" is no number$/,
    ],
    [
      'something else',
      '<html></html>',
      /^line 1: <html> is neither CMSIS-SVD's <device> nor IP-XACT's <component>$/,
    ],
    [
      'a name like a member of objects',
      '<device><name>D</name><peripherals><peripheral><name>__proto__</name></peripheral></peripherals></device>',
      /<peripheral> has no baseAddress/,
    ],
  ])('%s is refused by name', (_, text, message) => {
    expect(() => parseRegisterMap(text)).toThrow(
      expect.objectContaining({
        code: 'ERR_VFIO_USER_REGISTER_MAP',
        message: expect.stringMatching(message),
      }),
    );
  });
});

test('the file says its encoding', () => {
  const text =
    '<?xml version="1.0" encoding="ISO-8859-1"?><device><name>D</name><description>\u00b5C</description></device>';
  expect(parseRegisterMap(Buffer.from(text, 'latin1')).map.description).toBe('\u00b5C');
  expect(parseRegisterMap(Buffer.from(`\ufeff${text}`, 'utf16le')).map.description).toBe('\u00b5C');
});
