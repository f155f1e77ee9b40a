/** The options of admin commands, and their checks. */
import { UINT32_MAX } from '../fields.js';
import type { CallOptions } from '../index.js';
import * as option from '../options.js';

/** A command in the caller's own words. Dwords that are not given are 0. */
export interface AdminCommand {
  opcode: number;
  /** Default 0. */
  namespace?: number | undefined;
  cdw10?: number | undefined;
  cdw11?: number | undefined;
  cdw12?: number | undefined;
  cdw13?: number | undefined;
  cdw14?: number | undefined;
  cdw15?: number | undefined;
  /** Data to the controller, at most 64 KiB. */
  send?: Uint8Array | undefined;
  /** How many bytes come from the controller, at most 64 KiB. */
  receive?: number | undefined;
}

export interface AdminResult {
  /** Dword 0 of the completion. */
  result: number;
  /** What came, `receive` bytes. */
  data: Buffer;
}

export interface LogPageOptions extends CallOptions {
  /** Default: the controller's own. */
  namespace?: number | undefined;
  /** Where to begin, a multiple of 4. Default 0. */
  offset?: number | undefined;
  /** LSP, log specific field. Default 0. */
  specific?: number | undefined;
}

export interface FeatureOptions extends CallOptions {
  /** Default 0: features of the controller. */
  namespace?: number | undefined;
  cdw11?: number | undefined;
}

export interface GetFeatureOptions extends FeatureOptions {
  /** Which value: 0 current, 1 default, 2 saved, 3 what is supported. Default 0. */
  select?: 0 | 1 | 2 | 3 | undefined;
  /** How many bytes of data the feature has. Default 0. */
  receive?: number | undefined;
}

export interface SetFeatureOptions extends FeatureOptions {
  /** Keeps the value over resets, where the feature can. Default false. */
  save?: boolean | undefined;
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
