'use strict';

/**
 * Builds the addon with a sanitizer and runs the specs over it; further arguments go on to jest.
 *
 *     node tools/sanitize.cjs asan|tsan [spec/native -t 'a name']
 *
 * Exits 1 when jest does or when the sanitizer reported anything, in jest or in a process that a spec started.
 */
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const root = path.join(__dirname, '..');

// Node itself is not instrumented: it leaks at exit as it likes, and tsan cannot see how its threads synchronize.
const variants = {
  asan: {
    flags: 'address,undefined',
    library: 'libasan.so',
    options: { ASAN_OPTIONS: 'detect_leaks=0', UBSAN_OPTIONS: 'print_stacktrace=1' },
  },
  tsan: {
    flags: 'thread',
    library: 'libtsan.so',
    options: { TSAN_OPTIONS: 'ignore_noninstrumented_modules=1' },
  },
};

function fail(message) {
  console.error(message);
  process.exit(1);
}

function build(name, { flags }) {
  const cmakeJs = path.join(root, 'node_modules', 'cmake-js', 'bin', 'cmake-js');
  const args = [cmakeJs, 'compile', '-D', '-O', `build/${name}`, `--CDSANITIZE=${flags}`];
  const result = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  if (result.status === 0) return path.join(root, 'build', name, 'vfio_user.node');
  process.stderr.write(result.stdout + result.stderr);
  return fail(`building the addon with -fsanitize=${flags} failed`);
}

/** The sanitizer's runtime has to be the first library of a program that was not linked with it. */
function runtime({ library }) {
  const compiler = process.env.CXX || 'g++';
  const found = spawnSync(compiler, [`-print-file-name=${library}`], { encoding: 'utf8' }).stdout?.trim();
  return found && path.isAbsolute(found) ? fs.realpathSync(found) : fail(`${compiler} has no ${library}`);
}

/** tsan's shadow memory leaves no room for addresses as random as some kernels make them. */
function launcher(name) {
  const bits = '/proc/sys/vm/mmap_rnd_bits';
  if (name !== 'tsan' || !fs.existsSync(bits) || Number(fs.readFileSync(bits, 'utf8')) <= 28) return [];
  return ['setarch', '-R'];
}

function main(name, jestArguments) {
  const variant = variants[name];
  if (variant === undefined) fail('usage: node tools/sanitize.cjs asan|tsan [jest arguments]');
  const addon = build(name, variant);
  const logs = fs.mkdtempSync(path.join(os.tmpdir(), `vfio-user-${name}-`));

  const env = { ...process.env, LD_PRELOAD: runtime(variant), VFIO_USER_ADDON: addon };
  for (const [key, value] of Object.entries(variant.options)) {
    env[key] = [value, `log_path=${path.join(logs, 'report')}`, process.env[key]].filter(Boolean).join(':');
  }
  const [command, ...args] = [
    ...launcher(name),
    process.execPath,
    path.join(root, 'tools', 'jest.cjs'),
    '--runInBand',
    ...jestArguments,
  ];
  const { status } = spawnSync(command, args, { cwd: root, env, stdio: 'inherit' });

  const reports = fs.readdirSync(logs).map((file) => fs.readFileSync(path.join(logs, file), 'utf8'));
  fs.rmSync(logs, { recursive: true });
  for (const report of reports) process.stderr.write(report);
  if (reports.length > 0) console.error(`${name}: ${reports.length} process(es) reported errors, see above`);
  return status === 0 && reports.length === 0 ? 0 : 1;
}

process.exitCode = main(process.argv[2], process.argv.slice(3));
