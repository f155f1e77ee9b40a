'use strict';

/**
 * Installs the packed package into empty projects, as its users do, and drives a device there: with several package
 * managers, Node versions, C libraries and processors, bundlers and versions of TypeScript.
 *
 *     npm run test:install                        all, and the table of docs/install.md is written anew
 *     npm run test:install -- --quick             without the package managers, and one TypeScript
 *     npm run test:install -- --tarball FILE      of this package; otherwise it is built and packed
 *     npm run test:install -- --check             all, and the table stays as it is
 *     npm run test:install -- --only 'npm|musl'   rows whose name matches
 *
 * The projects have no compiler on their PATH. What cannot be had on this machine is skipped, and the table says so. Tools
 * and Nodes come from npm and PyPI into build/install, and the loader of musl from Debian's packages.
 */
const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { parseArgs } = require('node:util');
const { Workshop, Skip } = require('./workshop.cjs');

const root = path.join(__dirname, '..', '..');

const NODES = ['20.19.0', '22', '24', '26'];
const TYPESCRIPTS = ['5.4', '5.9', '6.0', '7.0'];

/** Or it takes the project for a part of the checkout around it. */
const YARN_4 = { 'yarn.lock': '' };

/** Arguments of an install with scripts blocked, which is the default of the newer ones. */
const MANAGERS = [
  {
    name: 'npm 10',
    tool: ['npm', '10'],
    cli: 'npm/bin/npm-cli.js',
    node: '20.19.0',
    args: ['install', '--ignore-scripts'],
  },
  {
    name: 'npm 11',
    tool: ['npm', '11'],
    cli: 'npm/bin/npm-cli.js',
    node: '22',
    args: ['install', '--ignore-scripts'],
  },
  { name: 'npm 12', tool: ['npm', '12'], cli: 'npm/bin/npm-cli.js', node: '24', args: ['install'] },
  { name: 'pnpm 12', tool: ['pnpm', '12'], cli: 'pnpm/bin/pnpm.mjs', node: '24', args: ['install'] },
  {
    name: 'yarn 1',
    tool: ['yarn', '1'],
    cli: 'yarn/bin/yarn.js',
    node: '20.19.0',
    args: ['install', '--ignore-scripts'],
  },
  {
    name: 'yarn 4, node_modules',
    tool: ['@yarnpkg/cli-dist', '4'],
    cli: '@yarnpkg/cli-dist/bin/yarn.js',
    node: '22',
    args: ['install'],
    files: { ...YARN_4, '.yarnrc.yml': 'nodeLinker: node-modules\n' },
  },
  {
    name: 'yarn 4, PnP',
    tool: ['@yarnpkg/cli-dist', '4'],
    cli: '@yarnpkg/cli-dist/bin/yarn.js',
    node: '24',
    args: ['install'],
    files: { ...YARN_4, '.yarnrc.yml': 'nodeLinker: pnp\n' },
    flags: ['--require', './.pnp.cjs', '--loader', './.pnp.loader.mjs', '--no-warnings'],
  },
];

/** Every row is [what it is, what it runs on, a function that throws, and gives a remark]. */
function rows(shop, quick) {
  const managers = quick ? [] : MANAGERS;
  const here = process.arch;
  const project = () => shop.shared(() => shop.project('shared', MANAGERS[1]));
  const other = here === 'x64' ? 'arm64' : 'x64';
  return [
    ...managers.map((manager) => [
      manager.name,
      `Node ${manager.node.split('.')[0]}, glibc ${here}`,
      () => {
        const directory = shop.project(manager.name, manager);
        return shop.smoke(directory, shop.node(manager.node), {
          flags: manager.flags,
          addon: `linux-${here}/vfio-user.glibc`,
        });
      },
    ]),
    ...NODES.map((version) => [
      `Node ${version}`,
      `glibc ${here}`,
      () => shop.smoke(project(), shop.node(version), { addon: `linux-${here}/vfio-user.glibc` }),
    ]),
    [
      'Node 24',
      `glibc ${other}, emulated`,
      () => shop.smoke(project(), shop.emulatedNode(other), { addon: `linux-${other}/vfio-user.glibc` }),
    ],
    ...[here, other].map((arch) => [
      'Node 24',
      `musl ${arch}${arch === here ? '' : ', emulated'}`,
      () => shop.smoke(project(), shop.muslNode(arch), { addon: `linux-${arch}/vfio-user.musl` }),
    ]),
    ['esbuild, ESM', 'bundled whole', () => shop.bundle(project(), 'esm', false)],
    ['esbuild, CommonJS', 'bundled whole', () => shop.bundle(project(), 'cjs', false)],
    ['esbuild, ESM', '--external:vfio-user', () => shop.bundle(project(), 'esm', true)],
    ['esbuild, CommonJS', '--external:vfio-user', () => shop.bundle(project(), 'cjs', true)],
    ...(quick ? TYPESCRIPTS.slice(0, 1) : TYPESCRIPTS).map((version) => [
      `TypeScript ${version}`,
      'node16, nodenext, bundler',
      () => shop.typescript(project(), version),
    ]),
    ['no compiler, no addon', 'the message', () => shop.missingAddon(project())],
  ];
}

function pack() {
  for (const command of [['tools/bootstrap.cjs'], ['tools/prebuild.cjs']]) {
    const { status } = spawnSync(process.execPath, command, { cwd: root, stdio: 'inherit' });
    if (status !== 0) throw new Error(`${command[0]} failed`);
  }
  const directory = path.join(root, 'build', 'install');
  fs.mkdirSync(directory, { recursive: true });
  const { status, stdout, stderr } = spawnSync('npm', ['pack', '--silent', '--pack-destination', directory], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`npm pack failed: ${stderr}`);
  return path.join(directory, stdout.trim().split('\n').at(-1));
}

/** Puts the results between the two marks of the document. */
function write(results) {
  const file = path.join(root, 'docs', 'install.md');
  const table = [
    '| with | on | result |',
    '| --- | --- | --- |',
    ...results.map(({ name, where, outcome }) => `| ${name} | ${where} | ${outcome} |`),
  ].join('\n');
  const text = fs.readFileSync(file, 'utf8');
  const [start, end] = ['<!-- test:install -->', '<!-- end -->'];
  const before = text.slice(0, text.indexOf(start) + start.length);
  fs.writeFileSync(file, `${before}\n\n${table}\n\n${text.slice(text.indexOf(end))}`);
  spawnSync(process.execPath, [require.resolve('prettier/bin/prettier.cjs'), '--write', file], {
    stdio: 'ignore',
  });
}

function main() {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean' },
      check: { type: 'boolean' },
      tarball: { type: 'string' },
      only: { type: 'string' },
    },
  });
  const tarball = path.resolve(values.tarball ?? pack());
  const shop = new Workshop(path.join(root, 'build', 'install'), tarball);
  const wanted = new RegExp(values.only ?? '');
  const results = [];
  for (const [name, where, run] of rows(shop, values.quick)) {
    if (!wanted.test(`${name}, ${where}`)) continue;
    let outcome;
    try {
      outcome = run();
    } catch (error) {
      outcome = error instanceof Skip ? `skipped: ${error.message}` : `FAILED: ${error.message}`;
    }
    console.log(`${name}, ${where}: ${outcome}`);
    results.push({ name, where, outcome });
  }
  shop.close();
  if (!values.quick && !values.check && values.only === undefined) write(results);
  const count = (start) => results.filter(({ outcome }) => outcome.startsWith(start)).length;
  const [failed, skipped] = [count('FAILED'), count('skipped')];
  console.log(`installs: ${results.length - failed - skipped} passed, ${failed} failed, ${skipped} skipped`);
  if (failed > 0 || results.length === skipped) process.exitCode = 1;
}

main();
