/** A package without an addon that loads: what it says, and what helps. dist is built before, as for the examples. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const ROOT = path.join(import.meta.dirname, '..', '..');
const require = createRequire(import.meta.url);
const BUILT = (require('node-gyp-build') as { path(root: string): string }).path(ROOT);

const CONNECT = `
  const { connect } = await import('vfio-user');
  await connect('/nonexistent.sock').catch(({ code, message }) => console.log(code, message));
`;

let directory: string;
let installed: string;

beforeEach(() => {
  // In this package, so that its dependencies are found.
  mkdirSync(path.join(ROOT, 'build'), { recursive: true });
  directory = mkdtempSync(path.join(ROOT, 'build', 'install-spec-'));
  // Without it the name 'vfio-user' means the package around it.
  writeFileSync(path.join(directory, 'package.json'), '{}');
  installed = path.join(directory, 'node_modules', 'vfio-user');
  for (const name of ['package.json', 'dist', 'addon/find.cjs', 'addon/build.cjs', 'addon/sources.json'])
    cpSync(path.join(ROOT, name), path.join(installed, name), { recursive: true });
});

afterEach(() => rmSync(directory, { recursive: true }));

function run(args: string[], env: NodeJS.ProcessEnv = {}, command = process.execPath): string {
  const { npm_config_nodedir: _, VFIO_USER_ADDON: __, ...rest } = process.env;
  const options = { cwd: directory, encoding: 'utf8', env: { ...rest, ...env } } as const;
  const { stdout, stderr } = spawnSync(command, args, options);
  return stdout + stderr;
}

const connect = (env?: NodeJS.ProcessEnv): string => run(['--input-type=module', '-e', CONNECT], env);

function prebuild(libc: 'glibc' | 'musl', from: string | undefined): void {
  const prebuilds = path.join(installed, 'prebuilds', `linux-${process.arch}`);
  mkdirSync(prebuilds, { recursive: true });
  const file = path.join(prebuilds, `vfio-user.${libc}.node`);
  if (from === undefined) writeFileSync(file, 'no addon');
  else copyFileSync(from, file);
}

test('none for this processor: it names the command that compiles one', () => {
  const said = connect();
  expect(said).toMatch(/^ERR_VFIO_USER_UNSUPPORTED the package has no native addon for linux \w+\./);
  expect(said.trim().endsWith(`run: node ${path.join(installed, 'addon', 'build.cjs')}`)).toBe(true);
});

test('one that does not load: it says why, and names the command', () => {
  prebuild('glibc', undefined);
  prebuild('musl', undefined);
  expect(connect({ LIBC: 'glibc' })).toMatch(
    /^ERR_VFIO_USER_UNSUPPORTED the native addon does not load here \(linux \w+\): \S+vfio-user\.glibc\.node: \w.*run: node \S+build\.cjs/,
  );
});

test('the C library of the process decides, as Alpine is not the only system of musl; LIBC overrules it', () => {
  const isGlibc = /\/libc(\.so\.6|-2\.\d+\.so)$/m.test(readFileSync('/proc/self/maps', 'latin1'));
  const [own, other] = isGlibc ? (['glibc', 'musl'] as const) : (['musl', 'glibc'] as const);
  prebuild(own, BUILT);
  prebuild(other, undefined);
  expect(connect()).toMatch(/^ENOENT /);
  expect(connect({ LIBC: other })).toMatch(new RegExp(`does not load here .*vfio-user\\.${other}\\.node`));
});

test('in a bundle: it says to leave the package out, and VFIO_USER_ADDON helps', () => {
  rmSync(path.join(installed, 'addon'), { recursive: true });
  expect(connect()).toMatch(
    /^ERR_VFIO_USER_UNSUPPORTED vfio-user is in a bundle.*--external:vfio-user.*VFIO_USER_ADDON/,
  );
  expect(connect({ VFIO_USER_ADDON: BUILT })).toMatch(/^ENOENT /);
  // Of this process's working directory.
  expect(connect({ VFIO_USER_ADDON: path.relative(directory, BUILT) })).toMatch(/^ENOENT /);
  expect(connect({ VFIO_USER_ADDON: './none.node' })).toMatch(
    /^ERR_VFIO_USER_UNSUPPORTED the addon that VFIO_USER_ADDON names does not load: .*none\.node/,
  );
});

test('compiling without a compiler says what to install', () => {
  const said = run([path.join(installed, 'addon', 'build.cjs')], { CXX: 'no-such-compiler' });
  // A Node without headers has that to say first.
  expect(said).toMatch(/there is no no-such-compiler: install a C\+\+20 compiler|Node's headers/);
});

test('compiling with a Node that has no headers says where it looked, and how to name them', () => {
  const node = path.join(directory, 'bin', 'node');
  mkdirSync(path.dirname(node));
  try {
    linkSync(process.execPath, node);
  } catch {
    copyFileSync(process.execPath, node);
  }
  const said = run([path.join(installed, 'addon', 'build.cjs')], { npm_config_nodedir: '/nowhere' }, node);
  expect(said).toContain(
    `vfio-user: Node's headers (node_api.h, uv.h) are not in /nowhere/include/node, ${directory}/include/node: `,
  );
  expect(said).toMatch(/libnode-dev\), or set npm_config_nodedir/);
});
