'use strict';
/** Finds the addon and loads it: a prebuilt one of the package, or what build.cjs has compiled. */
const fs = require('node:fs');
const path = require('node:path');

const ROOT = path.join(__dirname, '..');

/** The addon's exports. Throws what node-gyp-build or the dynamic linker has to say. */
function load() {
  const file = require('node-gyp-build').resolve(ROOT);
  // node-gyp-build takes Alpine alone for a system of musl, and musl loads some addons for glibc, too.
  return require(
    file.replace(/\b(glibc|musl)\.node$/, (_, libc) => `${process.env.LIBC || ownLibc() || libc}.node`),
  );
}

/** The C library that this process has loaded: glibc's is named libc.so.6, and libc-2.28.so where that is a link. */
function ownLibc() {
  try {
    const maps = fs.readFileSync('/proc/self/maps', 'latin1');
    return /\/libc(\.so\.6|-2\.\d+\.so)$/m.test(maps) ? 'glibc' : 'musl';
  } catch {
    return undefined;
  }
}

/** Why `load` threw, and what to do about it, whichever package manager has put the package here. */
function explain(error) {
  const compile = isCheckout() ? 'npm run build:addon' : `node ${path.join(__dirname, 'build.cjs')}`;
  const machine = `${process.platform} ${process.arch}`;
  const reason =
    error.code === 'ERR_DLOPEN_FAILED'
      ? `the native addon does not load here (${machine}): ${error.message.trim()}.`
      : `the package has no native addon for ${machine}.`;
  return `${reason} To compile it, with a C++20 compiler and Node's headers, run: ${compile}`;
}

/** The package leaves CMakeLists.txt out. */
function isCheckout() {
  return fs.existsSync(path.join(ROOT, 'CMakeLists.txt'));
}

module.exports = { explain, load };
