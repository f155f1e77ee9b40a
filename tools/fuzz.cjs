'use strict';

/**
 * Fuzzes the library for a while: the addon's own sources under libFuzzer with ASan and UBSan, the TypeScript under the
 * engine in fuzz/engine. Corpora are in fuzz/corpus; what is found beyond them goes to build/fuzz/corpus.
 *
 *     node tools/fuzz.cjs [--seconds 60] [--target codec] [--seed 1] [--input FILE] [--minimize]
 *
 * Each target gets its `--seconds`; without `--target` all have their turn. `--input` runs one input of a target alone.
 * `--minimize` puts the smallest corpus that reaches what all known inputs reach into fuzz/corpus (libFuzzer's targets).
 * Exits 1 where a target found something. Without clang++ the addon's targets are skipped, and said to be.
 */
const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { parseArgs } = require('node:util');

const root = path.join(__dirname, '..');
const at = (...names) => path.join(root, ...names);

/** Sources of the addon's targets, beside the harness itself. */
const ADDON = {
  'scm-rights': [],
  arguments: ['addon/arguments.cc', 'fuzz/addon/fake-node-api.cc'],
  memory: ['addon/memory.cc', 'addon/copy.cc', 'addon/small-file.cc', 'fuzz/addon/fake-node-api.cc'],
};
const TYPESCRIPT = ['codec', 'framer', 'connection', 'device', 'text', 'emulator', 'replay', 'proxy'];
/** Longer inputs only make runs slow. */
const MAX_LENGTH = 512;

function fail(message) {
  console.error(message);
  process.exit(1);
}

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (result.error !== undefined) fail(`${command}: ${result.error.message}`);
  return result.status;
}

const hasClang = () => spawnSync('clang++', ['--version']).status === 0;

function buildAddonTarget(name) {
  const output = at('build', 'fuzz', name);
  const headers = [
    require('node-api-headers').include_dir,
    path.dirname(require.resolve('node-addon-api/napi.h')),
  ];
  const status = run('clang++', [
    '-std=c++20',
    '-g',
    '-O1',
    '-Wall',
    '-Wextra',
    '-fsanitize=fuzzer,address,undefined',
    '-fno-sanitize-recover=undefined',
    '-fno-omit-frame-pointer',
    '-DNAPI_VERSION=9',
    '-DNAPI_CPP_EXCEPTIONS',
    `-I${at('addon')}`,
    ...headers.flatMap((directory) => ['-isystem', directory]),
    at('fuzz', 'addon', `${name}.cc`),
    ...ADDON[name].map((file) => at(file)),
    '-o',
    output,
  ]);
  return status === 0 ? output : fail(`building the target ${name} failed`);
}

function fuzzAddon(name, { seconds, seed, input, minimize }) {
  const program = buildAddonTarget(name);
  const corpus = at('fuzz', 'corpus', name);
  const findings = at('build', 'fuzz', 'corpus', name);
  const env = { ...process.env, ASAN_OPTIONS: 'detect_leaks=1', UBSAN_OPTIONS: 'print_stacktrace=1' };
  for (const directory of [corpus, findings]) fs.mkdirSync(directory, { recursive: true });
  if (input !== undefined) return run(program, [input], { env });
  const common = [`-max_len=${MAX_LENGTH}`, `-artifact_prefix=${findings}-failed-`];
  if (minimize) {
    const smallest = fs.mkdtempSync(at('build', 'fuzz', 'smallest-'));
    const status = run(program, ['-merge=1', ...common, smallest, corpus, findings], {
      env,
      stdio: 'ignore',
    });
    fs.rmSync(corpus, { recursive: true });
    fs.renameSync(smallest, corpus);
    return status;
  }
  const { status, stderr } = spawnSync(
    program,
    [`-max_total_time=${seconds}`, `-seed=${seed}`, '-print_final_stats=1', ...common, findings, corpus],
    { cwd: root, env, encoding: 'utf8', maxBuffer: 1 << 28 },
  );
  if (status !== 0) process.stderr.write(stderr);
  const runs = /number_of_executed_units: (\d+)/.exec(stderr)?.[1] ?? '0';
  const reached = /cov: (\d+) ft: \d+ corp: (\d+)/.exec(stderr.slice(stderr.lastIndexOf('cov: ')));
  console.log(`${name}: ${runs} runs, ${reached?.[1] ?? 0} edges reached, ${reached?.[2] ?? 0} inputs`);
  return status;
}

function compile() {
  const tsc = at('node_modules', 'typescript', 'bin', 'tsc');
  if (run(process.execPath, [tsc, '-p', 'tsconfig.fuzz.json']) !== 0) fail('compiling the targets failed');
}

function fuzzTypescript(name, { seconds, seed, input }) {
  const env = { ...process.env };
  env.VFIO_USER_ADDON ||= require('node-gyp-build').path(root);
  const main = at('build', 'fuzz', 'js', 'fuzz', 'main.js');
  const corpus = at('fuzz', 'corpus', name);
  const args =
    input === undefined
      ? [corpus, at('build', 'fuzz', 'corpus', name), seconds, seed]
      : [path.resolve(input)];
  return run(process.execPath, ['--enable-source-maps', main, name, ...args.map(String)], { env });
}

function main() {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '60' },
      seed: { type: 'string', default: '1' },
      target: { type: 'string' },
      input: { type: 'string' },
      minimize: { type: 'boolean', default: false },
    },
  });
  const all = [...Object.keys(ADDON), ...TYPESCRIPT];
  const { target } = values;
  if (target !== undefined && !all.includes(target))
    fail(`--target is one of ${all.join(', ')}, not ${target}`);
  if (values.input !== undefined && target === undefined) fail('--input needs a --target');
  if (!(Number(values.seconds) > 0)) fail(`--seconds is a positive number, not ${values.seconds}`);
  const wanted = target === undefined ? all : [target];
  if (wanted.some((name) => TYPESCRIPT.includes(name))) compile();
  let failed = 0;
  for (const name of wanted) {
    if (TYPESCRIPT.includes(name)) {
      if (!values.minimize && fuzzTypescript(name, values) !== 0) failed++;
    } else if (!hasClang()) console.log(`skip: no clang++, so the target ${name} is not run`);
    else if (fuzzAddon(name, values) !== 0) failed++;
  }
  if (failed > 0) console.error(`${failed} of ${wanted.length} targets found something, see above`);
  return failed === 0 ? 0 : 1;
}

process.exitCode = main();
