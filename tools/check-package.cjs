'use strict';

/** publint and attw (are the types wrong?) on the package as it is packed; dist is built before. */
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const root = path.join(__dirname, '..');
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'vfio-user-package-'));
const options = { cwd: root, encoding: 'utf8' };

/** Shows what a command says only when it fails. */
function passes(command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, options);
  if (status === 0) return true;
  console.error(error?.message ?? stdout + stderr);
  return false;
}

try {
  const packs = passes('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', directory]);
  const [tarball] = fs.readdirSync(directory).map((name) => path.join(directory, name));
  const bin = (name) => path.join(root, 'node_modules', '.bin', name);
  const isRight =
    packs &&
    passes(bin('publint'), [tarball, '--strict']) &&
    // From CommonJS it is `import()`, or `require` where Node can: docs/install.md.
    passes(bin('attw'), [tarball, '--profile', 'esm-only']);
  process.exitCode = isRight ? 0 : 1;
} finally {
  fs.rmSync(directory, { recursive: true });
}
