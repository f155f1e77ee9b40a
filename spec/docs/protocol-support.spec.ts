/** docs/protocol-support.md names a spec for every row, and each of them is there. */
import { expect, test } from '@jest/globals';
import { existsSync, readFileSync } from 'node:fs';
import { Command } from '../../lib/protocol/index.js';

const text = readFileSync(new URL('../../docs/protocol-support.md', import.meta.url), 'utf8');

/** The cells of each row of the tables with a column `Spec`, which are those of that column. */
function specCells(): string[] {
  const cells: string[] = [];
  let column = -1;
  for (const line of text.split('\n')) {
    if (!line.startsWith('|')) {
      column = -1;
      continue;
    }
    const row = line.split('|').map((cell) => cell.trim());
    if (row.includes('Spec')) column = row.indexOf('Spec');
    else if (column >= 0 && !/^-+$/.test(row[column]!)) cells.push(row[column]!);
  }
  return cells;
}

test('the specs that it names are there', () => {
  const cells = specCells();
  expect(cells.length).toBeGreaterThan(40);
  const missing: string[] = [];
  for (const cell of cells) {
    const names = [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name!);
    if (names.length === 0) missing.push(`none in: ${cell}`);
    for (const name of names) {
      if (!existsSync(new URL(`../../${name}`, import.meta.url))) missing.push(name);
    }
  }
  expect(missing).toEqual([]);
});

test('every command is in it', () => {
  const shown = text.replaceAll('DMA_MAP, DMA_UNMAP', '');
  const missing = Object.keys(Command).filter((name) => {
    const short = name.replace(/^DEVICE_/, '');
    return !new RegExp(`\\b(DEVICE_)?${short}\\b`).test(shown);
  });
  expect(missing).toEqual([]);
});
