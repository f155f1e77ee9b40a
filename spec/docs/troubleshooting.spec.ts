/** docs/troubleshooting.md has every code that the library's errors have. */
import { expect, test } from '@jest/globals';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { ROOT } from './programs.js';

test('every code of the library is in docs/troubleshooting.md', () => {
  const text = readFileSync(path.join(ROOT, 'docs/troubleshooting.md'), 'utf8');
  const codes = new Set<string>();
  for (const name of readdirSync(path.join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.ts')) continue;
    const source = readFileSync(path.join(ROOT, 'lib', name), 'utf8');
    for (const [code] of source.matchAll(/ERR_(?:VFIO_USER|NVME)_[A-Z]\w+/g)) codes.add(code);
  }
  expect(codes.size).toBeGreaterThan(10);
  expect([...codes].filter((code) => !text.includes(code))).toEqual([]);
});
