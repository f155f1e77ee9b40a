import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import js from '@eslint/js';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

/** What a driver does not know: all below lib/index.ts but words, and pci. */
const NOT_PUBLIC = [
  'errors',
  'native',
  'protocol',
  'transport',
  'trace',
  'proxy',
  'emulator',
  'vfio',
  'connection',
  'device',
  'doctor',
];

/**
 * The layers of lib/, lowest first: a file imports only from layers that stand before its own.
 * `not` names earlier layers that this one must not know all the same. A layer is a folder, or one file.
 */
const LAYERS = [
  { name: 'system-numbers' },
  { name: 'fields' },
  { name: 'options' },
  { name: 'fifo' },
  { name: 'turn-share' },
  { name: 'adaptive-spin' },
  { name: 'cloning' },
  { name: 'brand' },
  { name: 'open-metrics' },
  { name: 'errors' },
  { name: 'process-limits' },
  { name: 'admission-queue' },
  { name: 'native' },
  { name: 'acceptor' },
  { name: 'files', not: ['native'] },
  // What a device's registers are, as data.
  { name: 'register-map', not: ['native'] },
  { name: 'protocol', not: ['native'] },
  { name: 'pci', not: ['native', 'protocol'] },
  { name: 'transport', not: ['pci'] },
  // What bytes mean to people: it stands here so that a device can hand its traffic to it.
  { name: 'trace', not: ['pci'] },
  // What may go wrong on purpose, for those between a client and a server, and for those that are one.
  { name: 'faults', not: ['native', 'pci', 'transport', 'trace'] },
  // Between a client and a server: it passes on, and is neither.
  { name: 'proxy', not: ['pci'] },
  // The other side: it must not lean on the client that it is there to test. It stands here so that a client can have a
  // device in its own process.
  { name: 'emulator', not: ['trace', 'proxy'] },
  // Hardware as a device model.
  { name: 'vfio', not: ['trace', 'proxy'] },
  { name: 'connection', not: ['pci', 'trace', 'proxy', 'emulator', 'vfio'] },
  { name: 'device', not: ['proxy'] },
  { name: 'index' },
  // Names on the public API; of what is below, the words of waiting.
  { name: 'registers', not: ['native', 'protocol', 'pci', 'transport', 'trace', 'proxy', 'device'] },
  // It speaks raw messages: it must send what the library would not.
  { name: 'doctor', not: ['trace', 'proxy', 'emulator', 'vfio', 'connection', 'device'] },
  // Queues of commands, for drivers on the public API, and those drivers.
  { name: 'commands', not: [...NOT_PUBLIC, 'pci'] },
  { name: 'nvme', not: NOT_PUBLIC },
  { name: 'virtio', not: [...NOT_PUBLIC, 'nvme'] },
  // A recording as a server, on the emulator's means of sending.
  {
    name: 'replay',
    not: ['pci', 'proxy', 'connection', 'device', 'index', 'doctor', 'commands', 'nvme', 'virtio'],
  },
  // Rigs for tests, on all of the public entries.
  {
    name: 'testing',
    not: [
      ...['native', 'protocol', 'pci', 'transport', 'connection', 'device', 'doctor'],
      ...['commands', 'nvme', 'virtio', 'replay'],
    ],
  },
  { name: 'cli' },
];

/** What outsiders may import: the entries of package.json's exports, as the sources that they are built from. */
const PUBLIC_ENTRIES = Object.values(createRequire(import.meta.url)('./package.json').exports)
  .map((entry) => entry.default)
  .filter((file) => file !== undefined)
  .map((file) => file.replace('./dist/', ''));

/** Forbids imports and re-exports whose specifier matches, `import()` among them; and `syntax` besides. */
function forbid(pattern, message, ...syntax) {
  const selector = `ImportExpression[source.value=/${pattern.replaceAll('/', '\\x2f')}/]`;
  return {
    'no-restricted-imports': ['error', { patterns: [{ regex: pattern, message }] }],
    'no-restricted-syntax': ['error', { selector, message }, ...syntax],
  };
}

/** Layers that encode what a peer or a device reads. */
const ENCODING_LAYERS = ['protocol', 'pci', 'connection', 'device'];

/** `Buffer.writeUInt32LE(1.5)` writes 1, and of NaN it makes 0. */
const UNCHECKED_WRITES = {
  selector:
    'CallExpression > MemberExpression[property.name=/^write(Big)?U?Int\\w*[LB]E$|^write(Float|Double)/]',
  message: 'Write fields by the functions of protocol/bytes.ts, which refuse what a field cannot hold.',
};

/** The `globals` of a block in which these names exist. */
function readonly(names) {
  return Object.fromEntries(names.map((name) => [name, 'readonly']));
}

/** The block for one layer. A layer that is a file says './x.js' of its neighbours, a folder's files '../x.js'. */
function layerBlock(layer, index) {
  const isFile = existsSync(new URL(`lib/${layer.name}.ts`, import.meta.url));
  // index.ts gathers what is public; only the command line stands above it.
  const later = layer.name === 'index' ? ['cli'] : LAYERS.slice(index + 1).map(({ name }) => name);
  const forbidden = [...(layer.not ?? []), ...later];
  const outside = '(?:\\.\\./)+(?:spec|bench|examples|tools)/';
  const layers = `${isFile ? '\\./' : '(?:\\.\\./)+'}(?:${forbidden.join('|')})(?:/|\\.js$)`;
  return {
    files: [isFile ? `lib/${layer.name}.ts` : `lib/${layer.name}/**/*.ts`],
    rules: forbid(
      forbidden.length === 0 ? `^${outside}` : `^(?:${outside}|${layers})`,
      `lib/${layer.name} must not import this: see the layers in DESIGN.md.`,
      ...(ENCODING_LAYERS.includes(layer.name) ? [UNCHECKED_WRITES] : []),
    ),
  };
}

export default defineConfig(
  { ignores: ['node_modules/', 'dist/', 'build/', 'prebuilds/', 'coverage/'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      // `async` says that a method rejects rather than throws, whether it awaits or not.
      '@typescript-eslint/require-await': 'off',
      // An aborted call ends with its signal's reason, which may be anything.
      '@typescript-eslint/only-throw-error': 'off',
      '@typescript-eslint/prefer-promise-reject-errors': 'off',
    },
  },
  {
    files: ['spec/**/*.ts'],
    rules: {
      // jest's matchers (expect.any, expect.objectContaining) are typed any.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/unbound-method': 'off',
    },
  },
  {
    files: ['**/*.js', '**/*.cjs', '**/*.mjs'],
    languageOptions: { globals: readonly(Object.getOwnPropertyNames(globalThis)) },
    rules: { 'no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }] },
  },
  {
    files: ['**/*.cjs'],
    languageOptions: { sourceType: 'commonjs', globals: readonly(['__dirname', '__filename']) },
  },
  ...LAYERS.map(layerBlock),
  {
    files: ['examples/**/*.ts', 'bench/**/*.ts'],
    rules: forbid(
      `^(?:\\.\\./)+lib/(?!(?:${PUBLIC_ENTRIES.map((file) => file.replaceAll('.', '\\.')).join('|')})$)`,
      'Examples and benchmarks use the public entries only, as package.json exports them.',
    ),
  },
);
