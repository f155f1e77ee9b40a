/** A diagnosis in words: what `doctor` prints. */
import type { DoctorReport, RuleResult, Verdict } from '../doctor/index.js';
import { pciId } from '../pci/index.js';
import { printable } from './errors.js';
import type { Colors } from './global-options.js';
import { byteCount, columns } from './format-text.js';

/** Evidence is long: what went wrong is shown, the rest is in JSON and Markdown. */
const SHOWN_BYTES = 32;
const ORDER: readonly Verdict[] = ['broken', 'unclear', 'kept', 'not applicable', 'not run'];

export function renderDoctor(report: DoctorReport, colors: Colors): string {
  const sections = [
    heading(report, colors),
    section('Rules', ruleTable(report, colors), colors),
    section('What the specification leaves open', traitTable(report), colors),
    section('The bytes of what is broken', evidence(report, colors), colors),
    section('Quirks, for connect({ quirks }) and --quirks', quirks(report), colors),
  ];
  return `${sections.filter((part) => part !== '').join('\n\n')}\n`;
}

function section(title: string, body: string, colors: Colors): string {
  return body === '' ? '' : `${colors.bold(title)}\n${body}`;
}

function heading(
  { server, identity, recognised, summary, incomplete }: DoctorReport,
  colors: Colors,
): string {
  const { vendorId, deviceId, version, regions } = identity;
  const ids = vendorId === null || deviceId === null ? 'a device' : pciId(vendorId, deviceId);
  const sizes = regions
    .filter(({ size }) => size > 0)
    .map(({ index, size }) => `${index}: ${byteCount(size)}`)
    .join(', ');
  const counts = ORDER.map((verdict) => paint(verdict, `${summary[verdict]} ${verdict}`, colors)).join(', ');
  const rows = [
    ['protocol', version ?? 'unknown'],
    ['regions', sizes || 'none'],
    ['looks like', `${recognised.name}, confidence ${recognised.confidence}`],
    ...recognised.signs.map((sign) => ['', sign]),
    ['rules', counts],
    ...(incomplete === null ? [] : [['incomplete', oneLine(incomplete)]]),
  ];
  return `${colors.bold(ids)}  at ${printable(server)}\n${columns(rows)}`;
}

function ruleTable({ rules }: DoctorReport, colors: Colors): string {
  const sorted = [...rules].sort((a, b) => ORDER.indexOf(a.verdict) - ORDER.indexOf(b.verdict));
  const rows = sorted.map(({ id, verdict, detail, section: where }) => [
    paint(verdict, verdict, colors),
    id,
    oneLine(detail),
    colors.dim(where),
  ]);
  return rows.length === 0 ? '' : columns(rows);
}

function traitTable({ traits }: DoctorReport): string {
  return traits.length === 0
    ? ''
    : columns(traits.map(({ title, value }) => [oneLine(title), oneLine(value)]));
}

function evidence({ rules }: DoctorReport, colors: Colors): string {
  return rules
    .filter(({ verdict, evidence: steps }) => verdict === 'broken' && steps.length > 0)
    .map((rule) => `  ${colors.bold(rule.id)}  ${rule.rule}\n${steps(rule)}`)
    .join('\n');
}

function steps({ evidence: shown }: RuleResult): string {
  return shown
    .map(({ direction, hex, size, note }) => {
      if (direction === 'event') return `    = ${oneLine(note ?? '')}`;
      const cut = hex.slice(0, 2 * SHOWN_BYTES).replaceAll(/(.{8})(?!$)/g, '$1 ');
      return `    ${direction === 'sent' ? '>' : '<'} ${cut}${size > SHOWN_BYTES ? ` … ${byteCount(size)}` : ''}`;
    })
    .join('\n');
}

function quirks({ quirks: found, quirkReasons }: DoctorReport): string {
  if (Object.keys(found).length === 0) return '  none needed';
  const json = JSON.stringify(found, null, 2)
    .split('\n')
    .map((line) => `  ${line}`);
  const why = Object.entries(quirkReasons).map(([name, reason]) => `  ${name}: ${reason}`);
  return [...json, ...why].join('\n');
}

function paint(verdict: Verdict, text: string, colors: Colors): string {
  if (verdict === 'broken') return colors.red(text);
  if (verdict === 'kept') return colors.green(text);
  return verdict === 'unclear' ? colors.yellow(text) : colors.dim(text);
}

/** Some of it is the server's own words. */
function oneLine(text: string): string {
  return printable(text.replaceAll(/\s*\n\s*/g, ' '));
}
