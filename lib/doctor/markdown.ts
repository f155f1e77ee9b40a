/** A report as Markdown: tables first, and the bytes that show what was found behind them. */
import { pciId } from '../pci/index.js';
import { VERDICTS, type DoctorReport, type Evidence, type RuleResult } from './report.js';

/** Bytes of a message in a line. */
const SHOWN_BYTES = 48;
/** A server's own text could be anything. */
// eslint-disable-next-line no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** A report as Markdown: quirks, rules by verdict, traits, and the bytes behind what is broken or unclear. */
export function toMarkdown(report: DoctorReport): string {
  const parts = [
    `# Doctor's report: ${text(report.server)}`,
    heading(report),
    section('Quirks', quirks(report)),
    section('Broken', rulesOf(report, 'broken')),
    section('Unclear', rulesOf(report, 'unclear')),
    section('Kept', rulesOf(report, 'kept')),
    section(
      'Not applicable, not run',
      [rulesOf(report, 'not applicable'), rulesOf(report, 'not run')].filter(Boolean).join('\n'),
    ),
    section('What the specification leaves open', traits(report)),
    section('The bytes', evidence(report)),
  ];
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`;
}

function section(title: string, body: string): string {
  return body === '' ? '' : `## ${title}\n\n${body}`;
}

function heading({ identity, recognised, summary, readOnly, incomplete }: DoctorReport): string {
  const { vendorId, deviceId, version, capabilities, regions, irqs } = identity;
  const device = vendorId === null || deviceId === null ? 'unknown' : pciId(vendorId, deviceId);
  const sizes = regions
    .filter(({ size }) => size > 0)
    .map(({ index, size, flags }) => `${index}: ${size} (${flags.join(' ')})`);
  const counts = irqs
    .filter(({ count }) => count > 0)
    .map(({ index, count, flags }) => `${index}: ${count} (${flags.join(' ')})`);
  return [
    `- Looks like **${recognised.name}** (confidence ${recognised.confidence}): ${recognised.signs.join('; ') || 'no sign'}.`,
    `- Device ${device}, protocol ${version ?? 'unknown'}, capabilities \`${text(capabilities ?? 'none').replaceAll('`', "'")}\`.`,
    `- Regions: ${sizes.join(', ') || 'none'}. Interrupts: ${counts.join(', ') || 'none'}.`,
    `- ${VERDICTS.map((verdict) => `${summary[verdict]} ${verdict}`).join(', ')}${readOnly ? ' (read-only)' : ''}.`,
    ...(incomplete === null ? [] : [`- Incomplete: ${text(incomplete)}.`]),
  ].join('\n');
}

function quirks({ quirks: found, quirkReasons }: DoctorReport): string {
  if (Object.keys(found).length === 0) return 'None: the library works with this server as it is.';
  const why = Object.entries(quirkReasons).map(([name, reason]) => `- \`${name}\`: ${reason}.`);
  return `\`\`\`json\n${JSON.stringify(found, null, 2)}\n\`\`\`\n\n${why.join('\n')}`;
}

function rulesOf({ rules }: DoctorReport, verdict: RuleResult['verdict']): string {
  const found = rules.filter((one) => one.verdict === verdict);
  if (found.length === 0) return '';
  const rows = found.map(({ id, rule, section: where, detail }) => [
    `\`${id}\``,
    rule,
    where,
    verdict.startsWith('not') ? `${verdict}: ${detail}` : detail,
  ]);
  return table(['rule', 'demands', 'section', 'seen'], rows);
}

function traits({ traits: found }: DoctorReport): string {
  if (found.length === 0) return '';
  return table(
    ['id', 'about', 'this server'],
    found.map(({ id, title, value }) => [`\`${id}\``, title, value]),
  );
}

/** Of what is broken or unclear: what is kept needs no proof here; JSON has it. */
function evidence({ rules }: DoctorReport): string {
  return rules
    .filter(
      ({ verdict, evidence: steps }) => (verdict === 'broken' || verdict === 'unclear') && steps.length > 0,
    )
    .map(({ id, evidence: steps }) => `\`${id}\`\n\n\`\`\`\n${steps.map(step).join('\n')}\n\`\`\``)
    .join('\n\n');
}

/** `> 12 34 …` for what was sent, `<` for what came, `=` for what happened. */
function step({ direction, hex, size, fds, note }: Evidence): string {
  if (direction === 'event') return `= ${text(note ?? '')}`;
  const shown = hex.slice(0, 2 * SHOWN_BYTES).replaceAll(/(.{8})(?!$)/g, '$1 ');
  const more = size > Math.min(SHOWN_BYTES, hex.length / 2) ? ` … ${size} bytes` : '';
  return `${direction === 'sent' ? '>' : '<'} ${shown}${more}${fds === 0 ? '' : ` + ${fds} fd`}`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((one) => text(one).replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function text(value: string): string {
  return value.replaceAll(UNPRINTABLE, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
