/** Advanced Error Reporting and Downstream Port Containment (PCI Express Base 6.0 sections 7.8.4 and 7.9.14). */
import { fits, type CapabilityPlace } from './capability-list.js';
import { bit, bits } from './register-bits.js';

/** A bit for each uncorrectable error: status, mask or severity (7.8.4.2 to 7.8.4.4). */
export interface UncorrectableErrors {
  /** Data link protocol error. */
  readonly dataLinkProtocol: boolean;
  /** Surprise Down error. */
  readonly surpriseDown: boolean;
  /** Poisoned TLP received. */
  readonly poisonedTlp: boolean;
  /** Flow control protocol error. */
  readonly flowControlProtocol: boolean;
  /** Completion timeout. */
  readonly completionTimeout: boolean;
  /** Completer abort. */
  readonly completerAbort: boolean;
  /** Unexpected completion. */
  readonly unexpectedCompletion: boolean;
  /** Receiver overflow. */
  readonly receiverOverflow: boolean;
  /** Malformed TLP. */
  readonly malformedTlp: boolean;
  /** ECRC error. */
  readonly ecrc: boolean;
  /** Unsupported request. */
  readonly unsupportedRequest: boolean;
  /** ACS violation. */
  readonly acsViolation: boolean;
  /** Uncorrectable internal error. */
  readonly internal: boolean;
  /** TLP blocked by multicast. */
  readonly multicastBlockedTlp: boolean;
  /** AtomicOp blocked at the egress port. */
  readonly atomicOpEgressBlocked: boolean;
  /** TLP prefix blocked. */
  readonly tlpPrefixBlocked: boolean;
  /** Poisoned TLP blocked at the egress port. */
  readonly poisonedTlpEgressBlocked: boolean;
  /** Deferrable memory write blocked at the egress port. */
  readonly dmwrRequestEgressBlocked: boolean;
  /** IDE check failed. */
  readonly ideCheckFailed: boolean;
  /** Misrouted IDE TLP. */
  readonly misroutedIdeTlp: boolean;
  /** PCRC check failed. */
  readonly pcrcCheckFailed: boolean;
  /** TLP translation blocked at the egress port. */
  readonly tlpTranslationEgressBlocked: boolean;
}

/** A bit for each correctable error: status or mask (7.8.4.5 and 7.8.4.6). */
export interface CorrectableErrors {
  /** Receiver error. */
  readonly receiver: boolean;
  /** Bad TLP. */
  readonly badTlp: boolean;
  /** Bad DLLP. */
  readonly badDllp: boolean;
  /** REPLAY_NUM rollover. */
  readonly replayNumberRollover: boolean;
  /** Replay timer timeout. */
  readonly replayTimerTimeout: boolean;
  /** Advisory non-fatal error. */
  readonly advisoryNonFatal: boolean;
  /** Corrected internal error. */
  readonly internal: boolean;
  /** Header log overflow. */
  readonly headerLogOverflow: boolean;
}

/** Advanced Error Capabilities and Control (7.8.4.7). */
export interface AdvancedErrorControl {
  /** ECRC can be generated. */
  readonly ecrcGenerationCapable: boolean;
  /** ECRC is generated. */
  readonly ecrcGenerationEnabled: boolean;
  /** ECRC can be checked. */
  readonly ecrcCheckCapable: boolean;
  /** ECRC is checked. */
  readonly ecrcCheckEnabled: boolean;
  /** Several headers can be recorded. */
  readonly multipleHeaderRecordingCapable: boolean;
  /** Several headers are recorded. */
  readonly multipleHeaderRecordingEnabled: boolean;
  /** The TLP prefix log is valid. */
  readonly tlpPrefixLogPresent: boolean;
  /** Prefix and header of a request that timed out are recorded. */
  readonly completionTimeoutLogCapable: boolean;
  /** The bit of the uncorrectable status that was set first. */
  readonly firstErrorPointer: number;
}

/** Root Error Command: which messages interrupt (7.8.4.9). */
export interface RootErrorCommand {
  /** Correctable errors interrupt. */
  readonly correctable: boolean;
  /** Non-fatal errors interrupt. */
  readonly nonFatal: boolean;
  /** Fatal errors interrupt. */
  readonly fatal: boolean;
}

/** Root Error Status (7.8.4.10). */
export interface RootErrorStatus {
  /** ERR_COR was received. */
  readonly correctableReceived: boolean;
  /** Another ERR_COR was received. */
  readonly multipleCorrectableReceived: boolean;
  /** ERR_NONFATAL or ERR_FATAL was received. */
  readonly uncorrectableReceived: boolean;
  /** Another ERR_NONFATAL or ERR_FATAL was received. */
  readonly multipleUncorrectableReceived: boolean;
  /** The first uncorrectable error was ERR_FATAL. */
  readonly firstUncorrectableFatal: boolean;
  /** ERR_NONFATAL was received. */
  readonly nonFatalReceived: boolean;
  /** ERR_FATAL was received. */
  readonly fatalReceived: boolean;
}

/** DPC Capability (7.9.14.2). */
export interface DpcCapabilities {
  /** The extensions for root ports are there. */
  readonly rootPortExtensions: boolean;
  /** Poisoned TLPs can be blocked at the egress port. */
  readonly poisonedTlpEgressBlocking: boolean;
  /** Software can trigger it. */
  readonly softwareTriggering: boolean;
  /** ERR_COR can be sent when the link becomes active. */
  readonly dataLinkActiveErrorSignaling: boolean;
  /** Dwords of a root port's log; 0 for none. */
  readonly rpPioLogSize: number;
}

/** DPC Control (7.9.14.3). */
export interface DpcControl {
  /** Completions have status Unsupported Request, not Completer Abort. */
  readonly completionControl: boolean;
  /** Containment interrupts. */
  readonly interruptEnabled: boolean;
  /** Containment sends ERR_COR. */
  readonly correctableErrorEnabled: boolean;
  /** Poisoned TLPs are blocked at the egress port. */
  readonly poisonedTlpEgressBlockingEnabled: boolean;
  /** Writing 1 triggers containment; reads 0. */
  readonly softwareTrigger: boolean;
  /** ERR_COR is sent when the link becomes active. */
  readonly dataLinkActiveErrorEnabled: boolean;
  /** What triggers: 0 nothing, 1 a fatal error, 2 a fatal or non-fatal error. */
  readonly trigger: number;
}

/** DPC Status (7.9.14.4). */
export interface DpcStatus {
  /** Containment was triggered. */
  readonly triggered: boolean;
  /** An interrupt is pending. */
  readonly interrupt: boolean;
  /** The root port is busy. */
  readonly rootPortBusy: boolean;
  /**
   * Why it was triggered: 0 an error that was not masked, 1 ERR_NONFATAL, 2 ERR_FATAL, 3 see the extension.
   */
  readonly reason: number;
  /** 0 root port PIO error, 1 software. */
  readonly reasonExtension: number;
  /** The bit of the root port PIO status that was set first. */
  readonly rpPioFirstErrorPointer: number;
}

/** Errors that a root port or an event collector has heard of. */
export interface RootErrorFields {
  /** Which messages interrupt. */
  readonly command: RootErrorCommand;
  /** The status register. */
  readonly status: RootErrorStatus;
  /** The message number (MSI vector, or MSI-X entry) of its interrupt. */
  readonly interruptMessageNumber: number;
  /** Bus, device and function of the first correctable error. */
  readonly correctableSourceId: number;
  /** Bus, device and function of the first uncorrectable error. */
  readonly uncorrectableSourceId: number;
}

/** Advanced Error Reporting (PCI Express Base 6.0 section 7.8.4). */
export interface ErrorReportingFields {
  /** Which capability it is. */
  readonly kind: 'advanced-error-reporting';
  /** Uncorrectable errors: which occurred, which are masked, which are fatal. */
  readonly uncorrectable: {
    readonly status: UncorrectableErrors;
    readonly mask: UncorrectableErrors;
    /** Set: fatal. */
    readonly severity: UncorrectableErrors;
  };
  /** Correctable errors: which occurred, which are masked. */
  readonly correctable: {
    readonly status: CorrectableErrors;
    readonly mask: CorrectableErrors;
  };
  /** Advanced Error Capabilities and Control. */
  readonly control: AdvancedErrorControl;
  /** The header of the packet that the first error was of: four dwords. */
  readonly headerLog: readonly number[];
  /** null for all but root ports and root complex event collectors. */
  readonly root: RootErrorFields | null;
}

/** Downstream Port Containment (PCI Express Base 6.0 section 7.9.14). */
export interface DownstreamPortContainmentFields {
  /** Which capability it is. */
  readonly kind: 'downstream-port-containment';
  /** The message number (MSI vector, or MSI-X entry) of its interrupt. */
  readonly interruptMessageNumber: number;
  /** The capabilities register. */
  readonly capabilities: DpcCapabilities;
  /** The control register. */
  readonly control: DpcControl;
  /** The status register. */
  readonly status: DpcStatus;
  /** Bus, device and function that the message came from. */
  readonly sourceId: number;
}

function decodeUncorrectable(register: number): UncorrectableErrors {
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

function decodeCorrectable(register: number): CorrectableErrors {
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

function decodeControl(register: number): AdvancedErrorControl {
  return {
    ecrcGenerationCapable: bit(register, 5),
    ecrcGenerationEnabled: bit(register, 6),
    ecrcCheckCapable: bit(register, 7),
    ecrcCheckEnabled: bit(register, 8),
    multipleHeaderRecordingCapable: bit(register, 9),
    multipleHeaderRecordingEnabled: bit(register, 10),
    tlpPrefixLogPresent: bit(register, 11),
    completionTimeoutLogCapable: bit(register, 12),
    firstErrorPointer: bits(register, 0, 5),
  };
}

function decodeRootCommand(register: number): RootErrorCommand {
  return { correctable: bit(register, 0), nonFatal: bit(register, 1), fatal: bit(register, 2) };
}

function decodeRootStatus(register: number): RootErrorStatus {
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

function decodeDpcCapabilities(register: number): DpcCapabilities {
  return {
    rootPortExtensions: bit(register, 5),
    poisonedTlpEgressBlocking: bit(register, 6),
    softwareTriggering: bit(register, 7),
    dataLinkActiveErrorSignaling: bit(register, 12),
    rpPioLogSize: bits(register, 8, 4),
  };
}

function decodeDpcControl(register: number): DpcControl {
  return {
    completionControl: bit(register, 2),
    interruptEnabled: bit(register, 3),
    correctableErrorEnabled: bit(register, 4),
    poisonedTlpEgressBlockingEnabled: bit(register, 5),
    softwareTrigger: bit(register, 6),
    dataLinkActiveErrorEnabled: bit(register, 7),
    trigger: bits(register, 0, 2),
  };
}

function decodeDpcStatus(register: number): DpcStatus {
  return {
    triggered: bit(register, 0),
    interrupt: bit(register, 3),
    rootPortBusy: bit(register, 4),
    reason: bits(register, 1, 2),
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
