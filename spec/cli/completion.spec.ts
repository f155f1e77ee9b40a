/** The scripts of `vfio-user completion`, run by the shells that they are for. */
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { buildProgram } from '../../lib/cli/program.js';
import { Scratch, vfioUser } from './cli.js';

jest.setTimeout(60_000);

const SHELLS = ['bash', 'zsh', 'fish'] as const;
const scratch = new Scratch();
const file = (shell: string) => scratch.path(`completion.${shell}`);

beforeAll(async () => {
  for (const shell of SHELLS) {
    const { status, stdout } = await vfioUser('completion', shell);
    expect(status).toBe(0);
    writeFileSync(file(shell), stdout);
  }
  writeFileSync(scratch.path('dev.sock'), '');
});

afterAll(() => scratch.remove());

/** What is offered after these words, the last of which is being typed. */
const OFFERED: [words: string[], offered: string[]][] = [
  [['in'], ['info', 'inspect']],
  [['irq', ''], ['watch']],
  [
    ['irq', 'watch', 'SOCKET', '--index', 'ms'],
    ['msi', 'msix'],
  ],
  [
    ['--timeout', '5', 'migrate', ''],
    ['move', 'restore', 'save', 'state'],
  ],
  [
    ['read', 'SOCKET', 'b'],
    ['bar0', 'bar1', 'bar2', 'bar3', 'bar4', 'bar5'],
  ],
  [['read', 'SOCKET', '--width', '4', 'ro'], ['rom']],
  [['dump', '--sp'], ['--sparse']],
  [['reset', '--mm'], ['--mmap']],
  [['reset', '--mmap', 's'], ['sealed']],
  [
    ['completion', ''],
    ['bash', 'fish', 'zsh'],
  ],
  [['config', 'SOCKET', 'COMMAND=7', 'BASE_ADDRESS_0'], ['BASE_ADDRESS_0']],
  [['help', 'mig'], ['migrate']],
  [['info', 'DIRECTORY/dev'], ['DIRECTORY/dev.sock']],
];

/** The placeholders' files are there. */
const filled = (words: readonly string[]) =>
  words.map((word) => word.replace('SOCKET', '/run/s').replace('DIRECTORY', scratch.directory));

function run(shell: string, script: string, ...args: string[]): string[] {
  const { status, stdout, stderr } = spawnSync(shell, ['-c', script, ...args], { encoding: 'utf8' });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout.split('\n').filter((line) => line !== '');
}

function isInstalled(shell: string): boolean {
  return spawnSync(shell, ['-c', 'true']).status === 0;
}

describe.each(SHELLS)('completion for %s', (shell) => {
  const there = isInstalled(shell) ? test : test.skip;

  there(`is understood (needs ${shell})`, () => {
    expect(spawnSync(shell, ['-n', file(shell)], { encoding: 'utf8' })).toMatchObject({
      status: 0,
      stderr: '',
    });
  });

  test('knows every verb and every option that the program has', async () => {
    const { stdout } = await vfioUser('completion', shell);
    for (const command of (await buildProgram()).commands) {
      expect(stdout).toContain(command.name());
      for (const { long } of command.options)
        expect(stdout).toContain(shell === 'fish' ? long?.slice(2) : long);
    }
  });
});

describe('what bash offers', () => {
  test('is registered for vfio-user', () => {
    expect(run('bash', `source ${file('bash')}; complete -p vfio-user`)).toEqual([
      'complete -F _vfio_user vfio-user',
    ]);
  });

  test.each(OFFERED)('after %j', (words, offered) => {
    const script = `source ${file('bash')}
      COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
      _vfio_user
      printf '%s\\n' "\${COMPREPLY[@]}"`;
    const replies = run('bash', script, 'bash', 'vfio-user', ...filled(words));
    expect(replies.sort()).toEqual(filled(offered));
  });
});

describe('what fish offers', () => {
  (isInstalled('fish') ? test : test.skip).each(OFFERED)('after %j (needs fish)', (words, offered) => {
    const line = ['vfio-user', ...filled(words)].join(' ');
    const replies = run('fish', `source ${file('fish')}; complete -C '${line}'`);
    expect(replies.map((reply) => reply.split('\t')[0]!).sort()).toEqual(filled(offered));
  });
});

describe('what zsh offers', () => {
  // The builtins that would draw a menu are replaced by ones that print what they were given.
  const STUBS = `
    compdef() { :; }
    _describe() { if [[ $1 == -o ]]; then shift 2; else shift; fi; print -rl -- \${\${(P)1}%%:*}; }
    compadd() { shift; print -rl -- "$@"; }
    _files() { print -rl -- \${words[CURRENT]}*; }`;

  (isInstalled('zsh') ? test : test.skip).each(OFFERED)('after %j (needs zsh)', (words, offered) => {
    const script = `${STUBS}
      source ${file('zsh')}
      words=("$@") CURRENT=$#
      _vfio_user
      true`;
    const replies = run('zsh', script, 'zsh', 'vfio-user', ...filled(words));
    const typed = filled(words).at(-1)!;
    expect(replies.filter((reply) => reply.startsWith(typed)).sort()).toEqual(filled(offered));
  });
});

test('a shell that is not known, or none', async () => {
  expect((await vfioUser('completion', 'tcsh')).stderr).toMatch(/Allowed choices are bash, zsh, fish/);
  expect(await vfioUser('completion')).toMatchObject({ status: 2 });
  expect(await vfioUser('completion', 'bash', 'zsh')).toMatchObject({ status: 2 });
});
