'use strict';

/**
 * Formats the addon's sources; with --check only says which ones are not formatted, and exits 1 then.
 *
 *     node tools/clang-format.cjs [--check]
 */
const { readdirSync } = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const clangFormat = require('clang-format');

const root = path.join(__dirname, '..');
const sources = ['addon', path.join('fuzz', 'addon')].flatMap((directory) =>
  readdirSync(path.join(root, directory))
    .filter((name) => /\.(cc|h)$/.test(name))
    .map((name) => path.join(directory, name)),
);
const mode = process.argv.includes('--check') ? ['--dry-run', '--Werror'] : ['-i'];

const result = spawnSync(clangFormat.getNativeBinary(), [...mode, ...sources], {
  cwd: root,
  stdio: 'inherit',
});
if (result.error) console.error(`clang-format could not be started: ${result.error.message}`);
process.exitCode = result.status ?? 1;
