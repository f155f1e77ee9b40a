/** What goes into the package, as `npm pack` says; dist is built before, as for the examples. */
import { beforeAll, describe, expect, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const ROOT = path.join(import.meta.dirname, '..', '..');

interface Packed {
  readonly unpackedSize: number;
  readonly files: readonly { readonly path: string }[];
}

let packed: Packed;
let files: readonly string[];

const read = (name: string): string => readFileSync(path.join(ROOT, name), 'utf8');
const under = (directory: string): string[] => files.filter((name) => name.startsWith(`${directory}/`));

/** The files below a directory of the repository. */
function below(directory: string): string[] {
  return readdirSync(path.join(ROOT, directory), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(ROOT, path.join(entry.parentPath, entry.name)));
}

beforeAll(() => {
  const { stdout } = spawnSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
    cwd: ROOT,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  // npm 12 answers with an object of packages by name.
  [packed] = Object.values(JSON.parse(stdout) as Record<string, Packed>) as [Packed];
  files = packed.files.map((file) => file.path);
});

test('has these directories and files, and no other', () => {
  const top = new Set(files.map((name) => name.split('/')[0]));
  top.delete('prebuilds'); // `npm run prebuild` makes them
  expect([...top].sort()).toEqual([
    'CHANGELOG.md',
    'CONTRIBUTING.md',
    'DESIGN.md',
    'LICENSE',
    'README.md',
    'SECURITY.md',
    'addon',
    'dist',
    'docs',
    'examples',
    'package.json',
    'tools',
  ]);
  for (const directory of ['addon', 'docs', 'examples', 'tools/wireshark'])
    expect(under(directory).sort()).toEqual(below(directory).sort());
  expect(under('tools')).toEqual(under('tools/wireshark'));
  const addons = ['x64', 'arm64'].flatMap((arch) =>
    ['glibc', 'musl'].map((libc) => `prebuilds/linux-${arch}/vfio-user.${libc}.node`),
  );
  expect(under('prebuilds').filter((name) => !addons.includes(name))).toEqual([]);
});

test('dist has the code and the declarations of every source, without source maps', () => {
  const sources = below('lib').filter((name) => name.endsWith('.ts'));
  const wanted = sources.flatMap((name) => {
    const stem = name.replace(/^lib/, 'dist').replace(/\.ts$/, '');
    // What browsers run is nobody's to import.
    return name.includes('/inspector/page/') ? [`${stem}.js`] : [`${stem}.d.ts`, `${stem}.js`];
  });
  // `npm pack` removes what is left of a source that is gone: tools/prepack.cjs.
  const stale = under('dist').filter((name) => {
    const source = name.replace(/^dist/, 'lib').replace(/(\.d\.ts|\.js)(\.map)?$/, '.ts');
    return !existsSync(path.join(ROOT, source)) || name.endsWith('.map') || name.startsWith('dist/man/');
  });
  expect(
    under('dist')
      .filter((name) => !stale.includes(name))
      .sort(),
  ).toEqual(wanted.sort());
  expect(
    under('dist').filter((name) => name.endsWith('.js') && read(name).includes('sourceMappingURL')),
  ).toEqual([]);
});

test('its declarations are for TypeScript 5.4: arrays and Buffer have no parameter there', () => {
  const generic = /\b(?:Buffer|DataView|\w+Array)<(?:ArrayBuffer|SharedArrayBuffer|ArrayBufferLike)>/;
  expect(under('dist').filter((name) => name.endsWith('.d.ts') && generic.test(read(name)))).toEqual([]);
});

test('every link of its documents leads to a file that is in it', () => {
  const broken = files
    .filter((name) => name.endsWith('.md'))
    .flatMap((name) => {
      const text = read(name).replaceAll(/^```[^]*?^```/gm, '');
      return [...text.matchAll(/\]\((?!\w+:|#)([^)#\s]+)[^)]*\)/g)]
        .map(([, link]) => path.join(path.dirname(name), link!))
        .filter((target) => !files.some((file) => file === target || file.startsWith(`${target}/`)))
        .map((target) => `${name}: ${target}`);
    });
  expect(broken).toEqual([]);
});

describe('installing', () => {
  test('runs no script: package managers ask before, or do not', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    for (const name of ['preinstall', 'install', 'postinstall']) expect(scripts).not.toHaveProperty(name);
    // npm and pnpm would compile it.
    expect(files).not.toContain('binding.gyp');
  });

  test('takes at most 6 MB', () => {
    expect(packed.unpackedSize).toBeLessThan(6_000_000);
  });
});

test('what package.json names is in it', () => {
  const manifest = JSON.parse(read('package.json')) as {
    main: string;
    types: string;
    bin: Record<string, string>;
    exports: Record<string, string | Record<string, string>>;
  };
  const named = [manifest.main, manifest.types, ...Object.values(manifest.bin)];
  for (const entry of Object.values(manifest.exports))
    named.push(...(typeof entry === 'string' ? [entry] : Object.values(entry)));
  expect(named.map((name) => path.normalize(name)).filter((name) => !files.includes(name))).toEqual([]);
});
