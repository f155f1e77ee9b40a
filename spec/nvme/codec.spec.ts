/** What the structures of a controller mean, built here byte by byte from the specification's tables. */
import { describe, expect, test } from '@jest/globals';
import { ProtocolError } from '../../lib/index.js';
import {
  decodeControllerIdentity,
  decodeErrorLog,
  decodeFirmwareLog,
  decodeNamespaceIdentity,
  decodeNamespaceList,
  decodeSmartLog,
  decodeStatus,
  NvmeNamespace,
  NvmeStatusError,
} from '../../lib/nvme/index.js';
import {
  adminQueueAttributes,
  completionDoorbell,
  decodeCapabilities,
  enabledConfiguration,
  submissionDoorbell,
  versionText,
} from '../../lib/nvme/registers.js';

/** Bytes with hexadecimal digits put in, little-endian as they stand. */
function bytes(size: number, parts: Record<number, string>): Buffer {
  const all = Buffer.alloc(size);
  for (const [at, digits] of Object.entries(parts))
    Buffer.from(digits.replaceAll(' ', ''), 'hex').copy(all, Number(at));
  return all;
}

const text = (value: string, size: number) => Buffer.from(value.padEnd(size)).toString('hex');

describe('registers', () => {
  test('CAP', () => {
    // MQES 0xff, CQR, TO 0x1e, DSTRD 1, NSSRS, CSS NVM and I/O command sets, MPSMIN 0, MPSMAX 4.
    expect(decodeCapabilities(0x0040_0831_1e01_00ffn)).toEqual({
      maxQueueEntries: 256,
      contiguousQueuesRequired: true,
      readyTimeoutMs: 15_000,
      doorbellStride: 8,
      subsystemReset: true,
      commandSets: 0b0100_0001,
      minPageSize: 4096,
      maxPageSize: 65_536,
    });
    expect(decodeCapabilities(0n)).toMatchObject({
      maxQueueEntries: 1,
      readyTimeoutMs: 0,
      doorbellStride: 4,
    });
    expect(decodeCapabilities(2n ** 64n - 1n)).toMatchObject({
      maxQueueEntries: 65_536,
      minPageSize: 2 ** 27,
    });
  });

  test('CC, AQA, VS, doorbells', () => {
    expect(enabledConfiguration(4096, 1)).toBe(0x0046_0001);
    expect(enabledConfiguration(16_384, 0b0100_0000)).toBe(0x0046_0161);
    expect(adminQueueAttributes(32)).toBe(0x001f_001f);
    expect(versionText(0x0001_0300)).toBe('1.3.0');
    expect([submissionDoorbell(0, 4), completionDoorbell(0, 4)]).toEqual([0x1000, 0x1004]);
    expect([submissionDoorbell(3, 16), completionDoorbell(3, 16)]).toEqual([0x1060, 0x1070]);
  });
});

describe('Identify Controller', () => {
  test('every field', () => {
    const identity = decodeControllerIdentity(
      bytes(4096, {
        0: '36 1b f4 1a',
        4: text('SN 12', 20),
        24: text('A model', 40),
        64: text('8.1', 8),
        72: '06 00 54 52 0a 07 02 00',
        80: '00 04 01 00 10 27 00 00 20 4e 00 00 00 01 00 00 80 00 00 00',
        111: '01',
        256: '0a 01 03 04 06 04 3f 02',
        266: '57 01 61 01',
        280: '00 00 00 00 01 00 00 00 01',
        296: '05',
        320: '64 00',
        512: '66 44 00 01 00 01 00 00 5f 01 01 00 04 07 0f 00 01 00',
        536: '01 00 0d 00',
        768: Buffer.from('nqn.2019-08.org.qemu:x\0junk').toString('hex'),
      }),
    );
    expect(identity).toEqual({
      vendorId: 0x1b36,
      subsystemVendorId: 0x1af4,
      serialNumber: 'SN 12',
      modelNumber: 'A model',
      firmwareRevision: '8.1',
      arbitrationBurst: 64,
      ieeeOui: '525400',
      multiPath: 0x0a,
      maxDataTransfer: 7,
      controllerId: 2,
      version: '1.4.0',
      resumeLatencyUs: 10_000,
      entryLatencyUs: 20_000,
      asyncEvents: 0x100,
      attributes: 0x80,
      controllerType: 1,
      optionalAdminCommands: 0x10a,
      abortCommandLimit: 4,
      asyncEventLimit: 5,
      firmwareUpdates: 6,
      logPageAttributes: 4,
      errorLogEntries: 64,
      powerStates: 3,
      warningTemperatureKelvin: 343,
      criticalTemperatureKelvin: 353,
      totalCapacityBytes: (1n << 64n) + (1n << 32n),
      unallocatedCapacityBytes: 5n,
      keepAlive: 100,
      submissionEntrySize: { required: 6, maximum: 6 },
      completionEntrySize: { required: 4, maximum: 4 },
      maxOutstandingCommands: 256,
      namespaces: 256,
      optionalNvmCommands: 0x15f,
      fusedOperations: 1,
      formatAttributes: 4,
      volatileWriteCache: true,
      flushesAllNamespaces: true,
      atomicWriteUnit: 16,
      atomicWriteUnitPowerFail: 2,
      sgls: 0x000d_0001,
      subsystemNqn: 'nqn.2019-08.org.qemu:x',
    });
  });

  test('a controller that does not say its version, and one that is too short', () => {
    expect(decodeControllerIdentity(Buffer.alloc(4096)).version).toBe('');
    expect(() => decodeControllerIdentity(Buffer.alloc(4095))).toThrow(ProtocolError);
  });
});

describe('Identify Namespace', () => {
  const base = {
    0: '00 00 02 00 00 00 00 00 00 00 01 00 00 00 00 00 05 00 00 00 00 00 00 00',
    24: '1f 02 01 00 00 00 00 00 00 09',
    46: '08 00 00 00 00 10',
    99: '01',
    104: '00112233445566778899aabbccddeeff',
    120: '0102030405060708',
    128: '00 00 09 02 08 00 0c 01 00 00 00 00',
  };

  test('every field', () => {
    expect(decodeNamespaceIdentity(bytes(4096, base))).toEqual({
      size: 131_072n,
      capacity: 65_536n,
      utilization: 5n,
      features: 0x1f,
      formatIndex: 1,
      extendedMetadata: false,
      formats: [
        { dataSize: 512, metadataSize: 0, relativePerformance: 2 },
        { dataSize: 4096, metadataSize: 8, relativePerformance: 1 },
        { dataSize: 0, metadataSize: 0, relativePerformance: 0 },
      ],
      protection: 0,
      multiPath: 0,
      deallocation: 9,
      optimalBoundary: 8,
      capacityBytes: 0x1000_0000n,
      writeProtected: true,
      nguid: '00112233445566778899aabbccddeeff',
      eui64: '0102030405060708',
    });
  });

  test('the upper bits of a format among more than 16, and metadata behind the data', () => {
    const identity = decodeNamespaceIdentity(bytes(4096, { 25: '1f 35' }));
    expect(identity).toMatchObject({ formatIndex: 0x15, extendedMetadata: true });
    expect(identity.formats).toHaveLength(32);
  });

  test('formats that the driver does not know are not used', () => {
    const withMetadata = new NvmeNamespace(1, decodeNamespaceIdentity(bytes(4096, base)));
    expect(() => withMetadata.requireUsable()).toThrow('8 bytes of metadata');
    const large = decodeNamespaceIdentity(bytes(4096, { 0: '01', 128: '00 00 0d 00' }));
    expect(() => new NvmeNamespace(1, large).requireUsable()).toThrow('8192 bytes');
    const unused = decodeNamespaceIdentity(bytes(4096, { 0: '01' }));
    expect(() => new NvmeNamespace(1, unused).requireUsable()).toThrow('0 bytes');
  });

  test('claims that cannot be', () => {
    expect(() => decodeNamespaceIdentity(Buffer.alloc(100))).toThrow(ProtocolError);
    const beyond = decodeNamespaceIdentity(bytes(4096, { 25: '00 05', 128: '00 00 09 00' }));
    expect(() => new NvmeNamespace(1, beyond)).toThrow(ProtocolError);
    const endless = decodeNamespaceIdentity(
      bytes(4096, { 0: 'ff ff ff ff ff ff ff ff', 128: '00 00 09 00' }),
    );
    expect(() => new NvmeNamespace(1, endless)).toThrow(ProtocolError);
  });

  test('the list of active namespaces ends at zero, or when it is full', () => {
    expect(decodeNamespaceList(bytes(4096, { 0: '01 00 00 00 05 00 00 00 00 00 00 00 07' }))).toEqual([1, 5]);
    expect(decodeNamespaceList(Buffer.alloc(4096, 1))).toHaveLength(1024);
    expect(() => decodeNamespaceList(Buffer.alloc(4))).toThrow(ProtocolError);
  });
});

describe('log pages', () => {
  test('SMART', () => {
    const log = decodeSmartLog(
      bytes(512, {
        0: '2b 42 01 64 0a 69',
        32: '01 00 00 00 00 00 00 00 01',
        48: '02',
        64: '03',
        80: '04',
        96: '05',
        112: '06',
        128: '07',
        144: '08',
        160: '09',
        176: '0a',
        192: '0b 00 00 00 0c 00 00 00 42 01 00 00 43 01',
      }),
    );
    expect(log).toEqual({
      criticalWarning: {
        spareBelowThreshold: true,
        temperature: true,
        reliabilityDegraded: false,
        readOnly: true,
        backupFailed: false,
        persistentMemoryReadOnly: true,
      },
      temperatureKelvin: 322,
      availableSparePercent: 100,
      availableSpareThresholdPercent: 10,
      percentageUsed: 105,
      dataUnitsRead: (1n << 64n) + 1n,
      dataUnitsWritten: 2n,
      hostReadCommands: 3n,
      hostWriteCommands: 4n,
      controllerBusyMinutes: 5n,
      powerCycles: 6n,
      powerOnHours: 7n,
      unsafeShutdowns: 8n,
      mediaErrors: 9n,
      errorLogEntries: 10n,
      warningTemperatureMinutes: 11,
      criticalTemperatureMinutes: 12,
      // By their numbers: the controller has no sensor 2.
      temperatureSensors: [322, undefined, 323],
    });
    expect(log.temperatureSensors).toHaveLength(3);
    expect(decodeSmartLog(Buffer.alloc(512)).temperatureSensors).toEqual([]);
    const last = Buffer.alloc(512);
    last.writeUInt16LE(310, 214);
    expect(decodeSmartLog(last).temperatureSensors[7]).toBe(310);
    expect(decodeSmartLog(last).temperatureSensors.filter((kelvin) => kelvin !== undefined)).toEqual([310]);
    expect(() => decodeSmartLog(Buffer.alloc(511))).toThrow(ProtocolError);
  });

  test('errors', () => {
    const entry = '0200000000000000 0100 0700 0305 2800 8877665544332211 01000000 c0';
    const log = decodeErrorLog(bytes(130, { 0: entry, 32: '0500', 64: '00' }));
    expect(log).toEqual([
      {
        errorCount: 2n,
        submissionQueue: 1,
        commandId: 7,
        status: { sct: 2, sc: 0x81, name: 'UNRECOVERED_READ_ERROR', dnr: false, more: false },
        parameterErrorLocation: 0x28,
        lba: 0x1122334455667788n,
        namespace: 1,
        vendorLogPage: 0xc0,
        commandSpecific: 5n,
      },
    ]);
  });

  test('firmware', () => {
    const log = decodeFirmwareLog(bytes(512, { 0: '21', 8: text('1.0', 8), 56: text('1.7', 8) }));
    expect(log).toEqual({ activeSlot: 1, nextSlot: 2, revisions: ['1.0', '', '', '', '', '', '1.7'] });
  });
});

describe('status', () => {
  test.each([
    [0x0000, 0, 0x00, 'SUCCESS', false],
    [0x0080, 0, 0x80, 'LBA_OUT_OF_RANGE', false],
    [0x4102, 1, 0x02, 'INVALID_QUEUE_SIZE', true],
    [0x0371, 3, 0x71, 'ABORTED_BY_HOST', false],
    [0x07c0, 7, 0xc0, 'SCT_7_SC_c0', false],
  ])('0x%s', (status, sct, sc, name, dnr) => {
    expect(decodeStatus(status)).toEqual({ sct, sc, name, dnr, more: false });
  });

  test('an error says what was asked, and what the answer was', () => {
    const error = new NvmeStatusError('write', 0x6285);
    expect(error).toMatchObject({
      name: 'NvmeStatusError',
      code: 'ERR_NVME_COMPARE_FAILURE',
      statusName: 'COMPARE_FAILURE',
      dnr: true,
      more: true,
    });
    expect(error.message).toBe(
      'write: the controller answered COMPARE_FAILURE (sct 2, sc 0x85, do not retry)',
    );
  });
});
