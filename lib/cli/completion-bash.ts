/** Completion for bash. */
import { quoted, valueFlags, type CommandEntry, type Completion } from './completion-tree.js';

/** The script: `source <(vfio-user completion bash)`. */
export function bashCompletion(entries: readonly CommandEntry[]): string {
  return `# bash completion for vfio-user
_vfio_user() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} verb= operands=0 words= kind= i word
  # What stands before decides: the verb so far, and how many operands it has.
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case $word in
      ${valueFlags(entries).join('|')}) ((i++)) ;;
      -*) ;;
      *)
        case "\${verb:+$verb }$word" in
          ${commandPaths(entries)}) verb="\${verb:+$verb }$word" ;;
          *) ((operands++)) ;;
        esac
        ;;
    esac
  done
  case "$verb:$prev" in
${optionCases(entries)}
  esac
  if [[ -z $kind && $cur == -* ]]; then
    kind=words
    case $verb in
${entries.map(({ path, options }) => `      ${quoted(path)}) words=${quoted(options.flatMap(({ flags }) => flags).join(' '))} ;;`).join('\n')}
    esac
  elif [[ -z $kind ]]; then
    case "$verb:$operands" in
${entries.map(operandCases).join('\n')}
    esac
  fi
  case $kind in
    words) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur") ;;
    file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    *) COMPREPLY=() ;;
  esac
}
complete -F _vfio_user vfio-user
`;
}

function commandPaths(entries: readonly CommandEntry[]): string {
  const paths = entries.map(({ path }) => path).filter((path) => path !== '');
  return [...paths, 'help'].map((path) => quoted(path)).join('|');
}

function optionCases(entries: readonly CommandEntry[]): string {
  return entries
    .flatMap(({ path, options }) =>
      options.flatMap(({ flags, value }) =>
        value === undefined
          ? []
          : flags.map((flag) => `    ${quoted(`${path}:${flag}`)}) ${action(value)} ;;`),
      ),
    )
    .join('\n');
}

function operandCases({ path, commands, operands, repeats }: CommandEntry): string {
  const names = commands.map(({ name }) => name);
  const places: Completion[] = names.length > 0 ? [{ kind: 'words', words: names }] : [...operands];
  const lines = places.map((place, i) => {
    const pattern = repeats && i === places.length - 1 ? `${quoted(`${path}:`)}*` : quoted(`${path}:${i}`);
    return `      ${pattern}) ${action(place)} ;;`;
  });
  if (path === '') lines.push(`      'help:0') ${action(places[0]!)} ;;`);
  return lines.join('\n');
}

function action(completion: Completion): string {
  if (completion.kind === 'words') return `kind=words words=${quoted(completion.words.join(' '))}`;
  return `kind=${completion.kind}`;
}
