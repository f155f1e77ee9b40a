import { describe, expect, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { renderCliDocs } from '../../lib/cli/cli-docs.js';
import { buildProgram } from '../../lib/cli/program.js';

function verbs(command: Command): Command[] {
  return command.commands.flatMap((child) => (child.commands.length > 0 ? verbs(child) : [child]));
}

describe('docs/cli.md', () => {
  test('is what the program says (node tools/cli-manual.cjs writes it)', async () => {
    const manual = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8');
    expect(manual).toBe(renderCliDocs(await buildProgram()));
  });
});

const program = await buildProgram();

describe('the help', () => {
  test.each(verbs(program).map((verb) => [verb.name(), verb] as const))(
    'of %s has examples',
    (_name, verb) => {
      let help = '';
      verb.configureOutput({ writeOut: (text) => (help += text) });
      verb.outputHelp();
      expect(help).toMatch(/examples:/i);
      expect(help).toMatch(/\$ vfio-user|[<(]\(?vfio-user/);
      expect(verb.description()).not.toBe('');
      for (const option of verb.options) expect(option.description).not.toBe('');
    },
  );

  test('has its verbs in groups, the environment and the exit status', () => {
    let help = '';
    program.configureOutput({ writeOut: (text) => (help += text) });
    program.outputHelp();
    expect(help).toMatch(/Look at a device:\n {2}info /);
    expect(help).toMatch(/VFIO_USER_TRACE=1 /);
    expect(help).toMatch(/Exit status: 0 success/);
    expect(help).toMatch(/capture show/);
    expect(help).not.toMatch(/^Commands:/m);
  });
});
