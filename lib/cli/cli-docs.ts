/** docs/cli.md: every verb's help, from the program itself. */
import type { Command } from 'commander';

/** Help is wrapped at this, whatever terminal it is made on. */
const WIDTH = 110;

const INTRODUCTION = `# The command line

What \`vfio-user --help\` and \`vfio-user help VERB\` print. This file is made of them (\`node tools/cli-manual.cjs\`), and
a spec compares the two.`;

/** The manual in Markdown. The program is not to be used for anything else. */
export function renderCliDocs(program: Command): string {
  const sections = [INTRODUCTION, ...visit(program, 'vfio-user')];
  return `${sections.join('\n\n')}\n`;
}

function visit(command: Command, path: string): string[] {
  const depth = path.split(' ').length;
  const section = `${'#'.repeat(depth + 1)} ${path}\n\n\`\`\`text\n${helpOf(command)}\n\`\`\``;
  return [section, ...command.commands.flatMap((child) => visit(child, `${path} ${child.name()}`))];
}

function helpOf(command: Command): string {
  let text = '';
  const isVerb = command.parent !== null;
  command.configureOutput({
    writeOut: (chunk) => (text += chunk),
    getOutHelpWidth: () => WIDTH,
    getOutHasColors: () => false,
  });
  // Options that all verbs have are documented once.
  command.configureHelp({ showGlobalOptions: !isVerb });
  command.outputHelp();
  return text.trimEnd();
}
