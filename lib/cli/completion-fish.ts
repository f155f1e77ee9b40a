/** Completion for fish. */
import { quoted, valueFlags, type CommandEntry, type Completion } from './completion-tree.js';

/** The script: `vfio-user completion fish | source`, or a file in ~/.config/fish/completions. */
export function fishCompletion(entries: readonly CommandEntry[]): string {
  return `# fish completion for vfio-user
# Prints the verb so far, and after a colon how many operands it has.
function __vfio_user_place
    set -l verb
    set -l operands 0
    set -l skip 0
    set -l words (commandline -opc)
    set -e words[1]
    for word in $words
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case ${valueFlags(entries).map(quoted).join(' ')}
                set skip 1
            case '-*'
            case '*'
                if contains -- (string join ' ' $verb $word) ${commandPaths(entries)}
                    set -a verb $word
                else
                    set operands (math $operands + 1)
                end
        end
    end
    # In quotes a list is one word, an empty one too.
    echo "$verb:$operands"
end
function __vfio_user_verb
    test (string replace -r ':\\d+$' '' -- (__vfio_user_place)) = "$argv"
end
function __vfio_user_operand
    string match -q -- $argv[1] (__vfio_user_place)
end
complete -c vfio-user -f
${entries.flatMap((entry) => [...optionLines(entry), ...operandLines(entry)]).join('\n')}
`;
}

function commandPaths(entries: readonly CommandEntry[]): string {
  const paths = entries.map(({ path }) => path).filter((path) => path !== '');
  return [...paths, 'help'].map(quoted).join(' ');
}

function optionLines({ path, options }: CommandEntry): string[] {
  return options.map(({ flags, description, value }) => {
    const names = flags.map((flag) =>
      flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`,
    );
    const takes = value === undefined ? '' : ` -x${source(value)}`;
    return `complete -c vfio-user -n ${quoted(`__vfio_user_verb ${path}`)} ${names.join(' ')}${takes} -d ${quoted(description)}`;
  });
}

function operandLines({ path, commands, operands, repeats }: CommandEntry): string[] {
  const at = (place: string) => `complete -c vfio-user -n ${quoted(`__vfio_user_operand "${place}"`)}`;
  if (commands.length > 0) {
    const places = path === '' ? [':0', 'help:0'] : [`${path}:0`];
    return places.flatMap((place) =>
      commands.map(({ name, description }) => `${at(place)} -a ${quoted(name)} -d ${quoted(description)}`),
    );
  }
  return operands.flatMap((completion, i) => {
    if (completion.kind === 'none') return [];
    const place = repeats && i === operands.length - 1 ? `${path}:*` : `${path}:${i}`;
    return [`${at(place)}${source(completion)}`];
  });
}

function source(completion: Completion): string {
  if (completion.kind === 'words') return ` -a ${quoted(completion.words.join(' '))}`;
  return completion.kind === 'file' ? ` -a ${quoted('(__fish_complete_path (commandline -ct))')}` : '';
}
