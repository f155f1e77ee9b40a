/** The man pages of the package. */
import { describe, expect, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { renderManPages } from '../../lib/cli/cli-man.js';
import { buildProgram } from '../../lib/cli/program.js';

const HAS_GROFF = spawnSync('groff', ['--version']).status === 0;
const pages = renderManPages(await buildProgram(), '1.2.3');

function rendered(page: string): { text: string; warnings: string } {
  const { stdout, stderr } = spawnSync('groff', ['-man', '-ww', '-Tutf8', '-P-cbou', '-rLL=200n'], {
    input: page,
    encoding: 'utf8',
  });
  return { text: stdout, warnings: stderr };
}

describe('man pages', () => {
  test('there is one for the program and one for each verb', async () => {
    const verbs = (await buildProgram()).commands.map((verb) => `vfio-user-${verb.name()}`);
    expect([...pages.keys()]).toEqual(['vfio-user', ...verbs]);
  });

  (HAS_GROFF ? test.each([...pages]) : test.skip.each([...pages]))(
    '%s formats without a warning',
    (name, page) => {
      const { text, warnings } = rendered(page);
      expect(warnings).toBe('');
      expect(text).toMatch(/^NAME\n +vfio-user/m);
      expect(text).toMatch(/^SEE ALSO$/m);
      if (name !== 'vfio-user-nvme') return;
      expect(text).toContain('VFIO-USER NVME READ');
      expect(text).toContain('--output <file>');
    },
  );

  (HAS_GROFF ? test : test.skip)('what begins with a dot or has a backslash stays text', () => {
    const { text } = rendered(pages.get('vfio-user-proxy')!);
    expect(text).toContain('--connect <address>');
    expect(text).toContain('$ vfio-user proxy --listen @front --connect tcp:host:4420');
  });
});
