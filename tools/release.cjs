'use strict';

/**
 * Makes a release of the commit that is checked out, in a clone of it, and publishes nothing:
 *
 *     npm run release                 checks, all specs, the four addons, the package, and installs of it
 *     npm run release -- --quick      without the specs, and with the installs that .ci/run does
 *
 * At the end it says how to publish what it made.
 */
const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { parseArgs } = require('node:util');

const root = path.join(__dirname, '..');
const directory = path.join(root, 'build', 'release');
const clone = path.join(directory, 'source');

class ReleaseError extends Error {}

function run(title, command, args, cwd = clone) {
  console.log(`> ${title}`);
  const { status, error } = spawnSync(command, args, { cwd, stdio: 'inherit' });
  if (status !== 0)
    throw new ReleaseError(`${title} failed${error === undefined ? '' : `: ${error.message}`}`);
}

function output(command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new ReleaseError(`${command} ${args[0]}: ${error?.message ?? stderr.trim()}`);
  return stdout.trim();
}

/** What a release of this commit would lack, whatever its tests say. */
function warnings(manifest) {
  const changelog = fs.readFileSync(path.join(clone, 'CHANGELOG.md'), 'utf8');
  const lacking = [];
  if (!changelog.includes(`## [${manifest.version}]`)) {
    lacking.push(`CHANGELOG.md has no section [${manifest.version}]: what is unreleased belongs there`);
  }
  if (output('git', ['tag', '--points-at', 'HEAD']) !== `v${manifest.version}`) {
    lacking.push(`the commit has no tag v${manifest.version}`);
  }
  for (const name of ['repository', 'homepage', 'bugs'].filter((one) => !(one in manifest)))
    lacking.push(
      `package.json has no ${name}${name === 'repository' ? ', which --provenance compares' : ''}`,
    );
  return lacking;
}

function release({ quick }) {
  if (output('git', ['status', '--porcelain']) !== '') {
    throw new ReleaseError('there are changes that are not committed: a release is of a commit');
  }
  fs.rmSync(directory, { recursive: true, force: true });
  fs.mkdirSync(directory, { recursive: true });
  // What is not in a commit, and what is left from other builds, stays out.
  run('cloning', 'git', ['clone', '--quiet', '--no-hardlinks', root, clone], root);
  run('installing dependencies', 'npm', ['ci', '--no-audit', '--no-fund']);
  run('building', process.execPath, ['tools/bootstrap.cjs']);
  run('building the addons', process.execPath, ['tools/prebuild.cjs']);
  run('checking', 'npm', ['run', 'check']);
  if (!quick) run('running the specs', 'npm', ['test']);
  run('packing', 'npm', ['pack', '--pack-destination', directory]);
  const manifest = JSON.parse(fs.readFileSync(path.join(clone, 'package.json'), 'utf8'));
  const tarball = path.join(directory, `${manifest.name}-${manifest.version}.tgz`);
  const installs = ['tools/install/test.cjs', '--check', '--tarball', tarball];
  run('installing it', process.execPath, [...installs, ...(quick ? ['--quick'] : [])]);
  const { size } = fs.statSync(tarball);
  console.log(`\n${path.relative(root, tarball)}, ${size} bytes, of ${output('git', ['rev-parse', 'HEAD'])}`);
  for (const warning of warnings(manifest)) console.log(`before publishing: ${warning}`);
  console.log(
    `to publish, in a workflow that may ask for an identity token (id-token: write):\n\n` +
      `    npm publish --provenance --access public ${path.relative(root, tarball)}\n`,
  );
}

try {
  release(parseArgs({ options: { quick: { type: 'boolean', default: false } } }).values);
} catch (error) {
  if (!(error instanceof ReleaseError) && error.code !== 'ERR_PARSE_ARGS_UNKNOWN_OPTION') throw error;
  console.error(`release: ${error.message}`);
  process.exitCode = 1;
}
