/** docs/connecting.md has every option of `connect`, and every quirk. */
import { expect, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { ROOT } from './programs.js';

function members(file: string, name: string): string[] {
  const source = ts.createSourceFile(
    file,
    readFileSync(path.join(ROOT, file), 'utf8'),
    ts.ScriptTarget.ES2022,
  );
  const found = source.statements.find(
    (one): one is ts.InterfaceDeclaration => ts.isInterfaceDeclaration(one) && one.name.text === name,
  );
  return found!.members.map((member) => (member.name as ts.Identifier).text);
}

test.each([
  ['lib/device/connect.ts', 'ConnectOptions'],
  ['lib/trace/trace-tap.ts', 'TraceOptions'],
  ['lib/device/quirks.ts', 'Quirks'],
])('%s: %s', (file, name) => {
  const text = readFileSync(path.join(ROOT, 'docs/connecting.md'), 'utf8');
  const all = members(file, name);
  expect(all.length).toBeGreaterThan(1);
  expect(all.filter((one) => !text.includes(`| \`${one}\``))).toEqual([]);
});
