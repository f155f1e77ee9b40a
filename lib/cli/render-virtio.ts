/** What the verbs of `vfio-user virtio` print. */
import { printable } from './errors.js';
import { byteCount, columns, hex } from './format-text.js';
import type { Colors } from './global-options.js';
import type { VirtioInfoReport } from './verbs/virtio/info.js';

/** QEMU's devices complete nothing without it, and SPDK's do. */
const WITHOUT_ACCESS_PLATFORM =
  'it does not offer ACCESS_PLATFORM: a device of QEMU completes nothing then, until it has iommu_platform=on';

export function renderVirtioInfo(report: VirtioInfoReport, colors: Colors): string {
  const { structures, queues, config } = report;
  const sections = [
    `${colors.bold(`virtio ${report.typeName}`)}  at ${printable(report.socket)}`,
    `${colors.bold('Features offered')}\n${report.offered.map((name) => `  ${name}`).join('\n')}`,
    `${colors.bold('Structures')}\n${columns(
      structures.map(({ name, bar, offset, length }) => [name, `BAR ${bar}`, hex(offset), byteCount(length)]),
    )}`,
    `${colors.bold('Queues')}\n${columns(queues.map(({ index, entries }) => [`${index}`, `${entries} entries`]))}`,
  ];
  if (config !== null)
    sections.push(
      `${colors.bold('Configuration')}\n${columns(Object.entries(config).map(([name, value]) => [name, shown(value)]))}`,
    );
  if (!report.offered.includes('ACCESS_PLATFORM')) sections.push(WITHOUT_ACCESS_PLATFORM);
  return `${sections.join('\n\n')}\n`;
}

function shown(value: unknown): string {
  return typeof value === 'object' && value !== null
    ? Object.entries(value)
        .map(([name, part]) => `${name} ${String(part)}`)
        .join(', ')
    : String(value);
}
