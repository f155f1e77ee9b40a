/** `vfio-user nvme smart-log`, `error-log` and `fw-log`, as nvme-cli has them. */
import type { Command } from 'commander';
import { ALL_NAMESPACES, LogPageId, type NvmeController } from '../../../nvme/index.js';
import { ERROR_ENTRY_SIZE, FIRMWARE_LOG_SIZE, SMART_LOG_SIZE } from '../../../nvme/log-pages.js';
import { bits } from '../../numbers.js';
import { UsageError } from '../../errors.js';
import {
  errorsJson,
  errorsText,
  firmwareJson,
  firmwareText,
  smartJson,
  smartText,
} from '../../nvme-cli/logs.js';
import {
  deviceName,
  namespaceIdOrAll,
  printAs,
  withOutputFormat,
  type OutputOptions,
  type Printable,
} from '../../nvme-cli/output.js';
import { withController } from './with-controller.js';

const USUAL_ENTRIES = 64;

function example(verb: string, more: string): string {
  return `
Keys and types are those of nvme-cli 2.3.

Examples:
  $ vfio-user nvme ${verb} /run/nvme.sock
  $ vfio-user nvme ${verb} /run/nvme.sock ${more}`;
}

export function registerNvmeLogs(nvme: Command): void {
  registerSmart(nvme);
  registerErrors(nvme);
  registerFirmware(nvme);
}

function logVerb(nvme: Command, name: string, description: string): Command {
  return withOutputFormat(
    nvme.command(name).description(description).argument('<SOCKET>', 'where the server listens'),
  );
}

async function show(
  command: Command,
  socket: string,
  options: OutputOptions,
  read: (controller: NvmeController) => Promise<Printable>,
): Promise<void> {
  await withController(command, socket, async (controller) => printAs(options, await read(controller)));
}

type SmartOptions = OutputOptions & { namespaceId: number; humanReadable: boolean };

function registerSmart(nvme: Command): void {
  logVerb(nvme, 'smart-log', 'the SMART / health log, as nvme-cli prints it')
    .option(
      '-n, --namespace-id <id>',
      "a namespace's own log, where the controller has such",
      namespaceIdOrAll,
      ALL_NAMESPACES,
    )
    .option('-H, --human-readable', 'JSON: the critical warning as its bits', false)
    .addHelpText('after', example('smart-log', '-o json | jq .temperature'))
    .action(async (socket: string, options: SmartOptions, command: Command) => {
      await show(command, socket, options, async (controller) => {
        const { namespaceId: namespace } = options;
        const bytes = await controller.logPage(LogPageId.SMART_HEALTH, SMART_LOG_SIZE, { namespace });
        return {
          json: () => smartJson(bytes, options.humanReadable),
          normal: () => smartText(bytes, deviceName(socket), namespace),
          binary: () => bytes,
        };
      });
    });
}

type ErrorOptions = OutputOptions & { logEntries: number };

function registerErrors(nvme: Command): void {
  logVerb(nvme, 'error-log', 'the error log, as nvme-cli prints it')
    .option('-e, --log-entries <n>', 'how many entries, as far as there are', bits(32), USUAL_ENTRIES)
    .addHelpText('after', example('error-log', "-e 4 -o json | jq '.errors[0]'"))
    .action(async (socket: string, options: ErrorOptions, command: Command) => {
      if (options.logEntries === 0) throw new UsageError('--log-entries is at least 1');
      await show(command, socket, options, async (controller) => {
        const count = Math.min(options.logEntries, controller.identity.errorLogEntries);
        const bytes = await controller.logPage(LogPageId.ERROR_INFORMATION, count * ERROR_ENTRY_SIZE);
        return {
          json: () => errorsJson(bytes),
          normal: () => errorsText(bytes, deviceName(socket)),
          binary: () => bytes,
        };
      });
    });
}

function registerFirmware(nvme: Command): void {
  logVerb(nvme, 'fw-log', 'the firmware log, as nvme-cli prints it')
    .addHelpText('after', example('fw-log', '-o json'))
    .action(async (socket: string, options: OutputOptions, command: Command) => {
      await show(command, socket, options, async (controller) => {
        const bytes = await controller.logPage(LogPageId.FIRMWARE_SLOT, FIRMWARE_LOG_SIZE);
        return {
          json: () => firmwareJson(bytes, deviceName(socket)),
          normal: () => firmwareText(bytes, deviceName(socket)),
          binary: () => bytes,
        };
      });
    });
}
