import { describe, expect, test } from '@jest/globals';
import { decodeCapabilities, findCapability, type ExpressFields } from '../../lib/pci/index.js';
import { withCapabilities } from './config-bytes.js';

function express(...registers: string[]): ExpressFields {
  const { capabilities, problems } = decodeCapabilities(
    withCapabilities('40', { 0x40: `1000 ${registers.join(' ')}` }),
  );
  expect(problems).toEqual([]);
  return findCapability(capabilities, 'express')!;
}

/** The names of the flags that are set. */
function set(flags: object): string[] {
  return Object.entries(flags)
    .filter(([, value]) => value === true)
    .map(([name]) => name);
}

/** Flags, device capabilities, control and status. */
const DEVICE = ['0200', '00000000', '0000', '0000'];
/** Link capabilities, control and status. */
const LINK = ['00000000', '0000', '0000'];
const SLOT = ['00000000', '0000', '0000'];
const ROOT = ['0000', '0000', '00000000'];

describe('device registers', () => {
  test('are decoded bit by bit', () => {
    const fields = express('02ca', 'e28f 2c17', '1729', '2d00', ...LINK);
    expect(fields).toMatchObject({
      version: 2,
      deviceType: 0,
      slotImplemented: false,
      interruptMessageNumber: 5,
      flitModeSupported: true,
      maxPayloadSupported: 512,
      maxPayload: 128,
      maxReadRequest: 512,
      functionLevelReset: true,
      transactionsPending: true,
    });
    const { capabilities, control, status } = fields.device;
    expect(set(capabilities)).toEqual(['extendedTag', 'roleBasedErrorReporting', 'functionLevelReset']);
    expect(capabilities).toMatchObject({
      phantomFunctionBits: 0,
      l0sLatencyNs: null,
      l1LatencyNs: null,
      // 203 in units of a tenth of a watt.
      slotPowerMilliwatts: 20_300,
    });
    expect(set(control)).toEqual([
      'correctableErrorReporting',
      'nonFatalErrorReporting',
      'fatalErrorReporting',
      'relaxedOrdering',
      'extendedTag',
      'noSnoop',
    ]);
    expect(set(status)).toEqual([
      'correctableError',
      'fatalError',
      'unsupportedRequest',
      'transactionsPending',
    ]);
  });

  test.each([
    ['0000 9003', 228_000],
    ['0000 c003', 250_000],
    ['0000 f803', 600_000],
    ['0000 fc03', null],
    ['0000 fc0f', 255],
  ])('power limit %s', (capabilities, milliwatts) => {
    expect(
      express('0100', capabilities, '0000', '0000', ...LINK).device.capabilities.slotPowerMilliwatts,
    ).toBe(milliwatts);
  });
});

describe('link registers', () => {
  test('are decoded bit by bit', () => {
    const { link, linkCapabilities, linkStatus } = express(...DEVICE, '032d 7a07', '4a05', '4398');
    expect(linkCapabilities).toEqual({ speedCode: 3, speed: 8, width: 16 });
    expect(linkStatus).toEqual({ speedCode: 3, speed: 8, width: 4 });
    expect(link!.portNumber).toBe(7);
    expect(set(link!.capabilities)).toEqual([
      'aspmL0s',
      'aspmL1',
      'surpriseDownReporting',
      'dataLinkActiveReporting',
      'bandwidthNotification',
      'aspmOptionality',
    ]);
    expect(link!.capabilities).toMatchObject({ l0sExitLatencyNs: 256, l1ExitLatencyNs: 16_000 });
    expect(set(link!.control)).toEqual([
      'aspmL1',
      'commonClock',
      'clockPowerManagement',
      'bandwidthManagementInterrupt',
    ]);
    expect(link!.control.readCompletionBoundary).toBe(128);
    expect(set(link!.status)).toEqual(['training', 'slotClock', 'autonomousBandwidth']);
  });

  test.each([
    [1, 2.5],
    [2, 5],
    [4, 16],
    [5, 32],
    [6, 64],
    [0, null],
    [15, null],
  ])('speed %d', (speedCode, speed) => {
    const status = (0x10 | speedCode).toString(16).padStart(2, '0');
    expect(express(...DEVICE, '00000000', '0000', `${status}00`).linkStatus).toEqual({
      speedCode,
      speed,
      width: 1,
    });
  });
});

describe('slot and root registers', () => {
  test('of a root port with a slot', () => {
    const { slot, root } = express(
      ...['4201', '00000000', '0000', '0000', ...LINK],
      ...['73 8c 3c00', 'b20d', '5001', '1500', '0100', '08000300'],
    );
    expect(slot!.physicalSlotNumber).toBe(7);
    // 0x18 in units of a tenth of a watt.
    expect(slot!.powerMilliwatts).toBe(2_400);
    expect(set(slot!.capabilities)).toEqual([
      'attentionButton',
      'powerController',
      'powerIndicator',
      'hotPlugSurprise',
      'hotPlugCapable',
      'noCommandCompleted',
    ]);
    expect(set(slot!.control)).toEqual([
      'powerFaultEnable',
      'commandCompletedEnable',
      'hotPlugInterruptEnable',
      'powerOff',
      'electromechanicalInterlock',
    ]);
    expect(slot!.control).toMatchObject({ attentionIndicator: 'blink', powerIndicator: 'on' });
    expect(set(slot!.status)).toEqual(['commandCompleted', 'presence', 'dataLinkStateChanged']);
    expect(set(root!.control)).toEqual([
      'correctableSystemError',
      'fatalSystemError',
      'configurationRetryVisible',
    ]);
    expect(set(root!.capabilities)).toEqual(['configurationRetryVisible']);
    expect(set(root!.status)).toEqual(['pme', 'pmePending']);
    expect(root!.status.pmeRequesterId).toBe(8);
  });

  test('are null where there are none', () => {
    expect(express(...DEVICE, ...LINK)).toMatchObject({ slot: null, root: null });
    expect(express('6201', '00000000', '0000', '0000', ...LINK).slot).not.toBeNull();
    expect(express('a200', '00000000', '0000', '0000').root).not.toBeNull();
  });
});

describe('the second half', () => {
  const FIRST = [...DEVICE, ...LINK, ...SLOT, ...ROOT];

  test('device capabilities and control 2', () => {
    const { device2 } = express(...FIRST, '1768 7680', '6604', '0000');
    expect(set(device2!.capabilities)).toEqual([
      'completionTimeoutDisable',
      'latencyToleranceReporting',
      'extendedTphCompleter',
      'tag10Requester',
      'obffMessage',
      'extendedFmt',
      'endEndTlpPrefix',
      'functionReadinessStatus',
    ]);
    expect(device2!.capabilities).toMatchObject({
      completionTimeoutRanges: 'ABC',
      lnCacheLineSize: 64,
      maxEndEndTlpPrefixes: 1,
      emergencyPowerReduction: 0,
    });
    expect(set(device2!.control)).toEqual([
      'ariForwarding',
      'atomicOpRequester',
      'latencyToleranceReporting',
    ]);
    expect(device2!.control).toMatchObject({
      completionTimeoutUs: { min: 65_000, max: 210_000 },
      obff: 'disabled',
    });
  });

  test.each([
    ['0000', { min: 50, max: 50_000 }, 'disabled'],
    ['0120', { min: 50, max: 100 }, 'message A'],
    ['0e40', { min: 17_000_000, max: 64_000_000 }, 'message B'],
    ['0360', null, 'wake'],
  ])('device control 2 %s', (control, completionTimeoutUs, obff) => {
    expect(express(...FIRST, '00000000', control, '0000').device2!.control).toMatchObject({
      completionTimeoutUs,
      obff,
    });
  });

  test('link capabilities, control and status 2', () => {
    const { link2 } = express(...FIRST, '00000000', '0000', '0000', '0e01 8000', 'd3 08', '2f 42');
    expect(set(link2!.capabilities)).toEqual(['crosslink', 'retimerPresenceDetect']);
    expect(link2!.capabilities.supportedSpeeds).toEqual([2.5, 5, 8]);
    expect(set(link2!.control)).toEqual(['enterCompliance', 'complianceSos']);
    expect(link2!.control).toMatchObject({
      targetSpeedCode: 3,
      targetSpeed: 8,
      selectableDeemphasisDb: -3.5,
      transmitMargin: 1,
      compliancePreset: 0,
    });
    expect(set(link2!.status)).toEqual([
      'equalizationComplete',
      'equalizationPhase1',
      'equalizationPhase2',
      'linkEqualizationRequest',
    ]);
    expect(link2!.status).toMatchObject({
      currentDeemphasisDb: -3.5,
      crosslinkResolution: 2,
      downstreamComponent: 4,
    });
  });

  test('belongs to version 2, and needs its room', () => {
    expect(express('0100', '00000000', '0000', '0000', ...LINK)).toMatchObject({
      device2: null,
      link2: null,
    });
    const { capabilities } = decodeCapabilities(withCapabilities('c8', { 0xc8: '1000 0200' }));
    expect(findCapability(capabilities, 'express')).toMatchObject({ device2: null, link2: null });
    // An integrated endpoint has no link, but all else.
    expect(express('9200', '00000000', '0000', '0000')).toMatchObject({ device2: {}, link2: null });
  });
});
