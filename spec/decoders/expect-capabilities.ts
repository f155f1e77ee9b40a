/** What lspci ought to say of capabilities, by what our decoders say. */
import type {
  Bar,
  Capability,
  Device2Fields,
  ErrorReportingFields,
  ExpressFields,
  ExtendedCapability,
  L1SubstatesFields,
  ResizableBar,
  SrIovFields,
} from '../../lib/pci/index.js';
import { differences, isLspci, type CapabilityText, type Expectation } from './lspci-text.js';

/** Expectations by the label of the section that they are of. */
type Sections = Readonly<Record<string, readonly Expectation[]>>;
/** The flags of our decoders, in the order in which lspci has its own. */
type Bits = object;

/** @returns what is not as lspci says; nothing of sections whose fields we do not decode */
export function compareCapability(ours: Capability | ExtendedCapability, said: CapabilityText): string[] {
  const wrong = differences({ label: 'title', text: said.title }, [
    [titleOf(ours, said.version !== undefined), null],
    ...(ours.kind === 'other' ? ([[/.*/, null]] as const) : titleExpectations(ours)),
  ]);
  if (!titleOf(ours, said.version !== undefined).test(said.title)) wrong.push(`the title is '${said.title}'`);
  if (ours.kind === 'other') return wrong;
  const sections = sectionsOf(ours);
  for (const section of said.sections) {
    const expectations = sections[section.label];
    if (expectations !== undefined) wrong.push(...differences(section, expectations));
    else if (ours.kind !== 'designated-vendor-specific' && ours.kind !== 'vendor-specific')
      wrong.push(`nothing was compared with '${section.label}: ${section.text}'`);
  }
  return wrong;
}

/** lspci's names of what it knows, by id. Versions differ. */
const TITLES: Readonly<Record<number, RegExp>> = {
  0x00: /^Null/,
  0x01: /^Power Management/,
  0x02: /^AGP/,
  0x03: /^Vital Product Data/,
  0x04: /^Slot ID/,
  0x05: /^MSI/,
  0x06: /^CompactPCI hot-swap/,
  0x07: /^PCI-X/,
  0x08: /^HyperTransport/,
  0x09: /^(?:Vendor Specific Information|VirtIO)/,
  0x0a: /^Debug port/,
  0x0b: /^CompactPCI central resource control/,
  0x0c: /^Hot-plug capable/,
  0x0d: /^Subsystem/,
  0x0e: /^AGP3/,
  0x0f: /^Secure device/,
  0x10: /^Express/,
  0x11: /^MSI-X/,
  0x12: /^SATA HBA/,
  0x13: /^PCI Advanced Features/,
  0x14: /^Enhanced Allocation/,
};
const EXTENDED_TITLES: Readonly<Record<number, RegExp>> = {
  0x00: /^Null/,
  0x01: /^Advanced Error Reporting/,
  0x02: /^Virtual Channel/,
  0x03: /^Device Serial Number/,
  0x04: /^Power Budgeting/,
  0x05: /^Root Complex Link/,
  0x06: /^Root Complex Internal Link/,
  0x07: /^Root Complex Event Collector/,
  0x08: /^Multi-Function Virtual Channel/,
  0x09: /^Virtual Channel/,
  0x0a: /^Root Complex Register Block/,
  0x0b: /^Vendor Specific Information/,
  0x0d: /^Access Control Services/,
  0x0e: /^Alternative Routing-ID Interpretation \(ARI\)/,
  0x0f: /^Address Translation Service \(ATS\)/,
  0x10: /^Single Root I\/O Virtualization \(SR-IOV\)/,
  0x11: /^Multi-Root I\/O Virtualization/,
  0x12: /^Multicast/,
  0x13: /^Page Request Interface \(PRI\)/,
  0x15: /^Physical Resizable BAR/,
  0x16: /^Dynamic Power Allocation/,
  0x17: /^Transaction Processing Hints/,
  0x18: /^Latency Tolerance Reporting/,
  0x19: /^Secondary PCI Express/,
  0x1a: /^Protocol Multiplexing/,
  0x1b: /^Process Address Space ID \(PASID\)/,
  0x1c: /^LN Requester/,
  0x1d: /^Downstream Port Containment/,
  0x1e: /^L1 PM Substates/,
  0x1f: /^Precision Time Measurement/,
  0x20: /^PCI Express over M_PHY/,
  0x21: /^FRS Queueing/,
  0x22: /^Readiness Time Reporting/,
  0x23: /^Designated Vendor-Specific/,
  0x24: /^Virtual Resizable BAR/,
  0x25: /^Data Link Feature/,
  0x26: /^Physical Layer 16\.0 GT\/s/,
  0x27: /^Lane Margining at the Receiver/,
  0x28: /^Hierarchy ID/,
  0x29: /^Native PCIe Enclosure Management/,
  0x2a: /^Physical Layer 32\.0 GT\/s/,
  0x2e: /^Data Object Exchange/,
  0x2f: /^Device 3/,
  0x30: /^Integrity & Data Encryption/,
  0x31: /^Physical Layer 64\.0 GT\/s/,
  0x32: /^Flit Logging/,
  0x34: /^Flit Error Injection/,
  0x36: /^MMIO Register Block Locator/,
};

function titleOf({ id }: { id: number }, isExtended: boolean): RegExp {
  const unknown = isExtended
    ? `Extended Capability ID 0x0*${id.toString(16)}`
    : `Capability ID 0x0*${id.toString(16)}`;
  const known = (isExtended ? EXTENDED_TITLES : TITLES)[id];
  return known === undefined ? new RegExp(`^${unknown}`) : new RegExp(`${known.source}|^${unknown}\\b`);
}

function titleExpectations(ours: Capability | ExtendedCapability): Expectation[] {
  switch (ours.kind) {
    case 'power-management':
      return [[/version (\d+)/, ours.version]];
    case 'msi':
      return [
        ['Enable', ours.enabled],
        [/Count=(\d+\/\d+)/, `${ours.vectorsEnabled}/${ours.vectorsCapable}`],
        ['Maskable', ours.maskable],
        ['64bit', ours.is64Bit],
      ];
    case 'msix':
      return [
        ['Enable', ours.enabled],
        [/Count=(\d+)/, ours.tableSize],
        ['Masked', ours.functionMask],
      ];
    case 'express':
      return expressTitle(ours);
    case 'bridge-subsystem-id':
      return [[/.*\[(\w+:\w+)\]/, `${hex(ours.subsystemVendorId, 4)}:${hex(ours.subsystemId, 4)}`]];
    case 'serial-number':
      return [[/([\w-]+)$/, ours.text]];
    case 'vendor-specific':
      if ('vendorCapabilityId' in ours) {
        return [
          [/ID=(\w+)/, hex(ours.vendorCapabilityId, 4)],
          [/Rev=(\d+)/, ours.revision],
          [/Len=(\w+)/, hex(ours.length, 3)],
          [/<\?>/, null],
        ];
      }
      // Of some vendors lspci says what it is.
      return [
        [/Len=(\w+)/, hex(ours.length, 2)],
        [/.+/, null],
      ];
    case 'designated-vendor-specific':
      return [
        [/Vendor=(\w+)/, hex(ours.vendorId, 4)],
        [/ID=(\w+)/, hex(ours.vendorCapabilityId, 4)],
        [/Rev=(\d+)/, ours.revision],
        [/Len=(\d+)/, ours.length],
        [/.*/, null],
      ];
    default:
      return [];
  }
}

const PORTS = [
  ...['Endpoint', 'Legacy Endpoint', '', '', 'Root Port', 'Upstream Port', 'Downstream Port'],
  ...[
    'PCI-Express to PCI/PCI-X Bridge',
    'PCI/PCI-X to PCI-Express Bridge',
    'Root Complex Integrated Endpoint',
  ],
  'Root Complex Event Collector',
];

function expressTitle(ours: ExpressFields): Expectation[] {
  const number = ours.interruptMessageNumber;
  return [
    [/\(v(\d+)\)/, ours.version],
    [/Slot([+-])/, ours.slotImplemented],
    [/IntMsgNum (\d+)/, number],
    [/MSI (\w\w)/, hex(number, 2)],
    [/FLIT Mode Supported/, ours.flitModeSupported ? 'FLIT Mode Supported' : 'no flit mode'],
    [/Unknown type (\d+)/, ours.deviceType],
    [/(\w[\w/ -]*\w)/, PORTS[ours.deviceType] ?? ''],
  ];
}

function sectionsOf(ours: Exclude<Capability | ExtendedCapability, { kind: 'other' }>): Sections {
  switch (ours.kind) {
    case 'power-management':
      return {
        Flags: [
          ['PMEClk', ours.pmeClock],
          ['DSI', ours.deviceSpecificInit],
          [/ D1([+-])/, ours.d1Support],
          [/ D2([+-])/, ours.d2Support],
          [/AuxCurrent=(\d+)mA/, ours.auxCurrentMilliamperes],
          ...['D0', 'D1', 'D2', 'D3hot', 'D3cold'].map(
            (state, i) => [new RegExp(`${state}([+-])`), (ours.pmeSupport & (1 << i)) !== 0] as const,
          ),
          [/PME\(/, null],
        ],
        Status: [
          [/^D(\d)/, ours.powerState],
          ['NoSoftRst', ours.noSoftReset],
          ['PME-Enable', ours.pmeEnabled],
          [/DSel=(\d+)/, ours.dataSelect],
          [/DScale=(\d+)/, ours.dataScale],
          ['PME', ours.pmeStatus],
        ],
        Bridge: [[/.*/, null]],
      };
    case 'msi':
      return {
        Address: [
          [/^(\w+)/, ours.address.toString(16).padStart(ours.is64Bit ? 16 : 8, '0')],
          [/Data: (\w+)/, hex(ours.data, 4)],
        ],
        Masking: [
          [/^(\w+)/, hex(ours.maskBits ?? -1, 8)],
          [/Pending: (\w+)/, hex(ours.pendingBits ?? -1, 8)],
        ],
      };
    case 'msix':
      return {
        'Vector table': place(ours.table),
        PBA: place(ours.pba),
      };
    case 'express':
      return expressSections(ours);
    case 'advanced-error-reporting':
      return errorSections(ours);
    case 'downstream-port-containment':
      return {
        DpcCap: [
          [/(?:INT Msg #|IntMsgNum )(\d+)/, ours.interruptMessageNumber],
          ['RPExt', ours.capabilities.rootPortExtensions],
          ['PoisonedTLP', ours.capabilities.poisonedTlpEgressBlocking],
          ['SwTrigger', ours.capabilities.softwareTriggering],
          [/RP PIO Log (\d+)/, ours.capabilities.rpPioLogSize],
          ['DL_ActiveErr', ours.capabilities.dataLinkActiveErrorSignaling],
        ],
        DpcCtl: [
          [/Trigger:(\w+)/, hex(ours.control.trigger, 1)],
          ['Cmpl', ours.control.completionControl],
          ['INT', ours.control.interruptEnabled],
          ['ErrCor', ours.control.correctableErrorEnabled],
          ['PoisonedTLP', ours.control.poisonedTlpEgressBlockingEnabled],
          ['SwTrigger', ours.control.softwareTrigger],
          ['DL_ActiveErr', ours.control.dataLinkActiveErrorEnabled],
        ],
        DpcSta: [
          [/TriggerExt:(\w+)/, hex(ours.status.reasonExtension, 2)],
          ['Trigger', ours.status.triggered],
          [/Reason:(\w+)/, hex(ours.status.reason, 2)],
          ['INT', ours.status.interrupt],
          ['RPBusy', ours.status.rootPortBusy],
          [/RP PIO ErrPtr:(\w+)/, hex(ours.status.rpPioFirstErrorPointer, 2)],
        ],
        Source: [[/^(\w+)$/, hex(ours.sourceId, 4)]],
      };
    case 'sr-iov':
      return virtualFunctionSections(ours);
    case 'resizable-bar':
    case 'vf-resizable-bar':
      return resizableSections(ours.bars);
    case 'address-translation-services':
      return {
        ATSCap: [[/Invalidate Queue Depth: (\w+)/, hex(ours.invalidateQueueDepth, 2)]],
        ATSCtl: [
          ['Enable', ours.enabled],
          [/Smallest Translation Unit: (\w+)/, hex(ours.smallestTranslationUnit, 2)],
        ],
      };
    case 'page-request-interface':
      return {
        PRICtl: [
          ['Enable', ours.enabled],
          ['Reset', ours.reset],
        ],
        PRISta: named('RF UPRGI Stopped PASID', ours.status),
        'Page Request Capacity': [
          [/^(\w+)/, hex(ours.capacity, 8)],
          [/Page Request Allocation: (\w+)/, hex(ours.allocation, 8)],
        ],
      };
    case 'pasid':
      return {
        PASIDCap: [
          ...named('Exec Priv', ours.capabilities),
          [/Max PASID Width: (\w+)/, hex(ours.maxWidth, 2)],
        ],
        PASIDCtl: [...named('Exec Priv', ours.control), ['Enable', ours.control.enabled]],
      };
    case 'access-control-services': {
      const names = 'SrcValid TransBlk ReqRedir CmpltRedir UpstreamFwd EgressCtrl DirectTrans';
      return { ACSCap: named(names, ours.capabilities), ACSCtl: named(names, ours.control) };
    }
    case 'alternative-routing-id':
      return {
        ARICap: [...named('MFVC ACS', ours.capabilities), [/Next Function: (\d+)/, ours.nextFunction]],
        ARICtl: [...named('MFVC ACS', ours.control), [/Function Group: (\d+)/, ours.functionGroup]],
      };
    case 'latency-tolerance-reporting':
      return {
        'Max snoop latency': latency(ours.maxSnoopLatencyNs),
        'Max no snoop latency': latency(ours.maxNoSnoopLatencyNs),
      };
    case 'l1-pm-substates':
      return substateSections(ours);
    case 'precision-time-measurement':
      return {
        PTMCap: named('Requester Responder Root', ours.capabilities),
        PTMClockGranularity: [
          [/.+/, granularity(ours.capabilities.localClockGranularityNs, 'Unimplemented')],
        ],
        PTMControl: named('Enabled RootSelected', ours.control),
        PTMEffectiveGranularity: [[/.+/, granularity(ours.control.effectiveGranularityNs, 'Unknown')]],
      };
    case 'data-object-exchange':
      return {
        DOECap: [
          ['IntSup', ours.interruptSupport],
          [/IntMsgNum (\d+)/, ours.interruptMessageNumber],
          [/Interrupt Message Number (\w+)/, hex(ours.interruptMessageNumber, 3)],
        ],
        DOECtl: [['IntEn', ours.interruptEnabled]],
        DOESta: [
          // Up to 3.9 lspci takes another bit for it.
          ['Error', isLspci(3, 10) ? ours.status.error : null],
          ...named('Busy IntSta Error ObjectReady', ours.status),
        ],
      };
    case 'bridge-subsystem-id':
    case 'serial-number':
    case 'vendor-specific':
    case 'designated-vendor-specific':
      return {};
  }
}

function place({ bir, offset }: { bir: number; offset: number }): Expectation[] {
  return [
    [/BAR=(\d)/, bir],
    [/offset=(\w+)/, hex(offset, 8)],
  ];
}

const L0S = [64, 128, 256, 512, 1_000, 2_000, 4_000];

function latencyText(ns: number | null): string {
  if (ns === null) return 'unlimited';
  return ns >= 1_000 || !L0S.includes(ns) ? `<${ns / 1_000}us` : `<${ns}ns`;
}

function speedText(speed: number | null): string {
  return speed === null ? 'unknown' : `${speed}GT/s`;
}

const SPEED = '(unknown|Unknown|[\\d.]+GT/s)';

function expressSections(ours: ExpressFields): Sections {
  const { device, link, slot, root, linkCapabilities, linkStatus } = ours;
  return {
    DevCap: [
      [/MaxPayload (\d+) bytes/, ours.maxPayloadSupported],
      [/PhantFunc (\d+)/, 2 ** device.capabilities.phantomFunctionBits - 1],
      [/L0s (<?\w+)/, latencyText(device.capabilities.l0sLatencyNs)],
      [/L1 (<?\w+)/, latencyText(device.capabilities.l1LatencyNs)],
      [/Latency/, null],
      ...named('ExtTag AttnBtn AttnInd PwrInd RBE FLReset TEE-IO', device.capabilities),
      [/SlotPowerLimit (>?[\d.]+)W/, power(device.capabilities.slotPowerMilliwatts)],
    ],
    DevCtl: [
      ...named(
        'CorrErr NonFatalErr FatalErr UnsupReq RlxdOrd ExtTag PhantFunc AuxPwr NoSnoop',
        device.control,
      ),
      ['BrConfRtry', device.control.bridgeConfigurationRetry],
      ['FLReset', false],
      [/MaxPayload (\d+) bytes/, ours.maxPayload],
      [/MaxReadReq (\d+) bytes/, ours.maxReadRequest],
    ],
    DevSta: named('CorrErr NonFatalErr FatalErr UnsupReq AuxPwr TransPend', device.status),
    ...(link !== null &&
      linkCapabilities !== null &&
      linkStatus !== null && {
        LnkCap: [
          [/Port #(\d+)/, link.portNumber],
          [new RegExp(`Speed ${SPEED}`), speedText(linkCapabilities.speed)],
          [/Width x(\d+)/, linkCapabilities.width],
          [/ASPM ((?:L0s|L1|not supported| (?=L1))+)/, aspm(link.capabilities, 'not supported', '')],
          [/Exit Latency/, null],
          [/L0s (<?\w+)/, latencyText(link.capabilities.l0sExitLatencyNs)],
          [/L1 (<?\w+)/, latencyText(link.capabilities.l1ExitLatencyNs)],
          ['ClockPM', link.capabilities.clockPowerManagement],
          ['Surprise', link.capabilities.surpriseDownReporting],
          ['LLActRep', link.capabilities.dataLinkActiveReporting],
          ['BwNot', link.capabilities.bandwidthNotification],
          ['ASPMOptComp', link.capabilities.aspmOptionality],
        ] as Expectation[],
        LnkCtl: [
          [/ASPM ([^;]+);/, aspm(link.control, 'Disabled', ' Enabled')],
          [/RCB (\d+) bytes/, link.control.readCompletionBoundary],
          [/(?:Lnk)?Disable[d]?([+-])/, link.control.disabled],
          ['CommClk', link.control.commonClock],
          ['ExtSynch', link.control.extendedSynch],
          ['ClockPM', link.control.clockPowerManagement],
          ['AutWidDis', link.control.autonomousWidthDisabled],
          ['BWInt', link.control.bandwidthManagementInterrupt],
          ['AutBWInt', link.control.autonomousBandwidthInterrupt],
          ['FltModeDis', link.control.flitModeDisabled],
        ] as Expectation[],
        LnkSta: [
          [new RegExp(`Speed ${SPEED}`), speedText(linkStatus.speed)],
          [/Width x(\d+)/, linkStatus.width],
          [/\((?:ok|downgraded|overdriven|strange)\)/, null],
          [/\((?:ok|downgraded|overdriven|strange)\)/, null],
          ...named('TrErr Train SlotClk DLActive BWMgmt ABWMgmt', link.status),
        ] as Expectation[],
      }),
    ...(slot !== null && {
      SltCap: [
        ...named('AttnBtn PwrCtrl MRL AttnInd PwrInd Surprise HotPlug Interlock NoCompl', slot.capabilities),
        [/Slot #(\d+)/, slot.physicalSlotNumber],
        [/PowerLimit (>?[\d.]+)W/, power(slot.powerMilliwatts)],
      ] as Expectation[],
      SltCtl: [
        [/AttnInd (\w+)/, indicator(slot.control.attentionIndicator)],
        [/PwrInd (\w+)/, indicator(slot.control.powerIndicator)],
        ...named('AttnBtn PwrFlt MRL PresDet CmdCplt HPIrq Power Interlock LinkChg', slot.control),
        [/Enable:/, null],
        [/Control:/, null],
      ] as Expectation[],
      SltSta: [
        [/Changed: MRL([+-])/, slot.status.mrlSensorChanged],
        [/PresDet([+-])(?= LinkState)/, slot.status.presenceDetectChanged],
        ['LinkState', slot.status.dataLinkStateChanged],
        ['PresDet', slot.status.presence],
        ['AttnBtn', slot.status.attentionButtonPressed],
        ['PowerFlt', slot.status.powerFault],
        ['MRL', slot.status.mrlOpen],
        ['CmdCplt', slot.status.commandCompleted],
        ['Interlock', slot.status.electromechanicalInterlock],
        [/Status:/, null],
      ] as Expectation[],
    }),
    ...(root !== null && {
      RootCap: [['CRSVisible', root.capabilities.configurationRetryVisible]] as Expectation[],
      RootCtl: named('ErrCorrectable ErrNon-Fatal ErrFatal PMEIntEna CRSVisible', root.control),
      RootSta: [
        ...named('PMEStatus PMEPending', root.status),
        [/PME ReqID (\w+)/, hex(root.status.pmeRequesterId, 4)],
      ] as Expectation[],
    }),
    ...express2Sections(ours),
  };
}

function express2Sections({ device2, link2 }: ExpressFields): Sections {
  return {
    ...(device2 !== null && {
      DevCap2: device2Capabilities(device2),
      DevCtl2: [
        [/Completion Timeout: ([^,]+)/, timeout(device2.control.completionTimeoutUs)],
        [/OBFF ([^,]+)/, OBFF[device2.control.obff]],
        ['TimeoutDis', device2.control.completionTimeoutDisabled],
        ['ARIFwd', device2.control.ariForwarding],
        [/AtomicOpsCtl:/, null],
        ['ReqEn', device2.control.atomicOpRequester],
        ['EgressBlck', device2.control.atomicOpEgressBlocking],
        ['IDOReq', device2.control.idBasedOrderingRequest],
        ['IDOCompl', device2.control.idBasedOrderingCompletion],
        ['LTR', device2.control.latencyToleranceReporting],
        ['EmergencyPowerReductionReq', device2.control.emergencyPowerReductionRequest],
        ['10BitTagReq', device2.control.tag10Requester],
        ['EETLPPrefixBlk', device2.control.endEndTlpPrefixBlocking],
      ] as Expectation[],
    }),
    ...(link2 !== null && {
      LnkCap2: [
        [/Supported Link Speeds: ([^,]+)/, speedRange(link2.capabilities.supportedSpeeds)],
        ...named('Crosslink Retimer 2Retimers DRS', link2.capabilities),
      ] as Expectation[],
      LnkCtl2: [
        [
          new RegExp(`Target Link Speed: ${SPEED}`),
          link2.control.targetSpeedCode === 0
            ? '2.5GT/s'
            : speedText(link2.control.targetSpeed).replace('u', 'U'),
        ],
        [/Selectable De-emphasis: (-[\d.]+)dB/, link2.control.selectableDeemphasisDb],
        ...named('EnterCompliance SpeedDis EnterModifiedCompliance ComplianceSOS', link2.control),
        [/Transmit Margin: (?:([A-Z][\w ]+)|[^,]+),/, margin(link2.control.transmitMargin)],
        [/Compliance (?:Preset\/)?De-emphasis: .*$/, null],
      ] as Expectation[],
      LnkSta2: [
        [/Current De-emphasis Level: (-[\d.]+)dB/, link2.status.currentDeemphasisDb],
        ...named(
          'EqualizationComplete EqualizationPhase1 EqualizationPhase2 EqualizationPhase3 LinkEqualizationRequest Retimer 2Retimers FltMode DRS',
          link2.status,
        ),
        [
          /CrosslinkRes: (unsupported|Upstream Port|Downstream Port|incomplete)/,
          ['unsupported', 'Upstream Port', 'Downstream Port', 'incomplete'][
            link2.status.crosslinkResolution
          ]!,
        ],
        [/DownstreamComp: .*$/, null],
      ] as Expectation[],
    }),
  };
}

const RANGES: Readonly<Record<string, string>> = {
  '': 'Not Supported',
  A: 'Range A',
  B: 'Range B',
  AB: 'Range AB',
  BC: 'Range BC',
  ABC: 'Range ABC',
  BCD: 'Range BCD',
  ABCD: 'Range ABCD',
};
const OBFF = {
  disabled: 'Disabled',
  'message A': 'Via message A',
  'message B': 'Via message B',
  wake: 'Via WAKE#',
} as const;

function device2Capabilities({ capabilities }: Device2Fields): Expectation[] {
  const { obffMessage, obffWake, lnCacheLineSize, emergencyPowerReduction } = capabilities;
  const obff = [obffMessage ? 'message' : '', obffWake ? 'WAKE#' : ''].filter((way) => way !== '').join('/');
  const reductions = ['Not Supported', 'Dev Specific', 'Form Factor Dev Specific', 'Reserved'];
  return [
    [/Completion Timeout: ([^,]+)/, RANGES[capabilities.completionTimeoutRanges] ?? 'Unknown'],
    [/OBFF ([^,]+)/, obff === '' ? 'Not Supported' : `Via ${obff}`],
    [/EmergencyPowerReduction (\w[\w ]+)/, reductions[emergencyPowerReduction]!],
    [/LN System CLS ([^,]+)/, lnCacheLineSize === 0 ? 'Not Supported' : `${lnCacheLineSize}byte cachelines`],
    ['TimeoutDis', capabilities.completionTimeoutDisable],
    ['NROPrPrP', capabilities.noRoEnabledPrPrPassing],
    ['LTR', capabilities.latencyToleranceReporting],
    ['10BitTagComp', capabilities.tag10Completer],
    ['10BitTagReq', capabilities.tag10Requester],
    ['ExtFmt', capabilities.extendedFmt],
    ['EETLPPrefix', capabilities.endEndTlpPrefix],
    [/MaxEETLPPrefixes (\d)/, capabilities.maxEndEndTlpPrefixes],
    ['EmergencyPowerReductionInit', capabilities.emergencyPowerReductionInit],
    ['FRS', capabilities.functionReadinessStatus],
    ['TPHComp', capabilities.tphCompleter],
    ['ExtTPHComp', capabilities.extendedTphCompleter],
    ['ARIFwd', capabilities.ariForwarding],
    [/AtomicOpsCap:/, null],
    ['Routing', capabilities.atomicOpRouting],
    ['32bit', capabilities.atomicOp32],
    ['64bit', capabilities.atomicOp64],
    ['128bitCAS', capabilities.cas128],
  ];
}

function aspm(flags: { aspmL0s: boolean; aspmL1: boolean }, none: string, ending: string): string {
  const states = [flags.aspmL0s ? 'L0s' : '', flags.aspmL1 ? 'L1' : ''].filter((state) => state !== '');
  return states.length === 0 ? none : `${states.join(' ')}${ending}`;
}

function power(milliwatts: number | null): number | string {
  return milliwatts === null ? '>600' : milliwatts / 1_000;
}

function indicator(state: string): string {
  return { on: 'On', blink: 'Blink', off: 'Off' }[state] ?? 'Unknown';
}

function timeout(range: { min: number; max: number } | null): string {
  if (range === null) return 'Unknown';
  const text = (us: number) => (us >= 1e6 ? `${us / 1e6}s` : us >= 1e3 ? `${us / 1e3}ms` : `${us}us`);
  return `${text(range.min)} to ${text(range.max)}`;
}

function speedRange(speeds: readonly number[]): string {
  const last = speeds.at(-1);
  if (last === undefined) return 'Unknown';
  return last === 2.5 ? '2.5GT/s' : `2.5-${last}GT/s`;
}

function margin(code: number): string | null {
  if (code === 0) return 'Normal Operating Range';
  return code > 5 ? 'Unknown' : null;
}

const UNCORRECTABLE =
  'DLP SDES TLP FCP CmpltTO CmpltAbrt UnxCmplt RxOF MalfTLP ECRC UnsupReq ACSViol UncorrIntErr BlockedTLP AtomicOpBlocked TLPBlockedErr PoisonTLPBlocked DMWrReqBlocked IDECheck MisIDETLP PCRC_CHECK TLPXlatBlocked';
const CORRECTABLE = 'RxErr BadTLP BadDLLP Rollover Timeout AdvNonFatalErr CorrIntErr HeaderOF';

function errorSections(ours: ErrorReportingFields): Sections {
  const { uncorrectable, correctable, control, headerLog, root } = ours;
  return {
    UESta: named(UNCORRECTABLE, uncorrectable.status),
    UEMsk: named(UNCORRECTABLE, uncorrectable.mask),
    UESvrt: named(UNCORRECTABLE, uncorrectable.severity),
    CESta: named(CORRECTABLE, correctable.status),
    CEMsk: named(CORRECTABLE, correctable.mask),
    AERCap: [
      [/First Error Pointer: (\w+)/, hex(control.firstErrorPointer, 2)],
      ...named(
        'ECRCGenCap ECRCGenEn ECRCChkCap ECRCChkEn MultHdrRecCap MultHdrRecEn TLPPfxPres HdrLogCap',
        control,
      ),
    ],
    HeaderLog: [[/.+/, headerLog.map((word) => hex(word, 8)).join(' ')]],
    ...(root !== null && {
      RootCmd: named('CERptEn NFERptEn FERptEn', root.command),
      RootSta: [
        ...named('CERcvd MultCERcvd UERcvd MultUERcvd FirstFatal NonFatalMsg FatalMsg', root.status),
        [/(?:IntMsg|IntMsgNum) (\d+)/, root.interruptMessageNumber],
      ] as Expectation[],
      ErrorSrc: [
        [/ERR_COR: (\w+)/, hex(root.correctableSourceId, 4)],
        [/ERR_FATAL\/NONFATAL: (\w+)/, hex(root.uncorrectableSourceId, 4)],
      ] as Expectation[],
    }),
  };
}

function virtualFunctionSections(ours: SrIovFields): Sections {
  const { capabilities, migrationStateArray } = ours;
  const interrupt = capabilities.migrationInterruptMessageNumber;
  return {
    IOVCap: [
      ['Migration', capabilities.migration],
      ['10BitTagReq', capabilities.tag10Requester],
      [/IntMsgNum (\d+)/, interrupt],
      [/Interrupt Message Number: (\w+)/, hex(interrupt, 3)],
    ],
    IOVCtl: named('Enable Migration Interrupt MSE ARIHierarchy 10BitTagReq', ours.control),
    IOVSta: [['Migration', ours.migrationStatus]],
    'Initial VFs': [
      [/^(\d+)/, ours.initialVfs],
      [/Total VFs: (\d+)/, ours.totalVfs],
      [/Number of VFs: (\d+)/, ours.numVfs],
      [/Function Dependency Link: (\w+)/, hex(ours.functionDependencyLink, 2)],
    ],
    'VF offset': [
      [/^(\d+)/, ours.firstVfOffset],
      [/stride: (\d+)/, ours.vfStride],
      [/Device ID: (\w+)/, hex(ours.vfDeviceId, 4)],
    ],
    'Supported Page Size': [
      [/^(\w+)/, hex(ours.supportedPageSizes, 8)],
      [/System Page Size: (\w+)/, hex(ours.systemPageSize, 8)],
    ],
    'VF Migration': [
      [/offset: (\w+)/, hex(migrationStateArray.offset, 8)],
      [/BIR: (\w+)/, hex(migrationStateArray.bir, 1)],
    ],
    ...Object.fromEntries(ours.vfBars.map((bar) => [`Region ${bar.index}`, vfBar(bar)])),
  };
}

function vfBar({ kind, prefetchable, address }: Bar): Expectation[] {
  const digits = kind === 'memory64' ? 16 : 8;
  return [
    [/Memory at (\w+)/, address.toString(16).padStart(digits, '0')],
    [/\((\d\d)-bit/, kind === 'memory64' ? 64 : 32],
    [/(?:non-)?prefetchable/, prefetchable ? 'prefetchable' : 'non-prefetchable'],
  ];
}

function resizableSections(bars: readonly ResizableBar[]): Sections {
  const text = (bytes: bigint) => {
    let value = bytes >> 20n;
    let unit = 0;
    for (; value >= 1024n; unit++) value >>= 10n;
    return `${value}${['MB', 'GB', 'TB', 'PB', 'EB'][unit] ?? '?'}`;
  };
  return Object.fromEntries(
    bars.map(({ index, size, supportedSizes }) => [
      `BAR ${index}`,
      [
        [/current size: (\w+|<unknown>)/, size >= 1n << 64n ? '<unknown>' : text(size)],
        [/supported: (.*)$/, supportedSizes.map(text).join(' ')],
      ] as Expectation[],
    ]),
  );
}

function substateSections({ capabilities, control }: L1SubstatesFields): Sections {
  const names = 'PCI-PM_L1.2 PCI-PM_L1.1 ASPM_L1.2 ASPM_L1.1';
  const time = (us: number | null) => (us === null ? '<error>' : `${us}us`);
  return {
    L1SubCap: [
      ...named(names, capabilities),
      ['L1_PM_Substates', capabilities.l1PmSubstates],
      [/PortCommonModeRestoreTime=(\d+)us/, capabilities.commonModeRestoreTimeUs],
      [/PortTPowerOnTime=(\S+)/, time(capabilities.powerOnTimeUs)],
    ],
    L1SubCtl1: [
      ...named(names, control),
      [/T_CommonMode=(\d+)us/, control.commonModeRestoreTimeUs],
      [/LTR1.2_Threshold=(\S+)/, control.ltrThresholdNs === null ? '<error>' : `${control.ltrThresholdNs}ns`],
    ],
    L1SubCtl2: [[/T_PwrOn=(\S+)/, time(control.powerOnTimeUs)]],
  };
}

/** A reserved scale lspci takes as it stands, in 32 bits. */
function latency(ns: number | null): Expectation[] {
  return [[/^(\d+)ns$/, ns]];
}

function granularity(ns: number, none: string): string {
  if (ns === 0) return none;
  return ns === 255 ? 'Greater than 254ns' : `${ns}ns`;
}

/** lspci's names of flags, in the order in which `bits` has them. */
function named(names: string, bits: Bits): Expectation[] {
  const values = Object.values(bits);
  return names.split(' ').map((name, i) => [name, values[i] as boolean] as const);
}

function hex(value: number, digits: number): string {
  return (value >>> 0).toString(16).padStart(digits, '0');
}
