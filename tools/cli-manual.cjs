'use strict';

/**
 * Writes docs/cli.md from the built command line, or with --man its man pages into dist/man, which npm installs with the
 * package.
 *
 *     npm run build:ts && node tools/cli-manual.cjs [--man]
 */
const fs = require('node:fs');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const root = path.join(__dirname, '..');
const built = (name) => import(pathToFileURL(path.join(root, 'dist', 'cli', name)).href);

async function writeManPages() {
  const [{ buildProgram }, { renderManPages }] = await Promise.all([
    built('program.js'),
    built('cli-man.js'),
  ]);
  const directory = path.join(root, 'dist', 'man');
  fs.rmSync(directory, { recursive: true, force: true });
  fs.mkdirSync(directory, { recursive: true });
  const { version } = require('../package.json');
  for (const [name, page] of renderManPages(await buildProgram(), version))
    fs.writeFileSync(path.join(directory, `${name}.1`), page);
}

async function main() {
  if (process.argv[2] === '--man') return writeManPages();
  const [{ buildProgram }, { renderCliDocs }] = await Promise.all([
    built('program.js'),
    built('cli-docs.js'),
  ]);
  fs.writeFileSync(path.join(root, 'docs', 'cli.md'), renderCliDocs(await buildProgram()));
}

main().catch((error) => {
  console.error(`the manual was not written: ${error.message}`);
  process.exitCode = 1;
});
