/**
 * Our NVMe decoders beside nvme(1) of nvme-cli: every field of a controller, a namespace and their log pages, of made
 * bytes. The tool decodes what a device gives, so a preloaded library has /dev/null answer.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import {
  decodeControllerIdentity,
  decodeErrorLog,
  decodeFirmwareLog,
  decodeNamespaceIdentity,
  decodeNamespaceList,
  decodeSmartLog,
  decodeStatus,
  type ControllerIdentity,
  type FirmwareLog,
  type NamespaceIdentity,
  type SmartLog,
} from '../../lib/nvme/index.js';
import { Random } from '../../lib/faults/index.js';
import { Scratch } from '../cli/cli.js';
import { canPreload, compilePreload } from '../support/preload.js';

const NVME = process.env['VFIO_USER_NVME_CLI'] || 'nvme';
const HAS_NVME = canPreload && spawnSync(NVME, ['version']).status === 0;

const PAGE = 4096;
/** Bytes of log pages. */
const [SMART, ERROR_ENTRY, FIRMWARE] = [512, 64, 512];
const ENTRIES = 16;

let scratch: Scratch;
let library: string;

beforeAll(() => {
  scratch = new Scratch();
  if (HAS_NVME) library = compilePreload('nvme-device', scratch.path('.'));
});

afterAll(() => scratch.remove());

/** What nvme prints of these bytes. */
function nvme(bytes: Buffer, ...args: string[]): string {
  const file = scratch.path('bytes');
  writeFileSync(file, bytes);
  const env = { ...process.env, LD_PRELOAD: library, VFIO_USER_NVME_BYTES: file };
  const [command, ...rest] = args;
  const { status, stdout, stderr } = spawnSync(NVME, [command!, '/dev/null', ...rest], { env });
  if (status !== 0) throw new Error(`nvme ${args.join(' ')} ended with ${status}: ${String(stderr)}`);
  return stdout.toString('latin1');
}

type Json = Readonly<Record<string, unknown>>;

/** Its JSON, with whole numbers as text: some have 128 bits. */
function json(bytes: Buffer, ...args: string[]): Json {
  const text = nvme(bytes, ...args, '--output-format=json');
  return JSON.parse(text.replace(/^(\s*"[^"]*":)(-?\d+)(,?)$/gm, '$1"$2"$3')) as Json;
}

/** A number of that many bits, which nvme may print with a sign. */
function unsigned(value: unknown, bits: number): bigint {
  return BigInt.asUintN(bits, BigInt(value as string));
}

function number(value: unknown, bits = 32): number {
  return Number(unsigned(value, bits));
}

function sizes(value: unknown): { required: number; maximum: number } {
  return { required: number(value) & 0xf, maximum: number(value) >>> 4 };
}

function versionOf(value: unknown): string {
  const bits = number(value);
  return bits === 0 ? '' : [bits >>> 16, (bits >>> 8) & 0xff, bits & 0xff].join('.');
}

function controllerBy(bytes: Buffer): ControllerIdentity {
  const said = json(bytes, 'id-ctrl');
  // An empty one is left out.
  const text = (name: string): string => ((said[name] as string | undefined) ?? '').trim();
  const vwc = number(said['vwc']);
  return {
    vendorId: number(said['vid']),
    subsystemVendorId: number(said['ssvid']),
    serialNumber: text('sn'),
    modelNumber: text('mn'),
    firmwareRevision: text('fr'),
    arbitrationBurst: 2 ** number(said['rab']),
    ieeeOui: number(said['ieee']).toString(16).padStart(6, '0'),
    multiPath: number(said['cmic']),
    maxDataTransfer: number(said['mdts']),
    controllerId: number(said['cntlid']),
    version: versionOf(said['ver']),
    resumeLatencyUs: number(said['rtd3r']),
    entryLatencyUs: number(said['rtd3e']),
    asyncEvents: number(said['oaes']),
    attributes: number(said['ctratt']),
    controllerType: number(said['cntrltype']),
    optionalAdminCommands: number(said['oacs']),
    abortCommandLimit: number(said['acl']) + 1,
    asyncEventLimit: number(said['aerl']) + 1,
    firmwareUpdates: number(said['frmw']),
    logPageAttributes: number(said['lpa']),
    errorLogEntries: number(said['elpe']) + 1,
    powerStates: number(said['npss']) + 1,
    warningTemperatureKelvin: number(said['wctemp']),
    criticalTemperatureKelvin: number(said['cctemp']),
    totalCapacityBytes: unsigned(said['tnvmcap'], 128),
    unallocatedCapacityBytes: unsigned(said['unvmcap'], 128),
    keepAlive: number(said['kas']),
    submissionEntrySize: sizes(said['sqes']),
    completionEntrySize: sizes(said['cqes']),
    maxOutstandingCommands: number(said['maxcmd']),
    namespaces: number(said['nn']),
    optionalNvmCommands: number(said['oncs']),
    fusedOperations: number(said['fuses']),
    formatAttributes: number(said['fna']),
    volatileWriteCache: (vwc & 1) !== 0,
    flushesAllNamespaces: (vwc & 6) === 6,
    atomicWriteUnit: number(said['awun']) + 1,
    atomicWriteUnitPowerFail: number(said['awupf']) + 1,
    sgls: number(said['sgls']),
    subsystemNqn: text('subnqn'),
  };
}

function namespaceBy(bytes: Buffer): NamespaceIdentity {
  const said = json(bytes, 'id-ns', '--namespace-id=1');
  const inUse = /^lbaf +(\d+) .*\(in use\)/m.exec(nvme(bytes, 'id-ns', '--namespace-id=1'))?.[1];
  const formats = said['lbafs'] as readonly Json[];
  return {
    size: unsigned(said['nsze'], 64),
    capacity: unsigned(said['ncap'], 64),
    utilization: unsigned(said['nuse'], 64),
    features: number(said['nsfeat']),
    formatIndex: Number(inUse),
    extendedMetadata: (number(said['flbas']) & 0x10) !== 0,
    formats: formats.map(({ ms, ds, rp }) => ({
      dataSize: number(ds) === 0 ? 0 : 2 ** number(ds),
      metadataSize: number(ms),
      relativePerformance: number(rp) & 3,
    })),
    protection: number(said['dps']),
    multiPath: number(said['nmic']),
    deallocation: number(said['dlfeat']),
    optimalBoundary: number(said['noiob']),
    capacityBytes: unsigned(said['nvmcap'], 128),
    writeProtected: (number(said['nsattr']) & 1) !== 0,
    nguid: said['nguid'] as string,
    eui64: said['eui64'] as string,
  };
}

function smartBy(bytes: Buffer): SmartLog {
  const said = json(bytes, 'smart-log');
  const count = (name: string): bigint => unsigned(said[name], 128);
  const warning = number(said['critical_warning']);
  const sensors = Array.from({ length: 8 }, (_, i) => {
    const value = said[`temperature_sensor_${i + 1}`];
    return value === undefined ? undefined : number(value);
  });
  return {
    criticalWarning: {
      spareBelowThreshold: (warning & 1) !== 0,
      temperature: (warning & 2) !== 0,
      reliabilityDegraded: (warning & 4) !== 0,
      readOnly: (warning & 8) !== 0,
      backupFailed: (warning & 16) !== 0,
      persistentMemoryReadOnly: (warning & 32) !== 0,
    },
    temperatureKelvin: number(said['temperature']),
    availableSparePercent: number(said['avail_spare']),
    availableSpareThresholdPercent: number(said['spare_thresh']),
    percentageUsed: number(said['percent_used']),
    dataUnitsRead: count('data_units_read'),
    dataUnitsWritten: count('data_units_written'),
    hostReadCommands: count('host_read_commands'),
    hostWriteCommands: count('host_write_commands'),
    controllerBusyMinutes: count('controller_busy_time'),
    powerCycles: count('power_cycles'),
    powerOnHours: count('power_on_hours'),
    unsafeShutdowns: count('unsafe_shutdowns'),
    mediaErrors: count('media_errors'),
    errorLogEntries: count('num_err_log_entries'),
    warningTemperatureMinutes: number(said['warning_temp_time']),
    criticalTemperatureMinutes: number(said['critical_comp_time']),
    temperatureSensors: sensors.slice(0, sensors.findLastIndex((value) => value !== undefined) + 1),
  };
}

function errorsBy(bytes: Buffer): ReturnType<typeof decodeErrorLog> {
  const said = json(bytes, 'error-log', `--log-entries=${ENTRIES}`);
  const entries = (said['errors'] as readonly Json[]).map((entry) => ({
    errorCount: unsigned(entry['error_count'], 64),
    submissionQueue: number(entry['sqid'], 16),
    commandId: number(entry['cmdid'], 16),
    status: decodeStatus(number(entry['status_field'], 15)),
    parameterErrorLocation: number(entry['parm_error_location'], 16),
    lba: unsigned(entry['lba'], 64),
    namespace: number(entry['nsid']),
    vendorLogPage: number(entry['vs'], 8),
    commandSpecific: unsigned(entry['cs'], 64),
  }));
  return entries.filter(({ errorCount }) => errorCount !== 0n);
}

function firmwareBy(bytes: Buffer): FirmwareLog {
  const said = json(bytes, 'fw-log')['null'] as Json;
  const active = number(said['Active Firmware Slot (afi)']);
  const revisions = Array.from({ length: 7 }, (_, i) => {
    // The eight bytes as a number, and what is printable of them.
    const value = (said[`Firmware Rev Slot ${i + 1}`] as string | undefined)?.split(' ')[0] ?? '0';
    const letters = Buffer.alloc(8);
    letters.writeBigUInt64LE(BigInt(value));
    return letters.toString('latin1').split('\0')[0]!.trim();
  });
  return { activeSlot: active & 7, nextSlot: (active >>> 4) & 7, revisions };
}

function namespacesBy(bytes: Buffer): number[] {
  const said = json(bytes, 'list-ns');
  return (said['nsid_list'] as readonly Json[]).map(({ nsid }) => number(nsid));
}

/** Text as controllers have it: ASCII, padded with spaces, the NQN with NULs. */
function putText(bytes: Buffer, random: Random): void {
  for (const [offset, length, padding] of [
    [4, 20, ' '],
    [24, 40, ' '],
    [64, 8, ' '],
    [768, 256, '\0'],
  ] as const) {
    const count = random.below(length + 1);
    // Not what JSON escapes, which nvme does not.
    const letters = Array.from({ length: count }, () => 0x20 + random.below(0x5f)).filter(
      (letter) => letter !== 0x22 && letter !== 0x5c,
    );
    bytes.write(Buffer.from(letters).toString('latin1').padEnd(length, padding), offset, 'latin1');
  }
}

/** Noise of `size` bytes, of which a part is zeroes. */
function noise(size: number, seed: number): Buffer {
  const random = new Random(seed);
  return Buffer.from(Array.from({ length: size }, () => (random.below(4) === 0 ? 0 : random.below(256))));
}

/** Nvme does not survive more power states than a controller can have. */
const MOST_POWER_STATES = 32;
const MOST_FORMATS = 64;

function noisyController(seed: number): Buffer {
  const bytes = noise(PAGE, seed);
  bytes[263]! %= MOST_POWER_STATES;
  putText(bytes, new Random(seed + 1));
  return bytes;
}

/** One that is in one of the formats that it has. */
function noisyNamespace(seed: number): Buffer {
  const bytes = noise(PAGE, seed);
  const count = (bytes[25]! % MOST_FORMATS) + 1;
  const inUse = new Random(seed + 1).below(count);
  bytes[25] = count - 1;
  bytes[26] = (inUse & 0xf) | ((inUse >>> 4) << 5) | (bytes[26]! & 0x10);
  return bytes;
}

/** Nvme asks Identify Controller how many entries there are, and is given these bytes there, too. */
function noisyErrors(seed: number): Buffer {
  const bytes = noise(ENTRIES * ERROR_ENTRY, seed);
  bytes[262] = ENTRIES - 1;
  return bytes;
}

/** A controller as they are sold. */
function usualController(): Buffer {
  const bytes = Buffer.alloc(PAGE);
  bytes.writeUInt16LE(0x144d, 0);
  bytes.writeUInt16LE(0x144d, 2);
  bytes.write('S4EWNX0R123456A'.padEnd(20), 4);
  bytes.write('Invented SSD 980 PLUS 1TB'.padEnd(40), 24);
  bytes.write('2B2QEXM7', 64);
  bytes.set([2, 0x38, 0x25, 0, 0, 9, 4, 0], 72);
  bytes.writeUInt32LE(0x10300, 80);
  bytes.writeUInt32LE(100_000, 84);
  bytes.writeUInt32LE(8_000_000, 88);
  bytes.writeUInt32LE(0x200, 92);
  bytes.writeUInt16LE(0x17, 256);
  bytes.set([7, 3, 0x16, 3, 63, 4], 258);
  bytes.writeUInt16LE(358, 266);
  bytes.writeUInt16LE(358, 268);
  bytes.writeBigUInt64LE(1_000_204_886_016n, 280);
  bytes.set([0x66, 0x44], 512);
  bytes.writeUInt32LE(1, 516);
  bytes.writeUInt16LE(0x5f, 520);
  bytes.set([0, 0, 0, 1], 522);
  bytes.writeUInt16LE(1023, 526);
  bytes.write('nqn.1994-11.org.example:nvme:980P:M.2:S4EWNX0R123456A', 768);
  return bytes;
}

function usualNamespace(): Buffer {
  const bytes = Buffer.alloc(PAGE);
  for (const at of [0, 8]) bytes.writeBigUInt64LE(1_953_525_168n, at);
  bytes.writeBigUInt64LE(1_200_000_000n, 16);
  bytes.set([0, 1, 1], 24);
  bytes.writeBigUInt64LE(1_000_204_886_016n, 48);
  bytes.write('002538b901b45e7a', 120, 'hex');
  bytes.writeUInt32LE((9 << 16) | (2 << 24), 128);
  bytes.writeUInt32LE(12 << 16, 132);
  return bytes;
}

function usualSmart(): Buffer {
  const bytes = Buffer.alloc(SMART);
  bytes.writeUInt16LE(311, 1);
  bytes.set([100, 10, 2], 3);
  const counts = [21_034_857, 33_882_113, 402_113_005, 611_004_119, 2_310, 1_544, 8_011, 132, 0, 2_977];
  for (const [i, count] of counts.entries()) bytes.writeBigUInt64LE(BigInt(count), 32 + 16 * i);
  bytes.writeUInt32LE(3, 192);
  for (const [sensor, value] of [
    [1, 311],
    [2, 318],
    [5, 290],
  ] as const) {
    bytes.writeUInt16LE(value, 198 + 2 * sensor);
  }
  return bytes;
}

/** What is usual, nothing, and noise. */
function samples(
  size: number,
  usual: Buffer,
  made = (seed: number) => noise(size, seed),
): [string, Buffer][] {
  const seeds = Array.from({ length: 24 }, (_, i) => 1_000 + 7 * i);
  return [
    ['as usual', usual],
    ['of zeroes', Buffer.alloc(size)],
    ...seeds.map((seed): [string, Buffer] => [`of noise ${seed}`, made(seed)]),
  ];
}

(HAS_NVME ? describe : describe.skip)('as nvme decodes it (needs nvme-cli and a C compiler)', () => {
  test.each(samples(PAGE, usualController(), noisyController))('a controller %s', (_what, bytes) => {
    expect(decodeControllerIdentity(bytes)).toEqual(controllerBy(bytes));
  });

  test.each(samples(PAGE, usualNamespace(), noisyNamespace))('a namespace %s', (_what, bytes) => {
    expect(decodeNamespaceIdentity(bytes)).toEqual(namespaceBy(bytes));
  });

  test.each(samples(SMART, usualSmart()))('a SMART log %s', (_what, bytes) => {
    expect(decodeSmartLog(bytes)).toEqual(smartBy(bytes));
  });

  test.each(samples(ENTRIES * ERROR_ENTRY, noisyErrors(1).fill(0, ERROR_ENTRY), noisyErrors))(
    'an error log %s',
    (_what, bytes) => {
      expect(decodeErrorLog(bytes)).toEqual(errorsBy(bytes));
    },
  );

  test.each(samples(FIRMWARE, Buffer.alloc(FIRMWARE).fill('FW 1.0  ', 8, 24).fill(0x11, 0, 1)))(
    'a firmware log %s',
    (_what, bytes) => {
      expect(decodeFirmwareLog(bytes)).toEqual(firmwareBy(bytes));
    },
  );

  test.each([
    ['of none', Buffer.alloc(PAGE)],
    ['of three', Buffer.from(Uint32Array.of(1, 7, 0xffff_fffe).buffer)],
    ['that is full', Buffer.from(Uint32Array.from({ length: PAGE / 4 }, (_, i) => i + 1).buffer)],
  ])('a list of namespaces %s', (_what, list) => {
    const bytes = Buffer.concat([list, Buffer.alloc(PAGE - list.length)]);
    expect(decodeNamespaceList(bytes)).toEqual(namespacesBy(bytes));
  });
});
