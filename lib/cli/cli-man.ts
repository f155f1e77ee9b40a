/** Man pages, from the program itself: vfio-user(1), and a page for each verb, with the verbs below it. */
import type { Command } from 'commander';

/** The pages of section 1, by name: `vfio-user`, `vfio-user-read`, … */
export function renderManPages(program: Command, version: string): Map<string, string> {
  const pages = new Map<string, string>();
  const see = program.commands.map((verb) => `vfio-user-${verb.name()}`);
  for (const command of [program, ...program.commands]) {
    const isProgram = command === program;
    const name = isProgram ? 'vfio-user' : `vfio-user-${command.name()}`;
    const path = isProgram ? 'vfio-user' : `vfio-user ${command.name()}`;
    const others = isProgram ? see : ['vfio-user'];
    pages.set(
      name,
      [
        `.TH ${quoted(name.toUpperCase())} 1 "" ${quoted(`vfio-user ${version}`)} "User Commands"`,
        '.nh',
        '.SH NAME',
        `${text(name)} \\- ${text(command.description())}`,
        ...sectionOf(command, path, isProgram),
        '.SH SEE ALSO',
        `${others.map((other) => `.BR ${text(other)} (1)`).join(' ,\n')}`,
        '',
      ].join('\n'),
    );
  }
  return pages;
}

function sectionOf(command: Command, path: string, isProgram: boolean): string[] {
  const lines = ['.SH SYNOPSIS', `.B ${text(path)}`, text(command.usage()), ...optionsOf(command)];
  lines.push('.SH DESCRIPTION', ...preformatted(afterHelpOf(command)));
  if (isProgram) return [...lines, '.SH VERBS', ...command.commands.flatMap(listed)];
  return [...lines, ...command.commands.flatMap((child) => below(child, `${path} ${child.name()}`))];
}

function listed(verb: Command): string[] {
  return ['.TP', `.B ${text(verb.name())}`, text(verb.description())];
}

function below(command: Command, path: string): string[] {
  return [
    `.SH ${quoted(path.toUpperCase())}`,
    text(command.description()),
    '.PP',
    `.B ${text(path)}`,
    text(command.usage()),
    ...optionsOf(command, '.PP'),
    '.PP',
    ...preformatted(afterHelpOf(command)),
    ...command.commands.flatMap((child) => below(child, `${path} ${child.name()}`)),
  ];
}

function optionsOf(command: Command, heading = '.SH OPTIONS'): string[] {
  const help = command.createHelp();
  const entries = [
    ...help.visibleArguments(command).map((one) => [help.argumentTerm(one), help.argumentDescription(one)]),
    ...help.visibleOptions(command).map((one) => [help.optionTerm(one), help.optionDescription(one)]),
  ] as [string, string][];
  return [
    heading,
    ...entries.flatMap(([term, description]) => ['.TP', `.B ${text(term)}`, text(description)]),
  ];
}

/** What stands behind the options: explanations and examples, as they are. */
function afterHelpOf(command: Command): string {
  let all = '';
  command.configureOutput({
    writeOut: (chunk) => (all += chunk),
    getOutHelpWidth: () => 80,
    getOutHasColors: () => false,
  });
  command.configureHelp({ showGlobalOptions: false });
  command.outputHelp();
  return all.slice(command.helpInformation().length).trim();
}

function preformatted(block: string): string[] {
  return block === '' ? [] : ['.nf', ...block.split('\n').map(text), '.fi'];
}

/** What troff would take for something else: a hyphen, an accent, or typographic quotes. */
const ESCAPES: Readonly<Record<string, string>> = {
  '\\': '\\e',
  '-': '\\-',
  "'": '\\(aq',
  '`': '\\(ga',
  '^': '\\(ha',
  '~': '\\(ti',
};

/** As it is, to be copied from the page, whatever it begins with: a dot would be a request. */
function text(line: string): string {
  const escaped = line.replaceAll(/[\\'`^~-]|[^ -~]/gu, (one) => ESCAPES[one] ?? codePoint(one));
  return escaped.startsWith('.') ? `\\&${escaped}` : escaped;
}

/** A character beyond ASCII. */
function codePoint(character: string): string {
  return `\\[u${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}]`;
}

function quoted(words: string): string {
  return `"${text(words).replaceAll('"', '\\(dq')}"`;
}
