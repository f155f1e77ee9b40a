/** What the verbs of `vfio-user nvme` print. */
import { OptionalAdminCommands, OptionalNvmCommands, type SmartLog } from '../nvme/index.js';
import { printable } from './errors.js';
import type { Colors } from './global-options.js';
import { byteCount, columns, counted, hex, spelledOut } from './format-text.js';
import type { IdentifyReport, NamespaceReport } from './verbs/nvme/identify.js';

export function renderIdentify(report: IdentifyReport, colors: Colors): string {
  const { controller } = report;
  const title = `${colors.bold(printable(controller.modelNumber))}  at ${printable(report.socket)}`;
  const sections = [
    title,
    `${colors.bold('Controller')}\n${columns(controllerRows(report))}`,
    ...report.namespaces.map(
      (namespace) => `${colors.bold(`Namespace ${namespace.id}`)}\n${columns(namespaceRows(namespace))}`,
    ),
  ];
  if (report.namespaces.length + report.unreadable.length === 0) sections.push('no active namespaces');
  return `${sections.join('\n\n')}\n`;
}

function controllerRows({
  controller,
  version,
  capabilities,
  maxTransferBytes,
  maxQueues,
}: IdentifyReport): string[][] {
  return [
    ['vendor, subsystem vendor', `${hex(controller.vendorId, 4)}, ${hex(controller.subsystemVendorId, 4)}`],
    ['serial number', printable(controller.serialNumber)],
    ['model number', printable(controller.modelNumber)],
    ['firmware revision', printable(controller.firmwareRevision)],
    ['NVM subsystem', printable(controller.subsystemNqn) || '-'],
    ['IEEE OUI', controller.ieeeOui],
    ['version', version],
    ['controller identifier', `${controller.controllerId}`],
    ['namespaces, at most', `${controller.namespaces}`],
    ['capacity', controller.totalCapacityBytes === 0n ? '-' : `${controller.totalCapacityBytes} bytes`],
    ['longest transfer', byteCount(maxTransferBytes)],
    ['I/O queues', `${counted(maxQueues, 'pair')} of up to ${capabilities.maxQueueEntries} entries`],
    ['doorbells', `${capabilities.doorbellStride} bytes apart`],
    ['ready within', `${capabilities.readyTimeoutMs} ms`],
    ['aborts, event requests', `${controller.abortCommandLimit}, ${controller.asyncEventLimit} at once`],
    ['error log', `${controller.errorLogEntries} entries`],
    [
      'warning, critical temperature',
      `${kelvin(controller.warningTemperatureKelvin)}, ${kelvin(controller.criticalTemperatureKelvin)}`,
    ],
    ['volatile write cache', controller.volatileWriteCache ? 'yes' : 'no'],
    ['optional admin commands', names(OptionalAdminCommands, controller.optionalAdminCommands)],
    ['optional NVM commands', names(OptionalNvmCommands, controller.optionalNvmCommands)],
  ];
}

function namespaceRows(namespace: NamespaceReport): string[][] {
  const formats = namespace.formats.map(({ dataSize, metadataSize }, i) => {
    const inUse = i === namespace.formatIndex ? ' (in use)' : '';
    return `${dataSize}+${metadataSize}${inUse}`;
  });
  return [
    [
      'size',
      `${namespace.blocks} blocks of ${byteCount(namespace.blockSize)}, ${byteCount(namespace.sizeBytes)}`,
    ],
    ['capacity, in use', `${namespace.capacity}, ${namespace.utilization} blocks`],
    ['formats', formats.join(', ')],
    ['write-protected', namespace.writeProtected ? 'yes' : 'no'],
    ['NGUID', namespace.nguid],
    ['EUI-64', namespace.eui64],
  ];
}

export function renderSmart(log: SmartLog): string {
  return `${columns(smartRows(log))}\n`;
}

function smartRows(log: SmartLog): string[][] {
  const warnings = Object.entries(log.criticalWarning).filter(([, isSet]) => isSet);
  return [
    ['critical warnings', warnings.map(([name]) => spelledOut(name)).join(', ') || 'none'],
    ['temperature', kelvin(log.temperatureKelvin)],
    ['available spare', `${log.availableSparePercent} % (threshold ${log.availableSpareThresholdPercent} %)`],
    ['used', `${log.percentageUsed} %`],
    ['data read', dataUnits(log.dataUnitsRead)],
    ['data written', dataUnits(log.dataUnitsWritten)],
    ['host read commands', `${log.hostReadCommands}`],
    ['host write commands', `${log.hostWriteCommands}`],
    ['controller busy', `${log.controllerBusyMinutes} minutes`],
    ['power cycles', `${log.powerCycles}`],
    ['power on', `${log.powerOnHours} hours`],
    ['unsafe shutdowns', `${log.unsafeShutdowns}`],
    ['media errors', `${log.mediaErrors}`],
    ['error log entries', `${log.errorLogEntries}`],
    ['warning temperature time', `${log.warningTemperatureMinutes} minutes`],
    ['critical temperature time', `${log.criticalTemperatureMinutes} minutes`],
    ...log.temperatureSensors.flatMap((value, i) =>
      value === undefined ? [] : [[`temperature sensor ${i + 1}`, kelvin(value)]],
    ),
  ];
}

/** Units are thousands of 512 bytes. */
function dataUnits(units: bigint): string {
  return `${units} units (${(Number(units) * 0.512).toFixed(1)} MB)`;
}

function names(bits: Readonly<Record<string, number>>, value: number): string {
  const set = Object.entries(bits).filter(([, bit]) => (value & bit) !== 0);
  return set.map(([name]) => name.toLowerCase().replaceAll('_', ' ')).join(', ') || '-';
}

/** `311 K (38 °C)`; - where nothing is reported. */
function kelvin(value: number): string {
  return value === 0 ? '-' : `${value} K (${value - 273} °C)`;
}
