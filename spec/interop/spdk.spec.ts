/**
 * SPDK's vfio-user target. VFIO_USER_SPDK names the directory with `malloc/cntrl` of a running one, whose namespace is
 * overwritten; VFIO_USER_SPDK_IDENTIFY the spdk_nvme_identify program, whose word is compared with ours, and
 * VFIO_USER_SPDK_NQN the subsystem, where that is not nqn.2019-07.io.spdk:malloc.
 */
import { describe, expect, jest, test } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { connect, type ConnectOptions, type Device } from '../../lib/index.js';
import {
  NvmeController,
  OptionalAdminCommands,
  OptionalNvmCommands,
  type NvmeOptions,
  type SmartLog,
} from '../../lib/nvme/index.js';
import { errorOf } from '../nvme/fixture.js';
import { otherCommands, pollRounds, readAll, useAtOnce, writeAll } from './nvme-io.js';

jest.setTimeout(120_000);

const directory = process.env['VFIO_USER_SPDK'] ?? '';
const identify = process.env['VFIO_USER_SPDK_IDENTIFY'] ?? '';
const nqn = process.env['VFIO_USER_SPDK_NQN'] ?? 'nqn.2019-07.io.spdk:malloc';
const withSpdk = directory === '' ? describe.skip : describe;
const withIdentify = directory === '' || identify === '' ? describe.skip : describe;

/** One client at a time: each is gone before the next one comes. */
async function withController(
  work: (controller: NvmeController, device: Device) => Promise<void>,
  options: { connect?: ConnectOptions; nvme?: NvmeOptions } = {},
): Promise<void> {
  const device = await connect(join(directory, 'malloc', 'cntrl'), {
    waitForSocket: true,
    ...options.connect,
  });
  try {
    const controller = await NvmeController.open(device, options.nvme);
    await work(controller, device);
    await controller.close();
  } finally {
    await device.close();
  }
}

withSpdk("SPDK's target (VFIO_USER_SPDK names its directory)", () => {
  test('has the registers and limits that it is known for', () =>
    withController(async (controller) => {
      expect(controller.capabilities).toMatchObject({ maxQueueEntries: 256, doorbellStride: 4 });
      expect(controller.maxTransferBytes).toBe(131_072);
      const queue = await controller.createQueue();
      expect(queue).toMatchObject({ doorbell: 'mapped', depth: 255 });
    }));

  test.each([true, false])(
    'what one connection wrote another reads, at every size: with SGLs %s, then the other way',
    async (sgls) => {
      let written = new Map<number, Buffer>();
      const write = async (controller: NvmeController, device: Device) => {
        expect(controller.identity.sgls & 3).toBe(2);
        written = await writeAll(device, controller, await controller.createQueue());
      };
      await withController(write, { nvme: { sgls } });
      const read = async (controller: NvmeController, device: Device) =>
        readAll(device, await controller.createQueue(), written);
      await withController(read, { nvme: { sgls: !sgls } });
    },
  );

  test.each(['poll', 'interrupt'] as const)('several queues at once, completions by %s', (completion) =>
    withController(async (controller) => {
      const queues = [];
      for (let i = 0; i < 6; i++) queues.push(await controller.createQueue({ completion }));
      await useAtOnce(queues);
      // An interrupt that it cannot signal is fatal to it: CSTS.CFS.
      expect(await controller.device.bar(0).readUInt32(0x1c)).toBe(1);
    }),
  );

  test('doorbells by message', () =>
    withController(
      async (controller) => {
        const queue = await controller.createQueue();
        expect(queue.doorbell).toBe('message');
        await useAtOnce([queue]);
      },
      { connect: { mmap: 'never' } },
    ));

  test.each([
    [0, true],
    [1024, true],
    [1024, false],
  ])('the submit/poll face, buffers that begin at %i of a page, SGLs %s', (pageOffset, sgls) =>
    withController(
      async (controller) => {
        const queue = await controller.createQueue({ buffers: { pageOffset } });
        await pollRounds(queue, 128, 20);
      },
      { nvme: { sgls } },
    ),
  );

  test('other commands, and errors by name', () =>
    withController(async (controller) => {
      await otherCommands(await controller.createQueue());
      expect(await errorOf(controller.namespace(99))).toMatchObject({
        code: 'ERR_NVME_INVALID_NAMESPACE_OR_FORMAT',
      });
      expect(await errorOf(controller.adminCommand({ opcode: 0xff }))).toMatchObject({
        statusName: 'INVALID_OPCODE',
      });
    }));

  test('a controller reset in mid-I/O', () =>
    withController(async (controller) => {
      const queues = [
        await controller.createQueue(),
        await controller.createQueue({ completion: 'interrupt' }),
      ];
      for (let i = 0; i < 3; i++) await Promise.all([useAtOnce(queues), controller.reset()]);
    }));

  test('memory is given back: again and again on one connection', async () => {
    const device = await connect(join(directory, 'malloc', 'cntrl'), { waitForSocket: true });
    try {
      for (let i = 0; i < 5; i++) {
        await using controller = await NvmeController.open(device);
        await useAtOnce([await controller.createQueue({ buffers: { bytes: 8192 } })]);
      }
    } finally {
      await device.close();
    }
  });
});

withIdentify('what spdk_nvme_identify prints (VFIO_USER_SPDK_IDENTIFY names it)', () => {
  /** The values of lines `name: value`, by name; the first of each. */
  function printed(): Map<string, string> {
    const target = `trtype:VFIOUSER traddr:${join(directory, 'malloc')} subnqn:${nqn}`;
    const output = execFileSync(identify, ['--no-huge', '-s', '256', '-r', target], { encoding: 'utf8' });
    const lines = new Map<string, string>();
    for (const line of output.split('\n')) {
      const [, name, value] = /^\s*([^:]+):\s*(.*?)\s*$/.exec(line) ?? [];
      if (name !== undefined && !lines.has(name)) lines.set(name, value!);
    }
    return lines;
  }

  test('is what we decode', async () => {
    const lines = printed();
    await withController(async (controller) => {
      const { identity, capabilities } = controller;
      const namespace = await controller.namespace();
      const smart = await controller.smartLog();
      const firmware = await controller.firmwareLog();
      const supported = (is: boolean) => (is ? 'Supported' : 'Not Supported');
      const lbas = (blocks: bigint) => `${blocks} (${(blocks * BigInt(namespace.blockSize)) >> 30n}GiB)`;
      const hex4 = (value: number) => value.toString(16).padStart(4, '0');
      const ours: Record<string, string> = {
        'Vendor ID': hex4(identity.vendorId),
        'Subsystem Vendor ID': hex4(identity.subsystemVendorId),
        'Serial Number': identity.serialNumber,
        'Model Number': identity.modelNumber,
        'Firmware Version': identity.firmwareRevision,
        'Recommended Arb Burst': String(Math.log2(identity.arbitrationBurst)),
        // Bytes as they stand, not the OUI.
        'IEEE OUI Identifier': identity.ieeeOui.match(/../g)!.reverse().join(' '),
        'Max Data Transfer Size': String(controller.maxTransferBytes),
        'Max Number of Namespaces': String(identity.namespaces),
        'Max Number of I/O Queues': String(controller.maxQueues),
        'NVMe Specification Version (VS)': controller.version.replace(/\.0$/, ''),
        'NVMe Specification Version (Identify)': identity.version.replace(/\.0$/, ''),
        'Maximum Queue Entries': String(capabilities.maxQueueEntries),
        'Contiguous Queues Required': capabilities.contiguousQueuesRequired ? 'Yes' : 'No',
        'Reset Timeout': `${capabilities.readyTimeoutMs} ms`,
        'Doorbell Stride': `${capabilities.doorbellStride} bytes`,
        'NVM Subsystem Reset': supported(capabilities.subsystemReset),
        'Memory Page Size Minimum': `${capabilities.minPageSize} bytes`,
        'Memory Page Size Maximum': `${capabilities.maxPageSize} bytes`,
        'Abort Command Limit': String(identity.abortCommandLimit),
        'Async Event Request Limit': String(identity.asyncEventLimit),
        'Subsystem NQN': identity.subsystemNqn,
        'Get Log Page Extended Data': supported((identity.logPageAttributes & 4) !== 0),
        'Error Log Page Entries Supported': String(identity.errorLogEntries),
        'Keep Alive Granularity': `${identity.keepAlive * 100} ms`,
        ...Object.fromEntries(
          [
            ['Format NVM', 'FORMAT'],
            ['Namespace Management', 'NAMESPACE_MANAGEMENT'],
            ['Directives', 'DIRECTIVES'],
            ['Doorbell Buffer Config', 'DOORBELL_BUFFER_CONFIG'],
          ].map(([name, bit]) => [
            name,
            supported((identity.optionalAdminCommands & OptionalAdminCommands[bit as 'FORMAT']) !== 0),
          ]),
        ),
        ...Object.fromEntries(
          [
            ['Compare Command', 'COMPARE'],
            ['Write Uncorrectable Command', 'WRITE_UNCORRECTABLE'],
            ['Dataset Management Command', 'DATASET_MANAGEMENT'],
            ['Write Zeroes Command', 'WRITE_ZEROES'],
            ['Timestamp', 'TIMESTAMP'],
          ].map(([name, bit]) => [
            name,
            supported((identity.optionalNvmCommands & OptionalNvmCommands[bit as 'COMPARE']) !== 0),
          ]),
        ),
        Max: String(2 ** identity.submissionEntrySize.maximum),
        Min: String(2 ** identity.submissionEntrySize.required),
        'Number of Namespaces': String(identity.namespaces),
        'Volatile Write Cache': identity.volatileWriteCache ? 'Present' : 'Not Present',
        'Atomic Write Unit (Normal)': String(identity.atomicWriteUnit),
        'Atomic Write Unit (PFail)': String(identity.atomicWriteUnitPowerFail),
        'Active slot': String(firmware.activeSlot),
        'Slot 1 Firmware Revision': firmware.revisions[0]!,
        'Number of Power States': String(identity.powerStates),
        'Size (in LBAs)': lbas(namespace.identity.size),
        'Capacity (in LBAs)': lbas(namespace.identity.capacity),
        'Utilization (in LBAs)': lbas(namespace.identity.utilization),
        NGUID: namespace.identity.nguid.toUpperCase(),
        ...smartLines(smart),
      };
      const theirs: Record<string, string | undefined> = {};
      for (const name of Object.keys(ours)) {
        theirs[name] = lines.get(name);
      }
      expect(ours).toEqual(theirs);
    });
  });

  function smartLines(smart: SmartLog): Record<string, string> {
    const warning = smart.criticalWarning;
    return {
      'Available Spare Space': warning.spareBelowThreshold ? 'WARNING' : 'OK',
      Temperature: warning.temperature ? 'WARNING' : 'OK',
      'Device Reliability': warning.reliabilityDegraded ? 'WARNING' : 'OK',
      'Read Only': warning.readOnly ? 'Yes' : 'No',
      'Volatile Memory Backup': warning.backupFailed ? 'WARNING' : 'OK',
      'Current Temperature': `${smart.temperatureKelvin} Kelvin (${smart.temperatureKelvin - 273} Celsius)`,
      'Available Spare': `${smart.availableSparePercent}%`,
      'Available Spare Threshold': `${smart.availableSpareThresholdPercent}%`,
      'Life Percentage Used': `${smart.percentageUsed}%`,
      'Data Units Read': String(smart.dataUnitsRead),
      'Data Units Written': String(smart.dataUnitsWritten),
      'Host Read Commands': String(smart.hostReadCommands),
      'Host Write Commands': String(smart.hostWriteCommands),
      'Controller Busy Time': `${smart.controllerBusyMinutes} minutes`,
      'Power Cycles': String(smart.powerCycles),
      'Power On Hours': `${smart.powerOnHours} hours`,
      'Unsafe Shutdowns': String(smart.unsafeShutdowns),
      'Unrecoverable Media Errors': String(smart.mediaErrors),
      'Lifetime Error Log Entries': String(smart.errorLogEntries),
      'Warning Temperature Time': `${smart.warningTemperatureMinutes} minutes`,
      'Critical Temperature Time': `${smart.criticalTemperatureMinutes} minutes`,
    };
  }
});
