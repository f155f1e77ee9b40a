'use strict';

/**
 * Compares the public API with the reports in api/, one for each entry of package.json's exports; `--update` rewrites
 * them. A change of the API is then seen in review. Undocumented exports, types that a public signature names without
 * being exported, and doc comments that cannot be read are counted; with `--strict` they are listed, and errors.
 *
 *     npm run check:api        (after a build)
 *     npm run api              (after a change that was meant)
 */
const fs = require('node:fs');
const path = require('node:path');
const { Extractor, ExtractorConfig, ExtractorLogLevel } = require('@microsoft/api-extractor');

const root = path.join(__dirname, '..');
const packageJson = path.join(root, 'package.json');
const reports = path.join(root, 'api');
const update = process.argv.includes('--update');
const strict = process.argv.includes('--strict');

const none = { logLevel: 'none' };
const error = { logLevel: 'error' };

function configFor(name, types) {
  return ExtractorConfig.prepare({
    configObjectFullPath: undefined,
    packageJsonFullPath: packageJson,
    configObject: {
      projectFolder: root,
      mainEntryPointFilePath: path.join(root, types),
      compiler: {
        overrideTsconfig: {
          extends: path.join(root, 'tsconfig.json'),
          compilerOptions: { rootDir: root, noEmit: true, incremental: false },
          files: [path.join(root, types)],
          include: [],
        },
      },
      apiReport: {
        enabled: true,
        reportFolder: reports,
        reportTempFolder: path.join(root, 'build', 'api'),
        reportFileName: name,
        includeForgottenExports: false,
      },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      newlineKind: 'lf',
      messages: {
        compilerMessageReporting: { default: error },
        extractorMessageReporting: {
          default: error,
          // Every export is public; `@internal` members are stripped.
          'ae-missing-release-tag': none,
        },
        tsdocMessageReporting: { default: error },
      },
    },
  });
}

function nameOf(entry) {
  return entry === '.' ? MAIN : entry.slice('./'.length).replaceAll('/', '-');
}

/** Whether a source file is an entry's: what another one exports of it is checked there, and what it names in turn. */
function belongsTo(name, file) {
  const [, folder] = path.relative(root, file).split(path.sep);
  return names.has(folder) ? folder === name : name === MAIN;
}

/** Whether the entry's report is what it was; and what is wrong with its documentation. */
function check(name, types) {
  const messages = [];
  const result = Extractor.invoke(configFor(name, types), {
    localBuild: update,
    messageCallback: (message) => {
      message.handled = true;
      // Where the report differs is said below, in one line.
      if (message.messageId.startsWith('console-')) return;
      if (message.sourceFilePath !== undefined && !belongsTo(name, message.sourceFilePath)) return;
      if (message.logLevel === ExtractorLogLevel.Error || message.logLevel === ExtractorLogLevel.Warning) {
        messages.push(message.formatMessageWithLocation(root));
      }
    },
  });
  if (result.apiReportChanged && !update) {
    console.error(`api/${name}.api.md: the public API has changed; if that was meant, run: npm run api`);
  }
  return { isSame: !result.apiReportChanged || update, messages };
}

/** The name of entry `.`. */
const MAIN = 'vfio-user';
const { exports: entries } = JSON.parse(fs.readFileSync(packageJson, 'utf8'));
const names = new Set(Object.keys(entries).map(nameOf));
fs.mkdirSync(reports, { recursive: true });
const same = [];
const said = new Set();
for (const [entry, { types }] of Object.entries(entries)) {
  if (types === undefined) continue;
  const name = nameOf(entry);
  if (!fs.existsSync(path.join(root, types))) {
    console.error(`${types} is missing: run npm run build:ts first`);
    process.exit(1);
  }
  const { isSame, messages } = check(name, types);
  same.push(isSame);
  for (const message of messages) said.add(message);
}
if (strict) for (const message of said) console.error(message);
else if (said.size > 0)
  console.error(`${said.size} places lack documentation or an export; --strict lists them`);
if (same.includes(false) || (strict && said.size > 0)) process.exitCode = 1;
