/** The options of admin commands, and their checks. */
import { UINT32_MAX } from '../fields.js';
import type { CallOptions } from '../index.js';
import * as option from '../options.js';

/**
 * An admin command (NVM Express Base 2.0, sections 3.3.3.1 and 5). Dwords that are not given are 0. `send` and `receive`
 * exclude each other.
 */
export interface AdminCommand {
  /** OPC, 0 to 255; see `AdminOpcode`. */
  opcode: number;
  /** NSID, 32 bits. Default 0. */
  namespace?: number | undefined;
  /** Command dword 10, 32 bits. */
  cdw10?: number | undefined;
  /** Command dword 11, 32 bits. */
  cdw11?: number | undefined;
  /** Command dword 12, 32 bits. */
  cdw12?: number | undefined;
  /** Command dword 13, 32 bits. */
  cdw13?: number | undefined;
  /** Command dword 14, 32 bits. */
  cdw14?: number | undefined;
  /** Command dword 15, 32 bits. */
  cdw15?: number | undefined;
  /** Data to the controller: a multiple of 4 bytes, at most 64 KiB. */
  send?: Uint8Array | undefined;
  /** How many bytes come from the controller: a multiple of 4, at most 64 KiB. Default 0. */
  receive?: number | undefined;
}

/** What an admin command gave. */
export interface AdminResult {
  /** Dword 0 of the completion. */
  result: number;
  /** What came, `receive` bytes. */
  data: Buffer;
}

/** The options of `NvmeController.logPage` (Get Log Page, section 5.16). */
export interface LogPageOptions extends CallOptions {
  /** NSID. Default: FFFFFFFFh, the log of the controller. */
  namespace?: number | undefined;
  /** LPO, where to begin in the page: bytes, a multiple of 4. Default 0. */
  offset?: number | undefined;
  /** LSP, log specific field, 0 to 127. Default 0. */
  specific?: number | undefined;
}

/** What Get Features and Set Features have in common. */
export interface FeatureOptions extends CallOptions {
  /** NSID. Default 0, for features of the controller. */
  namespace?: number | undefined;
  /** Command dword 11, 32 bits: what it means depends on the feature. Default 0. */
  cdw11?: number | undefined;
}

/** The options of `NvmeController.getFeature` (section 5.15). */
export interface GetFeatureOptions extends FeatureOptions {
  /** SEL, which value: 0 current, 1 default, 2 saved, 3 what is supported. Default 0. */
  select?: 0 | 1 | 2 | 3 | undefined;
  /** How many bytes of data the feature has: a multiple of 4, at most 64 KiB. Default 0. */
  receive?: number | undefined;
}

/** The options of `NvmeController.setFeature` (section 5.27). */
export interface SetFeatureOptions extends FeatureOptions {
  /** SV: keeps the value over resets, where the feature can. Default false. */
  save?: boolean | undefined;
  /** Data of the feature: a multiple of 4 bytes, at most 64 KiB. */
  send?: Uint8Array | undefined;
}

/** A dword, by the name that the specification has for it. */
function dword(called: string): option.Check {
  const check = option.wholeNumber(0, UINT32_MAX);
  return (value, caller) => check(value, caller, called);
}

/** @internal */
export const ADMIN_COMMAND = new option.OptionTable<AdminCommand>(
  {
    opcode: option.wholeNumber(0, 0xff),
    namespace: dword('NSID'),
    cdw10: dword('CDW10'),
    cdw11: dword('CDW11'),
    cdw12: dword('CDW12'),
    cdw13: dword('CDW13'),
    cdw14: dword('CDW14'),
    cdw15: dword('CDW15'),
    send: option.bytes,
    receive: option.wholeNumber(),
  },
  ['opcode'],
);
/** @internal */
export const LOG_PAGE_OPTIONS = new option.OptionTable<LogPageOptions>({
  ...option.CALL_CHECKS,
  namespace: option.wholeNumber(0, UINT32_MAX),
  offset: option.wholeNumber(),
  specific: (value, caller) => option.wholeNumber(0, 0x7f)(value, caller, 'log specific field'),
});
const FEATURE_CHECKS = {
  ...option.CALL_CHECKS,
  namespace: option.wholeNumber(0, UINT32_MAX),
  cdw11: option.wholeNumber(0, UINT32_MAX),
} as const;
/** @internal */
export const GET_FEATURE_OPTIONS = new option.OptionTable<GetFeatureOptions>({
  ...FEATURE_CHECKS,
  select: option.oneOf(0, 1, 2, 3),
  receive: option.wholeNumber(),
});
/** @internal */
export const SET_FEATURE_OPTIONS = new option.OptionTable<SetFeatureOptions>({
  ...FEATURE_CHECKS,
  save: option.boolean,
  send: option.bytes,
});
