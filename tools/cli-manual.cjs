'use strict';

/**
 * Writes docs/cli.md from the built command line.
 *
 *     npm run build:ts && node tools/cli-manual.cjs
 */
const fs = require('node:fs');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const root = path.join(__dirname, '..');
const built = (name) => import(pathToFileURL(path.join(root, 'dist', 'cli', name)).href);

async function main() {
  const [{ buildProgram }, { renderCliDocs }] = await Promise.all([
    built('program.js'),
    built('cli-docs.js'),
  ]);
  fs.writeFileSync(path.join(root, 'docs', 'cli.md'), renderCliDocs(await buildProgram()));
}

main().catch((error) => {
  console.error(`docs/cli.md was not written: ${error.message}`);
  process.exitCode = 1;
});
