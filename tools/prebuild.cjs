'use strict';

/**
 * Builds the addons that go into the package, for every machine that has one, on this machine:
 * `prebuilds/linux-{x64,arm64}/vfio-user.{glibc,musl}.node`, where node-gyp-build looks for them.
 *
 *     npm run prebuild
 *     npm run prebuild -- --only linux-arm64/musl
 *
 * The compiler is zig, as it brings the C libraries of all four, and links libc++ into the addon. `ZIG` names one that is
 * there; otherwise PyPI's package is put into build/zig. What is newer than its sources is not built again.
 */
const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { parseArgs } = require('node:util');
const { BuildError, compile, nodeHeaders } = require('../addon/build.cjs');

const ZIG_VERSION = '0.15.2';
const TARGETS = {
  // The oldest glibc that runs them: that of Node 20's own binaries.
  'linux-x64/glibc': 'x86_64-linux-gnu.2.28',
  'linux-x64/musl': 'x86_64-linux-musl',
  'linux-arm64/glibc': 'aarch64-linux-gnu.2.28',
  'linux-arm64/musl': 'aarch64-linux-musl',
};
/** What Node asks an addon for. All else stays inside, so that libc++ does not meet the C++ library of Node. */
const EXPORTS = ['napi_register_module_v1', 'node_api_module_get_api_version_v1'];

const root = path.join(__dirname, '..');
const at = (...names) => path.join(root, ...names);

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (result.status === 0) return;
  const reason = result.error?.message ?? `exit status ${result.status ?? result.signal}`;
  throw new BuildError(`${path.basename(command)} ${args[0]}: ${reason}`);
}

function zig() {
  if (process.env.ZIG) return [process.env.ZIG];
  const python = at('build', 'zig', 'bin', 'python');
  const command = [python, '-m', 'ziglang'];
  const { stdout } = spawnSync(python, ['-m', 'ziglang', 'version'], { encoding: 'utf8' });
  if (stdout?.trim() === ZIG_VERSION) return command;
  console.log(`> installing zig ${ZIG_VERSION}`);
  run('python3', ['-m', 'venv', at('build', 'zig')]);
  run(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', `ziglang==${ZIG_VERSION}`]);
  return command;
}

/** When the last of what makes an addon was changed. */
function lastChange() {
  const names = fs.readdirSync(at('addon')).filter((name) => /\.(cc|h|json)$|^build\.cjs$/.test(name));
  const files = [__filename, ...names.map((name) => at('addon', name))];
  return Math.max(...files.map((name) => fs.statSync(name).mtimeMs));
}

function build(name, compiler) {
  const [platform, libc] = name.split('/');
  const output = at('prebuilds', platform, `vfio-user.${libc}.node`);
  if (fs.existsSync(output) && fs.statSync(output).mtimeMs > lastChange()) return;
  console.log(`> building ${path.relative(root, output)}`);
  const exported = at('build', 'exports.map');
  fs.mkdirSync(path.dirname(exported), { recursive: true });
  fs.writeFileSync(exported, `{ global: ${EXPORTS.join('; ')}; local: *; };\n`);
  // Node-API's headers from their package; libuv's, which are the same on every machine, from beside node.
  const headers = [require('node-api-headers').include_dir, nodeHeaders()];
  compile(
    [...compiler(), 'c++'],
    ['-target', TARGETS[name], `-Wl,--version-script=${exported}`],
    headers,
    output,
  );
}

try {
  const { values } = parseArgs({ options: { only: { type: 'string', multiple: true } } });
  const wanted = values.only ?? Object.keys(TARGETS);
  const unknown = wanted.filter((name) => !Object.hasOwn(TARGETS, name));
  if (unknown.length > 0)
    throw new BuildError(`--only takes ${Object.keys(TARGETS).join(', ')}, not ${unknown.join(', ')}`);
  let compiler;
  for (const name of wanted) build(name, () => (compiler ??= zig()));
} catch (error) {
  if (!(error instanceof BuildError) && error.code !== 'ERR_PARSE_ARGS_UNKNOWN_OPTION') throw error;
  console.error(`prebuild: ${error.message}`);
  process.exitCode = 1;
}
