/** `vfio-user emulate`: a device to try things on. */
import { Argument, InvalidArgumentError, Option, type Command } from 'commander';
import type { FaultPlan } from '../../faults/index.js';
import {
  EduDevice,
  FileStore,
  MemoryStore,
  NvmeDevice,
  RamDevice,
  serve,
  VirtioBlkDevice,
  VirtioScsiDevice,
  VirtioRngDevice,
  type DeviceModel,
  type ServeOptions,
} from '../../emulator/index.js';
import { closeDevice, isModulePath, loadDeviceModule } from '../device-module.js';
import {
  DEVICE_FAULTS_HELP,
  addFaultOptions,
  faultPlanOf,
  namesOf,
  reportText,
  type FaultOptions,
} from '../fault-options.js';
import { UsageError, printable } from '../errors.js';
import { print } from '../output.js';
import { byteSize, length } from '../numbers.js';
import { addServerOptions, checkServerOptions, runServer, type ServerOptions } from '../server-options.js';

type EmulateOptions = EmulateNvmeOptions &
  ServerOptions &
  FaultOptions & { migration?: 'stop-copy' | 'pre-copy' };

const DEVICES: Readonly<Record<string, (options: EmulateOptions) => DeviceModel | Promise<DeviceModel>>> = {
  edu: () => new EduDevice(),
  ram: ({ migration }) => new RamDevice(migration === undefined ? {} : { migration }),
  nvme: emulatedNvme,
  'virtio-blk': emulatedBlk,
  'virtio-scsi': emulatedScsi,
  'virtio-rng': () => new VirtioRngDevice(),
};

const HELP = `
Devices:
  edu         QEMU's educational device, 1234:11e8: identification, liveness, factorial, interrupts, a DMA engine
  ram         1234:5241: memory by message and by mapping, MSI-X, a DMA engine
  nvme        1234:5845: an NVMe controller with a namespace in memory (--size) or in a file (--file)
  virtio-blk  1af4:1042: a virtio disk in memory (--size) or in a file (--file)
  virtio-scsi 1af4:1048: a virtio SCSI host with a disk in memory (--size) or in a file (--file) as target 0
  virtio-rng  1af4:1044: an entropy device, of the system's random numbers
  FILE        a module whose default export is a device, a class of one, or a function that gives one: ./uart.js, or
              ./uart.ts where Node runs TypeScript (22.18 and later). defineDevice of vfio-user/emulator makes one of a
              register map: docs/writing-a-device.md

Runs until it is interrupted, and removes the socket file then.

A fault is NAME:member=value,…; --faults reads a JSON file, {"seed": 1, "faults": [{"fault": "lost-write", …}]}. Each is told of on
stderr as it happens, and all at the end on stdout.${DEVICE_FAULTS_HELP}

Examples:
  $ vfio-user emulate edu --socket /tmp/edu.sock
  $ vfio-user emulate edu --socket @edu
  $ vfio-user emulate ram --socket /tmp/ram.sock --migration pre-copy
  $ vfio-user emulate nvme --socket /tmp/nvme.sock --size 1G --block-size 4096
  $ vfio-user emulate virtio-blk --socket /tmp/virtio-blk.sock --size 1G
  $ vfio-user emulate virtio-scsi --socket /tmp/virtio-scsi.sock --file disk.img
  $ vfio-user emulate virtio-rng --socket /tmp/virtio-rng.sock
  $ vfio-user emulate ./uart.js --socket /tmp/uart.sock
  $ vfio-user emulate edu --socket /tmp/edu.sock --fault lost-interrupt:irq=msi,nth=2
  $ vfio-user emulate edu --socket /tmp/edu.sock --map edu.json --fault wrong-value:register=ID,value=0,nth=3`;

export function registerEmulate(program: Command): void {
  const command = program
    .command('emulate')
    .description('serve an emulated device, to try things on')
    .addArgument(deviceArgument());
  addServerOptions(command).addOption(
    new Option('--migration <kind>', 'ram: its state can be saved and restored').choices([
      'stop-copy',
      'pre-copy',
    ]),
  );
  addFaultOptions(addNvmeOptions(command)).addHelpText('after', HELP).action(emulate);
}

/** Completed as one of the names; a module is a device as well. */
function deviceArgument(): Argument {
  const names = Object.keys(DEVICES);
  return new Argument('<DEVICE>', 'which one, or a module').choices(names).argParser((text) => {
    if (names.includes(text) || isModulePath(text)) return text;
    throw new InvalidArgumentError(`It is ${names.join(', ')}, or a module such as ./uart.js.`);
  });
}

async function emulate(name: string, options: EmulateOptions): Promise<void> {
  checkServerOptions(options);
  const faults = await faultPlanOf(options, await namesOf(options));
  const device = isModulePath(name) ? await loadDeviceModule(name) : await DEVICES[name]!(options);
  try {
    // What migrates says which of its client's memory it wrote, too.
    const dirtyPages = options.migration === undefined ? 'none' : 'logging';
    await runServer(options, (where) => start(device, { ...where, dirtyPages }, faults));
    if (faults !== undefined) await print(`${reportText(faults.report())}\n`);
  } finally {
    await closeDevice(device);
  }
}

/** Faults that a server of the device cannot have are wrong usage. */
async function start(
  device: DeviceModel,
  options: ServeOptions,
  faults: FaultPlan | undefined,
): ReturnType<typeof serve> {
  if (faults === undefined) return serve(device, options);
  const ofMessages = faults.messageFault();
  if (ofMessages !== undefined)
    throw new UsageError(`${ofMessages} happens to messages: vfio-user proxy has such faults`);
  return serve(device, {
    ...options,
    faults,
    onFault: ({ number, fault, what }) => {
      process.stderr.write(`${printable(`fault ${number}: ${fault}: ${what}`)}\n`);
    },
  });
}

export interface EmulateNvmeOptions {
  size?: number;
  file?: string;
  blockSize?: number;
  metadataSize?: number;
}

/** Adds the options that only this device has. */
export function addNvmeOptions(command: Command): Command {
  return command
    .option('--size <bytes>', 'nvme, virtio-blk, virtio-scsi: how large it is, for example 1G', byteSize)
    .option(
      '--file <file>',
      'nvme, virtio-blk, virtio-scsi: keep the blocks in a file, which is made where there is none',
    )
    .option(
      '--block-size <bytes>',
      'nvme, virtio-blk, virtio-scsi: 512 (where nothing is said), 1024, 2048 or 4096',
      length,
    )
    .option('--metadata-size <bytes>', 'nvme: metadata of each block, which is kept in memory', length);
}

export async function emulatedNvme(options: EmulateNvmeOptions): Promise<NvmeDevice> {
  const { size, file, blockSize = 512, metadataSize = 0 } = options;
  const store = await openStore('nvme', size, file);
  try {
    return new NvmeDevice({ namespaces: [{ store, blockSize, metadataSize }] });
  } catch (error) {
    await store.close();
    throw error instanceof RangeError ? new UsageError(error.message) : error;
  }
}

async function emulatedBlk({ size, file, blockSize = 512 }: EmulateNvmeOptions): Promise<VirtioBlkDevice> {
  const store = await openStore('virtio-blk', size, file);
  try {
    return new VirtioBlkDevice({ store, blockSize });
  } catch (error) {
    await store.close();
    throw error instanceof TypeError || error instanceof RangeError ? new UsageError(error.message) : error;
  }
}

async function emulatedScsi({ size, file, blockSize = 512 }: EmulateNvmeOptions): Promise<VirtioScsiDevice> {
  const store = await openStore('virtio-scsi', size, file);
  try {
    return new VirtioScsiDevice({ units: [{ store, blockSize }] });
  } catch (error) {
    await store.close();
    throw error instanceof TypeError || error instanceof RangeError ? new UsageError(error.message) : error;
  }
}

async function openStore(
  name: string,
  size: number | undefined,
  file: string | undefined,
): Promise<MemoryStore | FileStore> {
  if (file !== undefined) return FileStore.open(file, size);
  if (size !== undefined) return new MemoryStore(size);
  throw new UsageError(`emulate ${name} wants a --size, or a --file that has one`);
}
