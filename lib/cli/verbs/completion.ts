/** `vfio-user completion`: what shells need to complete command lines. */
import { Argument, type Command } from 'commander';
import { bashCompletion } from '../completion-bash.js';
import { fishCompletion } from '../completion-fish.js';
import { commandEntries, type CommandEntry } from '../completion-tree.js';
import { zshCompletion } from '../completion-zsh.js';
import { print } from '../output.js';

const SHELLS: Readonly<Record<string, (entries: readonly CommandEntry[]) => string>> = {
  bash: bashCompletion,
  zsh: zshCompletion,
  fish: fishCompletion,
};

const HELP = `
Prints a script that completes verbs, options, their choices, regions, and the names of files and sockets.

Examples:
  $ source <(vfio-user completion bash)                   in ~/.bashrc
  $ source <(vfio-user completion zsh)                    in ~/.zshrc, after compinit
  $ vfio-user completion fish | source                    in ~/.config/fish/config.fish`;

export function registerCompletion(program: Command): void {
  program
    .command('completion')
    .description('print a script for the completion of command lines in a shell')
    .addArgument(new Argument('<SHELL>', 'which one').choices(Object.keys(SHELLS)))
    .addHelpText('after', HELP)
    .action((shell: string) => print(SHELLS[shell]!(commandEntries(program))));
}
