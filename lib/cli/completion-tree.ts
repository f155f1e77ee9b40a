/** What a shell has to know of the command line, taken from commander's own tree: it cannot go stale. */
import type { Argument, Command, Option } from 'commander';
import { REGION_NAMES } from './region-names.js';
import { CAPABILITY_NAMES, REGISTERS } from './setpci-names.js';

/** What stands in a place: one of these words, a file's name (a socket is one), or nothing that can be known. */
export type Completion = { kind: 'words'; words: readonly string[] } | { kind: 'file' } | { kind: 'none' };

export interface OptionEntry {
  /** `--json`, `-h`. */
  readonly flags: readonly string[];
  readonly description: string;
  /** What follows it; undefined for a flag. */
  readonly value: Completion | undefined;
}

export interface CommandEntry {
  /** `irq watch`; empty for the program. */
  readonly path: string;
  readonly description: string;
  /** The program's own, too. */
  readonly options: readonly OptionEntry[];
  readonly commands: readonly { name: string; description: string }[];
  readonly operands: readonly Completion[];
  /** The last operand may be repeated. */
  readonly repeats: boolean;
}

/** By what stands between the angle brackets of a usage line. */
const FILES = ['SOCKET', 'FILE', 'FILE_A', 'FILE_B', 'PATH', 'ADDRESS'];
const REGISTER_NAMES = [...REGISTERS, ...CAPABILITY_NAMES].map(({ name }) => name);

/** The program and all commands below it. */
export function commandEntries(program: Command): CommandEntry[] {
  const globals = optionEntries(program);
  const visit = (command: Command, path: string): CommandEntry[] => {
    const isProgram = command === program;
    const { commands } = command;
    const entry: CommandEntry = {
      path,
      description: command.description(),
      options: isProgram ? globals : [...optionEntries(command), ...globals.filter(isInherited)],
      commands: [
        ...commands.map((child) => ({ name: child.name(), description: child.description() })),
        ...(isProgram ? [{ name: 'help', description: 'print help for a verb' }] : []),
      ],
      operands: command.registeredArguments.map(operand),
      repeats: command.registeredArguments.at(-1)?.variadic ?? false,
    };
    return [entry, ...commands.flatMap((child) => visit(child, `${path} ${child.name()}`.trim()))];
  };
  return visit(program, '');
}

/** Every command has a --help of its own; --version is the program's alone. */
function isInherited({ flags }: OptionEntry): boolean {
  return !flags.includes('--help') && !flags.includes('--version');
}

function optionEntries(command: Command): OptionEntry[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .map((option) => ({
      flags: [option.short, option.long].filter((flag) => flag !== undefined),
      description: option.description,
      value: optionValue(option),
    }));
}

function optionValue(option: Option): Completion | undefined {
  if (!option.required && !option.optional) return undefined;
  const placeholder = /[<[](?<name>[^>\].]+)/.exec(option.flags)?.groups?.['name'] ?? '';
  return completionOf(placeholder, option.argChoices);
}

function operand(argument: Argument): Completion {
  return completionOf(argument.name(), argument.argChoices);
}

function completionOf(name: string, choices: readonly string[] | undefined): Completion {
  if (choices !== undefined) return { kind: 'words', words: choices };
  const place = name.toUpperCase();
  if (place === 'REGION') return { kind: 'words', words: REGION_NAMES };
  if (place === 'REGISTER') return { kind: 'words', words: REGISTER_NAMES };
  return FILES.includes(place) ? { kind: 'file' } : { kind: 'none' };
}

/** All flags that take a value. */
export function valueFlags(entries: readonly CommandEntry[]): string[] {
  const flags = entries.flatMap(({ options }) =>
    options.filter(({ value }) => value !== undefined).flatMap((option) => option.flags),
  );
  return [...new Set(flags)].sort();
}

/** In single quotes, as all three shells read them (fish takes a backslash for one, too). */
export function quoted(text: string): string {
  return `'${text.replaceAll('\\', '').replaceAll("'", `'"'"'`)}'`;
}
