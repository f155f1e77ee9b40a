/** The fields of extended capabilities, with bytes written by hand from the specification. */
import { describe, expect, test } from '@jest/globals';
import { decodeConfigSpace, findCapability, type ExtendedCapability } from '../../lib/pci/index.js';
import { reader } from './config-bytes.js';

/** One capability at 0x100 of a device of that PCI Express type. */
function decode(
  id: string,
  body: string,
  type = '0',
): { capability: ExtendedCapability; problems: readonly string[] } {
  const { extendedCapabilities, problems } = decodeConfigSpace(
    reader(4096, { 0x06: '1000', 0x34: '40', 0x40: `1000 ${type}200`, 0x100: `${id} 0100 ${body}` }),
  );
  expect(extendedCapabilities).toHaveLength(1);
  return { capability: extendedCapabilities[0]!, problems };
}

function fields<K extends ExtendedCapability['kind']>(
  kind: K,
  id: string,
  body: string,
  type?: string,
): Extract<ExtendedCapability, { kind: K }> {
  const { capability, problems } = decode(id, body, type);
  expect(problems).toEqual([]);
  expect(capability.kind).toBe(kind);
  return capability as Extract<ExtendedCapability, { kind: K }>;
}

/** The names of the flags that are set. */
function set(flags: object): string[] {
  return Object.entries(flags)
    .filter(([, value]) => value === true)
    .map(([name]) => name);
}

describe('Advanced Error Reporting', () => {
  const REGISTERS =
    '30100480 00401000 31204600 01200000 c0f00000 a5110000 04000001 0f010000 44332211 00000080';

  test('tells which errors there were, which count, and of what', () => {
    const error = fields('advanced-error-reporting', '0100', REGISTERS);
    expect(set(error.uncorrectable.status)).toEqual([
      'dataLinkProtocol',
      'surpriseDown',
      'poisonedTlp',
      'malformedTlp',
      'tlpTranslationEgressBlocked',
    ]);
    expect(set(error.uncorrectable.mask)).toEqual(['completionTimeout', 'unsupportedRequest']);
    expect(set(error.uncorrectable.severity)).toEqual([
      'dataLinkProtocol',
      'surpriseDown',
      'flowControlProtocol',
      'receiverOverflow',
      'malformedTlp',
      'internal',
    ]);
    expect(set(error.correctable.status)).toEqual(['receiver', 'advisoryNonFatal']);
    expect(set(error.correctable.mask)).toEqual([
      'badTlp',
      'badDllp',
      'replayTimerTimeout',
      'advisoryNonFatal',
      'internal',
      'headerLogOverflow',
    ]);
    expect(set(error.control)).toEqual([
      'ecrcGenerationCapable',
      'ecrcCheckCapable',
      'ecrcCheckEnabled',
      'completionTimeoutLogCapable',
    ]);
    expect(error.control.firstErrorPointer).toBe(5);
    expect(error.headerLog).toEqual([0x0100_0004, 0x10f, 0x1122_3344, 0x8000_0000]);
    expect(error.root).toBeNull();
  });

  test.each(['4', 'a'])('of a port of type %s tells what it has heard of', (type) => {
    const { root } = fields(
      'advanced-error-reporting',
      '0100',
      `${REGISTERS} 05000000 510000f8 3412 7856`,
      type,
    );
    expect(set(root!.command)).toEqual(['correctable', 'fatal']);
    expect(set(root!.status)).toEqual(['correctableReceived', 'firstUncorrectableFatal', 'fatalReceived']);
    expect(root).toMatchObject({
      interruptMessageNumber: 31,
      correctableSourceId: 0x1234,
      uncorrectableSourceId: 0x5678,
    });
  });
});

test('Downstream Port Containment', () => {
  const dpc = fields('downstream-port-containment', '1d00', 'e315 ae00 3b0c 3412', '6');
  expect(dpc.interruptMessageNumber).toBe(3);
  expect(set(dpc.capabilities)).toEqual([
    'rootPortExtensions',
    'poisonedTlpEgressBlocking',
    'softwareTriggering',
    'dataLinkActiveErrorSignaling',
  ]);
  expect(dpc.capabilities.rpPioLogSize).toBe(5);
  expect(set(dpc.control)).toEqual([
    'completionControl',
    'interruptEnabled',
    'poisonedTlpEgressBlockingEnabled',
    'dataLinkActiveErrorEnabled',
  ]);
  expect(dpc.control.trigger).toBe(2);
  expect(set(dpc.status)).toEqual(['triggered', 'interrupt', 'rootPortBusy']);
  expect(dpc.status).toMatchObject({ reason: 1, reasonExtension: 1, rpPioFirstErrorPointer: 12 });
  expect(dpc.sourceId).toBe(0x1234);
});

test('Single Root I/O Virtualization', () => {
  const iov = fields(
    'sr-iov',
    '1000',
    '05004000 1900 0100 0600 0800 0200 0300 1000 0200 0000 520d 53050000 01000000' +
      '0c0000d0 38000000 00006800 00000000 04000080 01000000 0b200000',
  );
  expect(set(iov.capabilities)).toEqual(['migration', 'tag10Requester']);
  expect(iov.capabilities.migrationInterruptMessageNumber).toBe(2);
  expect(set(iov.control)).toEqual(['vfEnable', 'memorySpaceEnable', 'ariCapableHierarchy']);
  expect(iov).toMatchObject({
    migrationStatus: true,
    initialVfs: 6,
    totalVfs: 8,
    numVfs: 2,
    functionDependencyLink: 3,
    firstVfOffset: 16,
    vfStride: 2,
    vfDeviceId: 0x0d52,
    supportedPageSizes: 0x553,
    systemPageSize: 1,
    vfBars: [
      { index: 0, kind: 'memory64', prefetchable: true, address: 0x38_d000_0000n },
      { index: 2, kind: 'memory32', prefetchable: false, address: 0x68_0000n },
      { index: 3, kind: 'memory32', prefetchable: false, address: 0n },
      { index: 4, kind: 'memory64', prefetchable: false, address: 0x1_8000_0000n },
    ],
    migrationStateArray: { bir: 3, offset: 0x2008 },
  });
});

describe('Resizable BAR', () => {
  test('has the size and the possible sizes of each', () => {
    const { bars } = fields('resizable-bar', '1500', '00f01f00 40080000 30000000 02190100');
    expect(bars).toEqual([
      {
        index: 0,
        size: 1n << 28n,
        supportedSizes: [8n, 9n, 10n, 11n, 12n, 13n, 14n, 15n, 16n].map((exponent) => 1n << (exponent + 20n)),
      },
      // From 256 TiB on they stand in the control register.
      { index: 2, size: 1n << 45n, supportedSizes: [1n << 20n, 1n << 21n, 1n << 48n] },
    ]);
  });

  test('of virtual functions', () => {
    const { bars, name } = fields('vf-resizable-bar', '2400', '10000000 25000000');
    expect(name).toBe('VF Resizable BAR');
    expect(bars).toEqual([{ index: 5, size: 1n << 20n, supportedSizes: [1n << 20n] }]);
  });

  test.each([
    [0, '00'],
    [7, 'e0'],
  ])('of %d BARs is a problem', (count, control) => {
    const { capability, problems } = decode('1500', `10000000 ${control}000000`);
    expect(problems).toEqual([expect.stringContaining(`it is of ${count} BARs, not of 1 to 6`)]);
    expect(findCapability([capability], 'resizable-bar')?.bars).toHaveLength(Math.min(count, 6));
  });
});

test('Address Translation Services', () => {
  expect(fields('address-translation-services', '0f00', '7100 0580')).toMatchObject({
    invalidateQueueDepth: 17,
    pageAlignedRequest: true,
    globalInvalidate: true,
    enabled: true,
    smallestTranslationUnit: 5,
  });
});

test('Page Request Interface', () => {
  const pri = fields('page-request-interface', '1300', '0300 0181 00020000 20000000');
  expect(pri).toMatchObject({ enabled: true, reset: true, capacity: 512, allocation: 32 });
  expect(set(pri.status)).toEqual(['responseFailure', 'stopped', 'pasidRequired']);
});

test('Process Address Space ID', () => {
  const pasid = fields('pasid', '1b00', '0614 0300');
  expect(set(pasid.capabilities)).toEqual(['executePermission', 'privilegedMode']);
  expect(set(pasid.control)).toEqual(['executePermission', 'enabled']);
  expect(pasid.maxWidth).toBe(20);
});

test('Access Control Services', () => {
  const acs = fields('access-control-services', '0d00', '7f08 1100');
  expect(set(acs.capabilities)).toHaveLength(7);
  expect(set(acs.control)).toEqual(['sourceValidation', 'upstreamForwarding']);
  expect(acs.egressVectorSize).toBe(8);
});

test('Alternative Routing-ID Interpretation', () => {
  const ari = fields('alternative-routing-id', '0e00', '0203 3100');
  expect(set(ari.capabilities)).toEqual(['acs']);
  expect(set(ari.control)).toEqual(['mfvc']);
  expect(ari).toMatchObject({ nextFunction: 3, functionGroup: 3 });
});

test('Latency Tolerance Reporting', () => {
  // 1023 times 32^2 ns, and a scale that is reserved.
  expect(fields('latency-tolerance-reporting', '1800', 'ff0b 0118')).toMatchObject({
    maxSnoopLatencyNs: 1_047_552,
    maxNoSnoopLatencyNs: null,
  });
});

test('L1 PM Substates', () => {
  const l1 = fields('l1-pm-substates', '1e00', '1f32 2900 05141e 60 33000000');
  expect(set(l1.capabilities)).toEqual(['pciPmL12', 'pciPmL11', 'aspmL12', 'aspmL11', 'l1PmSubstates']);
  expect(l1.capabilities).toMatchObject({ commonModeRestoreTimeUs: 50, powerOnTimeUs: 50 });
  expect(set(l1.control)).toEqual(['pciPmL12', 'aspmL12']);
  expect(l1.control).toMatchObject({
    commonModeRestoreTimeUs: 20,
    ltrThresholdNs: 983_040,
    powerOnTimeUs: null,
  });
});

test('Precision Time Measurement', () => {
  const ptm = fields('precision-time-measurement', '1f00', '07040000 01ff0000');
  expect(set(ptm.capabilities)).toEqual(['requester', 'responder', 'root']);
  expect(ptm.capabilities.localClockGranularityNs).toBe(4);
  expect(set(ptm.control)).toEqual(['enabled']);
  expect(ptm.control.effectiveGranularityNs).toBe(255);
});

describe('Designated Vendor-Specific', () => {
  test('is whose and what it says, with its bytes', () => {
    expect(fields('designated-vendor-specific', '2300', '981e 0101 0800 aabbccddeeff')).toMatchObject({
      name: 'Designated Vendor-Specific Extended',
      vendorId: 0x1e98,
      vendorCapabilityId: 8,
      revision: 1,
      length: 16,
      bytes: Uint8Array.from([0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]),
    });
  });

  test('that is shorter than its headers, or longer than the space, is a problem', () => {
    expect(decode('2300', '981e 8000 0000').problems).toEqual([
      expect.stringMatching(/length 8 is less than its headers/),
    ]);
    const { capability, problems } = decode('2300', '981e f0ff 0000');
    expect(problems).toEqual([expect.stringMatching(/its 4095 bytes reach past the end at 0x1000/)]);
    expect(findCapability([capability], 'designated-vendor-specific')?.bytes).toHaveLength(0x1000 - 0x10a);
  });
});

test('Data Object Exchange', () => {
  const doe = fields('data-object-exchange', '2e00', '07000000 02000000 05000080 00000000 00000000');
  expect(doe).toMatchObject({ interruptSupport: true, interruptMessageNumber: 3, interruptEnabled: true });
  expect(set(doe.status)).toEqual(['busy', 'error', 'objectReady']);
});

test.each([
  ['01', 'Advanced Error Reporting', 44],
  ['0d', 'Access Control Services', 8],
  ['0e', 'Alternative Routing-ID Interpretation', 8],
  ['0f', 'Address Translation Services', 8],
  ['10', 'Single Root I/O Virtualization', 64],
  ['13', 'Page Request Interface', 16],
  ['15', 'Resizable BAR', 12],
  ['18', 'Latency Tolerance Reporting', 8],
  ['1b', 'Process Address Space ID', 8],
  ['1d', 'Downstream Port Containment', 12],
  ['1e', 'L1 PM Substates', 16],
  ['1f', 'Precision Time Measurement', 12],
  ['23', 'Designated Vendor-Specific Extended', 10],
  ['24', 'VF Resizable BAR', 12],
  ['2e', 'Data Object Exchange', 24],
])('capability %s that reaches past the end keeps its name only', (id, name, length) => {
  const { extendedCapabilities, problems } = decodeConfigSpace(
    reader(4096, { 0x06: '1000', 0x34: '40', 0x40: '1000 0200', 0x100: '0400 c1ff', 0xffc: `${id}00 0100` }),
  );
  expect(extendedCapabilities[1]).toEqual({
    id: Number.parseInt(id, 16),
    name,
    offset: 0xffc,
    version: 1,
    kind: 'other',
  });
  expect(problems).toEqual([`${name} at 0xffc: its ${length} bytes reach past the end at 0x1000`]);
});
