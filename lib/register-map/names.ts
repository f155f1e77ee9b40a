/** What a map's names become in programs: `DMA_CTRL` is `dmaCtrl`. */

/** What accessors have themselves: a field called so has an underscore behind its name. */
const TAKEN = new Set([
  ...[
    'info',
    'offset',
    'field',
    'read',
    'readSync',
    'write',
    'writeSync',
    'modify',
    'modifySync',
    'readFields',
  ],
  ...['readFieldsSync', 'waitFor', 'waitForSync', 'decode', 'format', 'constructor', 'toString', 'valueOf'],
  ...['toJSON', 'then', 'hasOwnProperty', 'prototype'],
]);

/** The member names of siblings, in their order: camelCase, each once. */
export function memberNames(names: readonly string[]): string[] {
  const given = new Set<string>();
  return names.map((name) => {
    let member = camelCase(name);
    if (TAKEN.has(member) || /^__/.test(member)) member += '_';
    for (let n = 2; given.has(member); n++) member = `${camelCase(name)}_${n}`;
    given.add(member);
    return member;
  });
}

/** `DMA_CTRL`, `dma-ctrl` and `DmaCtrl` are `dmaCtrl`; what begins with a digit has an underscore before it. */
function camelCase(name: string): string {
  const words = name
    .replaceAll(/([a-z\d])([A-Z])/g, '$1_$2')
    .replaceAll(/([A-Z]+)([A-Z][a-z])/g, '$1_$2')
    .split(/[_-]+/)
    .filter((word) => word !== '');
  const joined = words
    .map((word, i) => {
      const lower = word.toLowerCase();
      return i === 0 ? lower : lower.slice(0, 1).toUpperCase() + lower.slice(1);
    })
    .join('');
  if (joined === '') return '_';
  return /^\d/.test(joined) ? `_${joined}` : joined;
}

/** The same with an upper-case first letter: the name of a type. */
export function typeName(name: string): string {
  const member = camelCase(name);
  return member.slice(0, 1).toUpperCase() + member.slice(1);
}
