'use strict';
/**
 * Compiles the addon for this machine, where the package has none for it:
 *
 *     node node_modules/vfio-user/addon/build.cjs
 *
 * One run of a C++ compiler (`CXX`, by default c++) with the headers beside node. Nothing is downloaded, and the package
 * has no install script: package managers ask before they run one, or do not run it at all.
 */
const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const ROOT = path.join(__dirname, '..');
const COMPILER = 'a C++20 compiler (g++ 11 or clang 14, or later)';

/** What cannot be done, in words for the terminal. */
class BuildError extends Error {}

/** Where node_api.h and uv.h are: beside node in its own archives, images and packages. */
function nodeHeaders() {
  const prefix = path.resolve(fs.realpathSync(process.execPath), '..', '..');
  const named = process.env.npm_config_nodedir;
  const directories = [...(named ? [named] : []), prefix].map((directory) =>
    path.join(directory, 'include', 'node'),
  );
  const found = directories.find((directory) =>
    ['node_api.h', 'uv.h'].every((name) => fs.existsSync(path.join(directory, name))),
  );
  if (found !== undefined) return found;
  throw new BuildError(
    `Node's headers (node_api.h, uv.h) are not in ${directories.join(', ')}: use a Node that has them, install them ` +
      '(Debian: libnode-dev), or set npm_config_nodedir to the directory above include/node',
  );
}

/** Runs the compiler; `target` are its arguments for another machine. The output is there whole, or not at all. */
function compile([command, ...args], target, headers, output) {
  const { sources, defines } = JSON.parse(fs.readFileSync(path.join(__dirname, 'sources.json'), 'utf8'));
  const include = [...headers, path.dirname(require.resolve('node-addon-api/package.json'))];
  const part = `${output}.${process.pid}`;
  fs.mkdirSync(path.dirname(output), { recursive: true });
  const { status, signal, error } = spawnSync(
    command,
    [
      ...args,
      ...['-shared', '-fPIC', '-std=c++20', '-O2', '-DNDEBUG', '-s', '-Wall', '-Wextra'],
      ...['-fvisibility=hidden', '-fvisibility-inlines-hidden', '-ffunction-sections', '-fdata-sections'],
      '-Wl,--gc-sections',
      ...target,
      ...defines.map((define) => `-D${define}`),
      ...include.flatMap((directory) => ['-isystem', directory]),
      ...sources,
      ...['-o', part],
    ],
    { cwd: ROOT, stdio: 'inherit' },
  );
  if (status === 0) {
    fs.renameSync(part, output);
    return;
  }
  fs.rmSync(part, { force: true });
  if (error?.code === 'ENOENT')
    throw new BuildError(`there is no ${command}: install ${COMPILER}, or name one in CXX`);
  throw new BuildError(
    `${command} failed (${error?.message ?? signal ?? `exit status ${status}`}): it needs ${COMPILER}`,
  );
}

function main() {
  if (process.platform !== 'linux')
    throw new BuildError(`the addon is for Linux; this is ${process.platform}`);
  const output = path.join(ROOT, 'build', 'Release', 'vfio_user.node');
  console.log(`vfio-user: compiling ${output}; it takes a minute`);
  compile([process.env.CXX || 'c++'], [], [nodeHeaders()], output);
  require('./find.cjs').load();
  console.log('vfio-user: the addon loads');
}

module.exports = { BuildError, compile, nodeHeaders };

if (require.main === module) {
  try {
    main();
  } catch (error) {
    console.error(`vfio-user: ${error instanceof BuildError ? error.message : error.stack}`);
    process.exitCode = 1;
  }
}
