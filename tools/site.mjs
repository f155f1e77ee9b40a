/**
 * Makes the API site in build/site: every entry of package.json's exports, and the documents. A reference that
 * leads nowhere, in a doc comment or on a page, is an error.
 *
 *     npm run docs
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { Application, Converter, LogLevel } from 'typedoc';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');
const site = path.join(root, 'build', 'site');

/** The documents beside the README, as the site's navigation groups them. */
const DOCUMENTS = {
  Guides: [
    'install',
    'connecting',
    'registers',
    'registers-by-name',
    'interrupts',
    'dma',
    'nvme',
    'virtio',
    'migration',
    'remote-devices',
    'rpc',
    'silicon',
    'observability',
    'performance',
  ],
  Testing: ['writing-a-device', 'rtl', 'testing-in-ci', 'replay', 'proxy', 'servers'],
  'Command line': ['command-line', 'cli', 'inspector', 'doctor/README'],
  Reference: ['timeouts', 'troubleshooting', 'protocol-support', 'benchmarks', 'reliability'],
  Project: ['../SECURITY', '../DESIGN', '../CONTRIBUTING', '../CHANGELOG'],
};

const { exports } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
/** Entry source → the name that programs import it by. */
const entries = new Map(
  Object.entries(exports)
    .filter(([, { types }]) => types !== undefined)
    .map(([name, { types }]) => [
      types.replace('./dist/', 'lib/').replace('.d.ts', '.ts'),
      path.posix.join('vfio-user', name),
    ]),
);

/** File of a document → its group. */
const groups = new Map(
  Object.entries(DOCUMENTS).flatMap(([group, names]) =>
    names.map((name) => [path.posix.join('docs', `${name}.md`), group]),
  ),
);
for (const name of readdirSync(path.join(root, 'docs')).filter((file) => file.endsWith('.md')))
  if (!groups.has(`docs/${name}`)) throw new Error(`tools/site.mjs: docs/${name} has no group`);

const app = await Application.bootstrap({
  name: 'vfio-user',
  tsconfig: path.join(root, 'tsconfig.build.json'),
  entryPoints: [...entries.keys()],
  projectDocuments: [...groups.keys(), 'docs/doctor/{libvfio-user,qemu,rust-vmm}*.md'],
  readme: 'README.md',
  out: site,
  customCss: 'tools/site.css',
  disableSources: true,
  excludeInternal: true,
  excludePrivate: true,
  includeVersion: true,
  hideGenerator: true,
  cacheBust: false,
  groupOrder: ['Modules', ...Object.keys(DOCUMENTS), '*'],
  navigation: { includeGroups: true },
  cleanOutputDir: true,
  highlightLanguages: ['typescript', 'javascript', 'json', 'console', 'bash', 'yaml', 'c', 'python'],
  validation: {
    notExported: true,
    invalidLink: true,
    invalidPath: true,
    rewrittenLink: true,
    notDocumented: false,
  },
  // Of Node's own texts, which a Readable of ours inherits.
  externalSymbolLinkMappings: { '@types/node': { 'Stream.Readable._read': '#' } },
  treatWarningsAsErrors: true,
  treatValidationWarningsAsErrors: true,
  logLevel: LogLevel.Warn,
});

/** A block of code that names no language is not TypeScript. */
function plainBlocks(parts) {
  for (const part of parts ?? []) part.text = part.text.replaceAll(/^```\n([^]*?^```)/gm, '```text\n$1');
}

app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
  const sourceOf = (reflection) => path.relative(root, app.files.getReflectionPath(reflection));
  for (const module of project.children ?? []) module.name = entries.get(sourceOf(module)) ?? module.name;
  for (const document of project.documents ?? []) {
    const file = sourceOf(document);
    document.name = /^# (.*)$/m.exec(readFileSync(path.join(root, file), 'utf8'))[1];
    document.frontmatter.group = groups.get(file) ?? 'Command line';
    plainBlocks(document.content);
  }
  plainBlocks(project.readme);
});

/** Links of the site's pages to files and headings that are not there. */
function brokenLinks() {
  const pages = new Map(
    readdirSync(site, { recursive: true })
      .filter((file) => /\.(html|svg)$/.test(file))
      .map((file) => [file, readFileSync(path.join(site, file), 'utf8')]),
  );
  const ids = new Map(
    [...pages].map(([file, html]) => [
      file,
      new Set([...html.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id)),
    ]),
  );
  const broken = new Set();
  for (const [page, html] of pages) {
    for (const [, link] of html.matchAll(/ (?:href|src)="(?!\w+:)([^"]*)"/g)) {
      const [file, id] = decodeURI(link.replaceAll('&amp;', '&')).split('#');
      const target = file === '' ? page : path.join(path.dirname(page), file);
      if (!existsSync(path.join(site, target)) || (id && !ids.get(target)?.has(id)))
        broken.add(`${page}: ${link}`);
    }
  }
  return [...broken];
}

const project = await app.convert();
if (project === undefined) process.exit(1);
app.validate(project);
await app.generateOutputs(project);
const broken = brokenLinks();
for (const link of broken) console.error(`broken link in ${link}`);
if (app.logger.hasErrors() || app.logger.hasWarnings() || broken.length > 0) process.exit(1);
console.log(
  `${path.relative('', path.join(site, 'index.html'))}: ${entries.size} entries, ${groups.size} documents`,
);
