/** `vfio-user nvme smart`: how a controller is. */
import type { Command } from 'commander';
import type { SmartLog } from '../nvme/index.js';
import { toJson } from './json.js';
import { kelvin } from './nvme-identify.js';
import { namespaceId, withController } from './nvme-options.js';
import { print } from './output.js';
import { columns, spelledOut } from './text.js';

const HELP = `
Examples:
  $ vfio-user nvme smart /run/nvme.sock
  $ vfio-user nvme smart /run/nvme.sock --json | jq .hostReadCommands`;

export function registerNvmeSmart(nvme: Command): void {
  nvme
    .command('smart')
    .description('show the SMART / health log')
    .argument('<SOCKET>', 'where the server listens')
    .option('--nsid <n>', "a namespace's own log, where the controller has such", namespaceId)
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(async (socket: string, options: { nsid?: number; json: boolean }, command: Command) => {
      await withController(command, socket, async (controller) => {
        const log = await controller.smartLog({ namespace: options.nsid });
        await print(options.json ? `${toJson(log)}\n` : `${columns(rows(log))}\n`);
      });
    });
}

function rows(log: SmartLog): string[][] {
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
