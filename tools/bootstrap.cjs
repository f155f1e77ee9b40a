'use strict';

/**
 * Makes a checkout ready for `npm start` and `npm test`: installs dependencies, builds the addon, compiles TypeScript,
 * each only when something it depends on is newer. Says nothing when there is nothing to do.
 *
 *     node tools/bootstrap.cjs
 *     node tools/bootstrap.cjs library    dist alone, where TypeScript is installed: npm's `prepare`
 *
 * Node alone runs it: it must not need what it installs.
 */
const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const root = path.join(__dirname, '..');
const at = (...names) => path.join(root, ...names);

/** A failure that is one line for the person at the terminal. */
class StepError extends Error {}

/** The latest change of a file, or of anything in a directory; 0 when there is nothing. */
function changed(file) {
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  if (stat === undefined) return 0;
  if (!stat.isDirectory()) return stat.mtimeMs;
  const inside = fs.readdirSync(file).map((name) => changed(path.join(file, name)));
  // The directory itself too: a file that was removed leaves no other trace.
  return Math.max(stat.mtimeMs, ...inside);
}

const newest = (...files) => Math.max(...files.map(changed));

/** When a step last succeeded. Outputs alone do not tell: tsc writes them in spite of errors. */
const stamp = (step) => at('build', '.done', step);

function setStamp(step) {
  fs.mkdirSync(path.dirname(stamp(step)), { recursive: true });
  fs.writeFileSync(stamp(step), '');
}

/** Runs a command and shows its output only when it fails. */
function run(title, command, args, hint) {
  console.log(`> ${title}`);
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (result.status === 0) return;
  process.stderr.write((result.stdout ?? '') + (result.stderr ?? ''));
  throw new StepError(`${title} failed: ${result.error?.message ?? hint()}`);
}

function dependencies() {
  const lock = at('package-lock.json');
  const installed = at('node_modules', '.package-lock.json');
  if (changed(installed) >= changed(lock) || sameVersions(lock, installed)) return;
  const npm = process.env.npm_execpath;
  const [command, ...args] = npm?.endsWith('.js') ? [process.execPath, npm] : ['npm'];
  run(
    'installing dependencies',
    command,
    [...args, 'ci', '--ignore-scripts'],
    () => 'npm ci could not install them',
  );
}

/** A checkout gives every file a new time: what counts then is whether the lock file says anything else. */
function sameVersions(lock, installed) {
  if (!fs.existsSync(installed)) return false;
  const [wanted, present] = [lock, installed].map(
    (file) => JSON.parse(fs.readFileSync(file, 'utf8')).packages,
  );
  return Object.entries(wanted).every(([name, { version, optional }]) => {
    if (name === '') return true;
    return name in present ? present[name].version === version : optional === true;
  });
}

function addon() {
  if (process.platform !== 'linux') return;
  const sources = newest(at('addon'), at('CMakeLists.txt'));
  const output = changed(at('build', 'Release', 'vfio_user.node'));
  if (output > 0 && Math.max(output, changed(stamp('addon'))) >= sources) return;
  const cmakeJs = at('node_modules', 'cmake-js', 'bin', 'cmake-js');
  run('building the addon', process.execPath, [cmakeJs, 'compile', '-O', 'build/Release'], missingTools);
  setStamp('addon');
}

function missingTools() {
  const runs = (command) => spawnSync(command, ['--version']).status === 0;
  const missing = [];
  if (!runs('cmake')) missing.push('CMake (3.19 or later)');
  if (![process.env.CXX || 'c++', 'g++', 'clang++'].some(runs))
    missing.push('a C++20 compiler (g++ 11, clang 14)');
  if (!runs('ninja') && !runs('make')) missing.push('make or ninja');
  return missing.length > 0 ? `missing: ${missing.join(', ')}` : 'the output above says why';
}

function typescript(step, config, directories, output) {
  const sources = directories.map((name) => at(name)).filter((directory) => fs.existsSync(directory));
  if (!sources.some(hasTypescript)) return;
  const inputs = newest(...sources, at('tsconfig.json'), at(config));
  if (fs.existsSync(at(output)) && changed(stamp(step)) >= inputs) return;
  const tsc = at('node_modules', 'typescript', 'bin', 'tsc');
  run(
    `compiling ${directories.join(' and ')}`,
    process.execPath,
    [tsc, '-p', config],
    () => 'see the errors above',
  );
  setStamp(step);
}

function hasTypescript(directory) {
  return fs.readdirSync(directory, { recursive: true }).some((name) => name.endsWith('.ts'));
}

/** Only for the package. */
function manPages() {
  run(
    'writing man pages',
    process.execPath,
    [at('tools', 'cli-manual.cjs'), '--man'],
    () => 'see the error above',
  );
}

/** What browsers run is compiled by itself, with their types. */
function library() {
  typescript('library', 'tsconfig.build.json', ['lib'], 'dist');
  typescript(
    'page',
    'lib/cli/inspector/page/tsconfig.json',
    ['lib/cli/inspector/page'],
    'dist/cli/inspector/page',
  );
}

try {
  if (process.argv[2] === 'library') {
    // `npm ci --omit=dev` in a checkout runs `prepare`, too.
    if (fs.existsSync(at('node_modules', 'typescript'))) {
      library();
      manPages();
    }
  } else {
    dependencies();
    addon();
    library();
    typescript('tools', 'tsconfig.tools.json', ['examples', 'bench'], 'build/tools');
  }
} catch (error) {
  if (!(error instanceof StepError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
