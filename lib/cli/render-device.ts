/** A device in words: what `info` prints. */
import type { Colors } from './global-options.js';
import { renderConfig } from './render-config.js';
import type { DeviceReport, IrqReport, RegionReport } from './describe-device.js';
import type { Negotiated } from '../index.js';
import type { PciFunction } from '../vfio/pci-functions.js';
import { printable } from './errors.js';
import { titleOf } from './render-pci.js';
import { pciId } from '../pci/index.js';
import { toJson } from './json.js';
import { byteCount, columns, hex } from './format-text.js';

export function renderDevice(report: DeviceReport, colors: Colors): string {
  const { vendorId, deviceId, name } = report;
  const ids = vendorId === null || deviceId === null ? 'a device' : pciId(vendorId, deviceId);
  const sections = [
    `${colors.bold(ids)}${name === null ? '' : `  ${name}`}  at ${printable(report.socket)}`,
    section('Device', columns([['flags', flags(report.flagNames)]]), colors),
    ...(report.pci === null ? [] : [section('PCI function', columns(functionRows(report.pci)), colors)]),
    ...(report.negotiated === null
      ? []
      : [section('Protocol', columns(protocolRows(report.negotiated)), colors)]),
    section('Regions', regionTable(report.regions, colors), colors),
    section('Interrupts', irqTable(report.irqs, colors), colors),
  ];
  if (report.config !== null) {
    const title = `Config space (${byteCount(report.config.size)})`;
    sections.push(section(title, renderConfig(report.config, report.regions, colors), colors));
  }
  return `${sections.join('\n\n')}\n`;
}

function section(title: string, body: string, colors: Colors): string {
  return `${colors.bold(title)}\n${body}`;
}

function functionRows(pci: PciFunction): string[][] {
  const others = pci.groupMembers.filter(({ address }) => address !== pci.address);
  const members = others.map(({ address, driver }) => `${address} (${driver ?? 'no driver'})`);
  return [
    ['what', titleOf(pci)],
    ['driver', pci.driver ?? 'none'],
    ['IOMMU group', pci.iommuGroup ?? 'none'],
    ...(members.length === 0 ? [] : [['with', members.join(', ')]]),
  ];
}

function protocolRows(negotiated: Negotiated): string[][] {
  const { major, minor, twinSocket, capabilities } = negotiated;
  const { maxMsgFds, maxDataXferSize, maxDmaMaps, pgsizes, writeMultiple, sparseMmapFds, migration, other } =
    capabilities;
  const rows = [
    ['version', `${major}.${minor}`],
    ['max_msg_fds', `${maxMsgFds}`],
    ['max_data_xfer_size', byteCount(maxDataXferSize)],
    ['max_dma_maps', `${maxDmaMaps}`],
    ['pgsizes', hex(pgsizes)],
    ['twin_socket', yesNo(twinSocket)],
    ['write_multiple', yesNo(writeMultiple)],
    ['sparse_mmap_fds', yesNo(sparseMmapFds)],
  ];
  if (migration !== undefined) rows.push(['migration', `pages of ${byteCount(migration.pgsize)}`]);
  // Names and values are the server's own words.
  for (const [name, value] of Object.entries(other)) rows.push([printable(name), printable(oneLine(value))]);
  return rows;
}

function oneLine(value: unknown): string {
  return toJson(value).replaceAll(/\s*\n\s*/g, ' ');
}

function regionTable(regions: readonly RegionReport[], colors: Colors): string {
  const present = regions.filter(({ size }) => size > 0);
  const rows = present.map(({ index, name, size, flagNames, mmap }) => [
    `${index}`,
    name,
    hex(size),
    byteCount(size),
    flags(flagNames),
    mmap.map((area) => `${hex(area.offset)}+${hex(area.size)}`).join(', ') || '-',
  ]);
  const table = columns([heading(['', 'name', 'size', '', 'flags', 'mappable'], colors), ...rows]);
  const absent = regions.filter(({ size }) => size === 0).map(({ name }) => name);
  return absent.length === 0 ? table : `${table}\n  ${colors.dim(`none: ${absent.join(', ')}`)}`;
}

function irqTable(irqs: readonly IrqReport[], colors: Colors): string {
  const rows = irqs.map(({ index, name, count, reportedCount, flagNames }) => [
    `${index}`,
    name,
    count === reportedCount ? `${count}` : `${count} (the server says ${reportedCount})`,
    flags(flagNames),
  ]);
  return columns([heading(['', 'name', 'count', 'flags'], colors), ...rows]);
}

function heading(names: readonly string[], colors: Colors): string[] {
  return names.map((name) => (name === '' ? '' : colors.dim(name)));
}

function flags(names: readonly string[]): string {
  return names.length === 0 ? '-' : names.join(' ');
}

function yesNo(value: boolean): string {
  return value ? 'yes' : 'no';
}
