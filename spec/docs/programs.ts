/** The programs in the documents: each block of JavaScript or TypeScript is one. */
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface Program {
  /** `docs/dma.md:12`. */
  readonly name: string;
  /** JavaScript. */
  readonly source: string;
  /** What it prints, as the comments behind its console.log say; undefined where none does. */
  readonly output: string | undefined;
}

const DOCUMENTS = [
  'README.md',
  'SECURITY.md',
  ...['docs', 'docs/doctor'].flatMap((directory) =>
    readdirSync(path.join(ROOT, directory))
      .filter((name) => name.endsWith('.md'))
      .map((name) => `${directory}/${name}`),
  ),
];

export function programs(): Program[] {
  return DOCUMENTS.flatMap((name) => programsOf(name, readFileSync(path.join(ROOT, name), 'utf8')));
}

function programsOf(document: string, text: string): Program[] {
  return [...text.matchAll(/^```(js|ts)\n([^]*?)^```/gm)].map((match) => {
    const [, language, source] = match as unknown as [string, string, string];
    const line = text.slice(0, match.index).split('\n').length;
    return {
      name: `${document}:${line}`,
      source: language === 'ts' ? javascript(source) : source,
      output: outputOf(source),
    };
  });
}

/** The comments behind console.log, in the order in which they stand. */
function outputOf(source: string): string | undefined {
  const lines = [...source.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, text]) => text);
  return lines.length === 0 ? undefined : `${lines.join('\n')}\n`;
}

function javascript(source: string): string {
  const { ES2022: target } = ts.ScriptTarget;
  return ts.transpileModule(source, { compilerOptions: { target, module: ts.ModuleKind.ESNext } }).outputText;
}
