/** What the device is, and its config space. */
import type { Config, Subject } from './api.js';
import { h, hex, table } from './dom.js';

const BYTES_PER_LINE = 16;

export function deviceView({ device, source, problem }: Subject): Node {
  if (device === undefined) {
    const text = problem === undefined ? source : `${source}: ${problem}`;
    return h('p', {}, 'A capture: ', h('code', {}, text));
  }
  const present = device.regions.filter(({ size }) => size > 0);
  const irqs = device.irqs.filter(({ count }) => count > 0);
  return h(
    'div',
    {},
    table(
      'Regions',
      ['Region', 'Number', 'Size', 'Flags', 'Mappable'],
      present.map(({ name, index, size, flagNames, mmap }) => [
        name,
        index,
        `${hex(size)} (${byteCount(size)})`,
        flagNames.join(' '),
        mmap.map((area) => `${hex(area.offset)}+${hex(area.size)}`).join(', ') || '–',
      ]),
    ),
    h('h3', {}, 'Interrupts'),
    table(
      'Interrupts that the device has',
      ['Interrupt', 'Vectors', 'Flags'],
      irqs.map(({ name, count, flagNames }) => [name, count, flagNames.join(' ')]),
      true,
    ),
    h('h3', {}, 'Protocol'),
    table('What was negotiated', ['Name', 'Value'], rowsOf(device.negotiated ?? {}), true),
  );
}

export function configView(config: Config | null): Node {
  if (config === null) return h('p', {}, 'There is no config space.');
  const { header, capabilities, extendedCapabilities, problems, bytes } = config;
  return h(
    'div',
    {},
    ...problems.map((problem) => h('p', { class: 'error' }, problem)),
    h(
      'div',
      { class: 'columns' },
      h('div', {}, h('h3', {}, 'Header'), table('Header', ['Field', 'Value'], rowsOf(header), true)),
      h('div', {}, ...[...capabilities, ...extendedCapabilities].map(capabilityView)),
    ),
    h('h3', {}, 'Bytes'),
    dump(bytes, 0),
  );
}

function capabilityView(capability: Readonly<Record<string, unknown>>): Node {
  const { name, id, offset, ...fields } = capability;
  const title = `${textOf(name ?? id)} at ${textOf(offset)}`;
  return h('div', {}, h('h3', {}, title), table(title, ['Field', 'Value'], rowsOf(fields), true));
}

/** Lines of offset and bytes, as hexdump prints them. */
export function dump(digits: string, from: number): HTMLElement {
  const lines: string[] = [];
  for (let at = 0; at < digits.length; at += BYTES_PER_LINE * 2) {
    const line = digits.slice(at, at + BYTES_PER_LINE * 2);
    const pairs = line.match(/../g) ?? [];
    const text = pairs.map((pair) => {
      const code = Number.parseInt(pair, 16);
      return code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : '.';
    });
    const offset = (from + at / 2).toString(16).padStart(6, '0');
    lines.push(`${offset}  ${pairs.join(' ').padEnd(BYTES_PER_LINE * 3 - 1)}  ${text.join('')}`);
  }
  return h('pre', { tabindex: 0, role: 'region', 'aria-label': 'Bytes' }, lines.join('\n'));
}

/** Names and values; what has parts has a row for each. */
function rowsOf(value: Readonly<Record<string, unknown>>, prefix = ''): [string, string][] {
  return Object.entries(value).flatMap(([name, inner]): [string, string][] => {
    const title = `${prefix}${name}`;
    if (inner === null || inner === undefined) return [];
    if (Array.isArray(inner) && !isShort(inner)) {
      return inner.map((one: unknown, i): [string, string] => [`${title}[${i}]`, inLine(one)]);
    }
    if (typeof inner === 'object' && !isShort(inner)) {
      return rowsOf(inner as Record<string, unknown>, `${title}.`);
    }
    return [[title, textOf(inner)]];
  });
}

/** `kind memory32, address 0x80000000`. */
function inLine(value: unknown): string {
  if (typeof value !== 'object' || value === null) return textOf(value);
  return rowsOf(value as Record<string, unknown>)
    .map(([name, text]) => `${name} ${text}`)
    .join(', ');
}

function isShort(value: object): boolean {
  return Array.isArray(value) && value.every((one) => typeof one !== 'object');
}

function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.map(textOf).join(', ');
  if (typeof value === 'number') return value > 9 ? `${hex(value)} (${value})` : String(value);
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return String(value);
}

function byteCount(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`;
}
