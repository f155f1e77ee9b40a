/** Completion for zsh. */
import {
  quoted,
  valueFlags,
  type CommandEntry,
  type Completion,
  type OptionEntry,
} from './completion-tree.js';

/** The script: a file `_vfio-user` in a directory of `$fpath`, or `source <(vfio-user completion zsh)`. */
export function zshCompletion(entries: readonly CommandEntry[]): string {
  return `#compdef vfio-user
# zsh completion for vfio-user
_vfio_user() {
  local verb= word prev=\${words[CURRENT-1]} cur=\${words[CURRENT]}
  integer i operands=0
  # What stands before decides: the verb so far, and how many operands it has.
  for ((i = 2; i < CURRENT; i++)); do
    word=\${words[i]}
    case $word in
      (${valueFlags(entries).join('|')}) ((i++)) ;;
      (-*) ;;
      (*)
        case "\${verb:+$verb }$word" in
          (${commandPaths(entries)}) verb="\${verb:+$verb }$word" ;;
          (*) ((operands++)) ;;
        esac
        ;;
    esac
  done
  local -a options commands
  case "$verb:$prev" in
${entries.flatMap(optionCases).join('\n')}
  esac
  if [[ $cur == -* ]]; then
    case $verb in
${entries.map(({ path, options }) => `      (${quoted(path)}) options=(${options.flatMap(described).join(' ')}) ;;`).join('\n')}
    esac
    _describe -o option options
    return
  fi
  case "$verb:$operands" in
${entries.flatMap(operandCases).join('\n')}
  esac
}
if [[ $funcstack[1] == _vfio-user ]]; then
  _vfio_user "$@"
else
  compdef _vfio_user vfio-user
fi
`;
}

function commandPaths(entries: readonly CommandEntry[]): string {
  const paths = entries.map(({ path }) => path).filter((path) => path !== '');
  return [...paths, 'help'].map((path) => quoted(path)).join('|');
}

function optionCases({ path, options }: CommandEntry): string[] {
  return options.flatMap(({ flags, value }) =>
    value === undefined
      ? []
      : flags.map((flag) => `    (${quoted(`${path}:${flag}`)}) ${action(value)}; return ;;`),
  );
}

function operandCases({ path, commands, operands, repeats }: CommandEntry): string[] {
  if (commands.length > 0) {
    const list = commands.map(({ name, description }) => item(name, description)).join(' ');
    const action = `commands=(${list}); _describe verb commands ;;`;
    const lines = [`    (${quoted(`${path}:0`)}) ${action}`];
    return path === '' ? [...lines, `    ('help:0') ${action}`] : lines;
  }
  return operands.map((place, i) => {
    const isLast = repeats && i === operands.length - 1;
    const pattern = isLast ? `${quoted(`${path}:`)}*` : quoted(`${path}:${i}`);
    return `    (${pattern}) ${action(place)} ;;`;
  });
}

function described({ flags, description }: OptionEntry): string[] {
  return flags.map((flag) => item(flag, description));
}

/** `name:description`: names have no colons. */
function item(name: string, description: string): string {
  return quoted(`${name}:${description}`);
}

function action(completion: Completion): string {
  if (completion.kind === 'words') return `compadd -- ${completion.words.map(quoted).join(' ')}`;
  return completion.kind === 'file' ? '_files' : ':';
}
