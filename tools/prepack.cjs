'use strict';

/**
 * npm's `prepack`: nothing in dist is left from a source that is gone, and whoever packs is told which prebuilt addons
 * are missing. `prepare` compiles afterwards.
 */
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const at = (...names) => path.join(root, ...names);

const dist = fs.existsSync(at('dist')) ? fs.readdirSync(at('dist'), { recursive: true }) : [];
for (const name of dist) {
  const source = name.replace(/(\.d\.ts|\.js)$/, '.ts');
  if (!fs.existsSync(at('lib', source))) fs.rmSync(at('dist', name), { recursive: true, force: true });
}

const prebuilds = ['x64', 'arm64'].flatMap((arch) =>
  ['glibc', 'musl'].map((libc) => path.join('prebuilds', `linux-${arch}`, `vfio-user.${libc}.node`)),
);
const missing = prebuilds.filter((name) => !fs.existsSync(at(name)));
if (missing.length > 0)
  console.warn(`prepack: not in the package, as npm run prebuild makes them: ${missing.join(', ')}`);
