/**
 * What the package exports: functions and the public methods of classes, read from the sources that the exports of
 * package.json are built from.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import ts from 'typescript';

const ROOT = join(import.meta.dirname, '..', '..');

/** A function, a constructor (`new EduDevice`), or a method (`Region.read`). */
export interface PublicFunction {
  readonly name: string;
  /** Parameters by name; one that is taken apart has the name of its type. */
  readonly parameters: readonly string[];
  readonly returnsPromise: boolean;
}

/** All of them, by name. */
export function publicFunctions(): Map<string, PublicFunction> {
  const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    exports: Record<string, string | { default: string }>;
  };
  const found = new Map<string, PublicFunction>();
  for (const entry of Object.values(exports)) {
    if (typeof entry === 'string') continue;
    const source = entry.default.replace('./dist/', 'lib/').replace(/\.js$/, '.ts');
    for (const one of exported(join(ROOT, source), undefined).flatMap(functionsOf)) found.set(one.name, one);
  }
  return found;
}

const parsed = new Map<string, ts.SourceFile>();

function parse(path: string): ts.SourceFile {
  let file = parsed.get(path);
  if (file === undefined) {
    file = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.ES2022, true);
    parsed.set(path, file);
  }
  return file;
}

type Declaration = ts.FunctionDeclaration | ts.ClassDeclaration;

/** What a file exports, itself or from others; of those `names` where some are wanted. */
function exported(path: string, names: readonly string[] | undefined): Declaration[] {
  const declarations: Declaration[] = [];
  for (const statement of parse(path).statements) {
    if (ts.isExportDeclaration(statement) && statement.moduleSpecifier !== undefined) {
      const from = (statement.moduleSpecifier as ts.StringLiteral).text.replace(/\.js$/, '.ts');
      const clause = statement.exportClause;
      const listed =
        clause !== undefined && ts.isNamedExports(clause)
          ? clause.elements.filter((element) => !element.isTypeOnly).map((element) => element.name.text)
          : names;
      const wanted = names === undefined ? listed : listed?.filter((name) => names.includes(name));
      if (statement.isTypeOnly || wanted?.length === 0) continue;
      declarations.push(...exported(join(dirname(path), from), wanted));
      continue;
    }
    if (!ts.isFunctionDeclaration(statement) && !ts.isClassDeclaration(statement)) continue;
    const isExported = statement.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword);
    if (isExported !== true || (names !== undefined && !names.includes(statement.name!.text))) continue;
    declarations.push(statement);
  }
  return declarations;
}

function functionsOf(declaration: Declaration): PublicFunction[] {
  if (ts.isFunctionDeclaration(declaration)) return [describe(declaration.name!.text, declaration)];
  const className = declaration.name!.text;
  const functions: PublicFunction[] = [];
  for (const member of declaration.members) {
    if (!ts.isMethodDeclaration(member) && !ts.isConstructorDeclaration(member)) continue;
    if (isHidden(member)) continue;
    const name = ts.isConstructorDeclaration(member)
      ? `new ${className}`
      : `${className}.${member.name.getText()}`;
    functions.push(describe(name, member));
  }
  return functions;
}

function isHidden(member: ts.MethodDeclaration | ts.ConstructorDeclaration): boolean {
  const isPrivate = member.modifiers?.some(
    ({ kind }) => kind === ts.SyntaxKind.PrivateKeyword || kind === ts.SyntaxKind.ProtectedKeyword,
  );
  const isInternal = ts.getJSDocTags(member).some(({ tagName }) => tagName.text === 'internal');
  return (
    isPrivate === true || isInternal || (member.name !== undefined && ts.isPrivateIdentifier(member.name))
  );
}

function describe(
  name: string,
  { parameters, type }: ts.FunctionDeclaration | ts.MethodDeclaration | ts.ConstructorDeclaration,
): PublicFunction {
  return {
    name,
    parameters: parameters.map(({ name: own, type: kind }) =>
      ts.isIdentifier(own) ? own.text : `{${kind?.getText() ?? ''}}`,
    ),
    returnsPromise: type?.getText().startsWith('Promise<') === true,
  };
}
