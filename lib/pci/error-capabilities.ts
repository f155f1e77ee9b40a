/** Advanced Error Reporting and Downstream Port Containment (PCI Express Base 6.0 sections 7.8.4 and 7.9.14). */
import { fits, type CapabilityPlace } from './capability-list.js';
import { bit, bits, type RegisterFields } from './register-bits.js';

/** Errors that a root port or an event collector has heard of. */
export interface RootErrorFields {
  /** Which messages interrupt. */
  readonly command: RegisterFields<typeof decodeRootCommand>;
  readonly status: RegisterFields<typeof decodeRootStatus>;
  readonly interruptMessageNumber: number;
  /** Bus, device and function of the first correctable error. */
  readonly correctableSourceId: number;
  /** Bus, device and function of the first uncorrectable error. */
  readonly uncorrectableSourceId: number;
}

export interface ErrorReportingFields {
  readonly kind: 'advanced-error-reporting';
  readonly uncorrectable: {
    readonly status: RegisterFields<typeof decodeUncorrectable>;
    readonly mask: RegisterFields<typeof decodeUncorrectable>;
    /** Set: fatal. */
    readonly severity: RegisterFields<typeof decodeUncorrectable>;
  };
  readonly correctable: {
    readonly status: RegisterFields<typeof decodeCorrectable>;
    readonly mask: RegisterFields<typeof decodeCorrectable>;
  };
  /** Advanced Error Capabilities and Control. */
  readonly control: RegisterFields<typeof decodeControl>;
  /** The header of the packet that the first error was of: four dwords. */
  readonly headerLog: readonly number[];
  /** null for all but root ports and root complex event collectors. */
  readonly root: RootErrorFields | null;
}

export interface DownstreamPortContainmentFields {
  readonly kind: 'downstream-port-containment';
  readonly interruptMessageNumber: number;
  readonly capabilities: RegisterFields<typeof decodeDpcCapabilities>;
  readonly control: RegisterFields<typeof decodeDpcControl>;
  readonly status: RegisterFields<typeof decodeDpcStatus>;
  /** Bus, device and function that the message came from. */
  readonly sourceId: number;
}

function decodeUncorrectable(register: number) {
  return {
    dataLinkProtocol: bit(register, 4),
    surpriseDown: bit(register, 5),
    poisonedTlp: bit(register, 12),
    flowControlProtocol: bit(register, 13),
    completionTimeout: bit(register, 14),
    completerAbort: bit(register, 15),
    unexpectedCompletion: bit(register, 16),
    receiverOverflow: bit(register, 17),
    malformedTlp: bit(register, 18),
    ecrc: bit(register, 19),
    unsupportedRequest: bit(register, 20),
    acsViolation: bit(register, 21),
    internal: bit(register, 22),
    multicastBlockedTlp: bit(register, 23),
    atomicOpEgressBlocked: bit(register, 24),
    tlpPrefixBlocked: bit(register, 25),
    poisonedTlpEgressBlocked: bit(register, 26),
    dmwrRequestEgressBlocked: bit(register, 27),
    ideCheckFailed: bit(register, 28),
    misroutedIdeTlp: bit(register, 29),
    pcrcCheckFailed: bit(register, 30),
    tlpTranslationEgressBlocked: bit(register, 31),
  };
}

function decodeCorrectable(register: number) {
  return {
    receiver: bit(register, 0),
    badTlp: bit(register, 6),
    badDllp: bit(register, 7),
    replayNumberRollover: bit(register, 8),
    replayTimerTimeout: bit(register, 12),
    advisoryNonFatal: bit(register, 13),
    internal: bit(register, 14),
    headerLogOverflow: bit(register, 15),
  };
}

function decodeControl(register: number) {
  return {
    ecrcGenerationCapable: bit(register, 5),
    ecrcGenerationEnabled: bit(register, 6),
    ecrcCheckCapable: bit(register, 7),
    ecrcCheckEnabled: bit(register, 8),
    multipleHeaderRecordingCapable: bit(register, 9),
    multipleHeaderRecordingEnabled: bit(register, 10),
    tlpPrefixLogPresent: bit(register, 11),
    completionTimeoutLogCapable: bit(register, 12),
    /** The bit of the uncorrectable status that was set first. */
    firstErrorPointer: bits(register, 0, 5),
  };
}

function decodeRootCommand(register: number) {
  return { correctable: bit(register, 0), nonFatal: bit(register, 1), fatal: bit(register, 2) };
}

function decodeRootStatus(register: number) {
  return {
    correctableReceived: bit(register, 0),
    multipleCorrectableReceived: bit(register, 1),
    uncorrectableReceived: bit(register, 2),
    multipleUncorrectableReceived: bit(register, 3),
    firstUncorrectableFatal: bit(register, 4),
    nonFatalReceived: bit(register, 5),
    fatalReceived: bit(register, 6),
  };
}

function decodeDpcCapabilities(register: number) {
  return {
    rootPortExtensions: bit(register, 5),
    poisonedTlpEgressBlocking: bit(register, 6),
    softwareTriggering: bit(register, 7),
    dataLinkActiveErrorSignaling: bit(register, 12),
    /** Dwords of a root port's log; 0 for none. */
    rpPioLogSize: bits(register, 8, 4),
  };
}

function decodeDpcControl(register: number) {
  return {
    completionControl: bit(register, 2),
    interruptEnabled: bit(register, 3),
    correctableErrorEnabled: bit(register, 4),
    poisonedTlpEgressBlockingEnabled: bit(register, 5),
    softwareTrigger: bit(register, 6),
    dataLinkActiveErrorEnabled: bit(register, 7),
    /** What triggers: 0 nothing, 1 a fatal error, 2 a fatal or non-fatal error. */
    trigger: bits(register, 0, 2),
  };
}

function decodeDpcStatus(register: number) {
  return {
    triggered: bit(register, 0),
    interrupt: bit(register, 3),
    rootPortBusy: bit(register, 4),
    /** Why it was triggered: 0 an error that was not masked, 1 ERR_NONFATAL, 2 ERR_FATAL, 3 see the extension. */
    reason: bits(register, 1, 2),
    /** 0 root port PIO error, 1 software. */
    reasonExtension: bits(register, 5, 2),
    rpPioFirstErrorPointer: bits(register, 8, 5),
  };
}

/** Up to the header log; and up to the source ids, which root ports and event collectors have. */
const ERROR_REPORTING_LENGTH = 0x2c;
const ROOT_LENGTH = 0x38;
const CONTAINMENT_LENGTH = 0x0c;

/** @param hasRoot whether it is the capability of a root port or of a root complex event collector */
export function decodeErrorReporting(place: CapabilityPlace, hasRoot: boolean): ErrorReportingFields | null {
  const { config, offset } = place;
  const name = 'Advanced Error Reporting';
  if (!fits(place, ERROR_REPORTING_LENGTH, name)) return null;
  return {
    kind: 'advanced-error-reporting',
    uncorrectable: {
      status: decodeUncorrectable(config.getUInt32(offset + 0x04)),
      mask: decodeUncorrectable(config.getUInt32(offset + 0x08)),
      severity: decodeUncorrectable(config.getUInt32(offset + 0x0c)),
    },
    correctable: {
      status: decodeCorrectable(config.getUInt32(offset + 0x10)),
      mask: decodeCorrectable(config.getUInt32(offset + 0x14)),
    },
    control: decodeControl(config.getUInt32(offset + 0x18)),
    headerLog: [0x1c, 0x20, 0x24, 0x28].map((at) => config.getUInt32(offset + at)),
    root: hasRoot && fits(place, ROOT_LENGTH, name) ? decodeRootErrors(place) : null,
  };
}

function decodeRootErrors({ config, offset }: CapabilityPlace): RootErrorFields {
  const status = config.getUInt32(offset + 0x30);
  return {
    command: decodeRootCommand(config.getUInt32(offset + 0x2c)),
    status: decodeRootStatus(status),
    interruptMessageNumber: status >>> 27,
    correctableSourceId: config.getUInt16(offset + 0x34),
    uncorrectableSourceId: config.getUInt16(offset + 0x36),
  };
}

export function decodeContainment(place: CapabilityPlace): DownstreamPortContainmentFields | null {
  const { config, offset } = place;
  if (!fits(place, CONTAINMENT_LENGTH, 'Downstream Port Containment')) return null;
  const capabilities = config.getUInt16(offset + 0x04);
  return {
    kind: 'downstream-port-containment',
    interruptMessageNumber: bits(capabilities, 0, 5),
    capabilities: decodeDpcCapabilities(capabilities),
    control: decodeDpcControl(config.getUInt16(offset + 0x06)),
    status: decodeDpcStatus(config.getUInt16(offset + 0x08)),
    sourceId: config.getUInt16(offset + 0x0a),
  };
}
