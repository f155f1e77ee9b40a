'use strict';
/**
 * The `install` script of npm: nothing to do where a prebuilt or already built addon loads, else it is compiled with
 * node-gyp, using the headers beside this node when they are there (no download).
 *
 * Nothing here keeps the package from being installed off Linux, where everything but the addon works.
 */
const { existsSync } = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const root = path.join(__dirname, '..');

function loads() {
  if (process.env.npm_config_build_from_source === 'true') return false;
  try {
    require('node-gyp-build')(root);
    return true;
  } catch {
    return false;
  }
}

/** npm names its own node-gyp in the environment of install scripts; elsewhere it has to be on the PATH. */
function nodeGyp() {
  const bundled = process.env.npm_config_node_gyp;
  return bundled && existsSync(bundled) ? [process.execPath, bundled] : ['node-gyp'];
}

function compile() {
  const env = { ...process.env };
  const prefix = path.resolve(process.execPath, '..', '..');
  if (!env.npm_config_nodedir && existsSync(path.join(prefix, 'include', 'node', 'common.gypi'))) {
    env.npm_config_nodedir = prefix;
  }
  const [command, ...args] = nodeGyp();
  return spawnSync(command, [...args, 'rebuild'], { cwd: root, env, stdio: 'inherit' }).status === 0;
}

if (process.platform !== 'linux') {
  console.log(
    `vfio-user: on ${process.platform} Unix sockets, shared memory and eventfds do not work; the codec, Duplex transports and capture tools do.`,
  );
} else if (existsSync(path.join(root, 'CMakeLists.txt'))) {
  // A checkout, not the published package: tools/bootstrap.cjs and `npm run build:addon` build with CMake, and
  // node-gyp would delete what they built.
} else if (!loads() && !compile()) {
  console.error(
    'vfio-user: there is no prebuilt addon for this machine and compiling it failed: it needs Python 3, make and a C++20 compiler (g++ 11 or clang 14, or later). Install them and run `npm rebuild vfio-user`.',
  );
  process.exitCode = 1;
}
