/**
 * Commands that the caller composes: which way their data goes, by the opcode (NVM Express Base 2.0, figure 87), and how much
 * the controller will transfer, where the command says so. A buffer that is shorter than that would have the controller go
 * on at an address that nobody gave it.
 */
import { outOfRange, UINT32_MAX } from '../fields.js';
import type { CallOptions, DmaBuffer } from '../index.js';
import { UnsupportedError } from '../index.js';
import * as option from '../options.js';
import type { NvmeCommandQueue } from './command-queue.js';
import { NvmeCommand } from './command.js';
import type { ControllerInfo } from './controller-info.js';
import { IDENTIFY_SIZE } from './identify.js';
import type { NvmeNamespace } from './namespace.js';
import { AdminOpcode, NvmOpcode } from './opcodes.js';

const RANGE_BYTES = 16;
/** Source ranges of Copy, by their format (NVM Command Set 1.0, section 3.2.2). */
const COPY_RANGE_BYTES: readonly (number | undefined)[] = [32, 40];
/** CDW12 of Write Zeroes and its like has blocks, and no data. */
const WITH_BLOCKS: readonly number[] = [NvmOpcode.WRITE, NvmOpcode.READ, NvmOpcode.COMPARE];

/**
 * What admin and I/O commands of a caller's have in common (NVM Express Base 2.0, section 3.3.3.1). Dwords that are not given
 * are 0.
 */
export interface RawCommand {
  /** OPC, 0 to 255. Bits 1:0 say which way data goes: 01b to the controller, 10b from it, 11b both, 00b none. */
  opcode: number;
  /** NSID, 32 bits. Default 0. */
  namespace?: number | undefined;
  /** Command dword 2, 32 bits. */
  cdw2?: number | undefined;
  /** Command dword 3, 32 bits. */
  cdw3?: number | undefined;
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
}

/**
 * An I/O command of a caller's, for `NvmeController.ioCommand`. `send` and `receive` exclude each other, as do `sendMetadata` and
 * `receiveMetadata`; data goes the way that the opcode says.
 */
export interface IoCommand extends RawCommand {
  /** Data to the controller: at most `NvmeController.maxTransferBytes`. */
  send?: Uint8Array | undefined;
  /**
   * How many bytes come from the controller, at most `NvmeController.maxTransferBytes`; those that it leaves out are zeroes.
   * Default 0.
   */
  receive?: number | undefined;
  /** Metadata to the controller, in a buffer of its own (MPTR). */
  sendMetadata?: Uint8Array | undefined;
  /** How many bytes of metadata come from the controller, into a buffer of its own (MPTR). Default 0. */
  receiveMetadata?: number | undefined;
}

/** What an I/O command gave. */
export interface IoResult {
  /** Dword 0 of the completion. */
  result: number;
  /** What came, `receive` bytes. */
  data: Buffer;
  /** The metadata that came, `receiveMetadata` bytes. */
  metadata: Buffer;
}

/** A dword, by the name that the specification has for it. */
function dword(called: string): option.Check {
  const check = option.wholeNumber(0, UINT32_MAX);
  return (value, caller) => check(value, caller, called);
}

/** @internal */
export const RAW_CHECKS = {
  opcode: option.wholeNumber(0, 0xff),
  namespace: dword('NSID'),
  cdw2: dword('CDW2'),
  cdw3: dword('CDW3'),
  cdw10: dword('CDW10'),
  cdw11: dword('CDW11'),
  cdw12: dword('CDW12'),
  cdw13: dword('CDW13'),
  cdw14: dword('CDW14'),
  cdw15: dword('CDW15'),
} as const;

/** @internal */
export const IO_COMMAND = new option.OptionTable<IoCommand>(
  {
    ...RAW_CHECKS,
    send: option.bytes,
    receive: option.wholeNumber(),
    sendMetadata: option.bytes,
    receiveMetadata: option.wholeNumber(),
  },
  ['opcode'],
);

/** The command with its dwords; its data is put in by whoever sends it. */
export function composed(name: string, request: RawCommand): NvmeCommand {
  const command = new NvmeCommand(name, request.opcode, request.namespace ?? 0);
  command.cdw10 = request.cdw10 ?? 0;
  command.cdw11 = request.cdw11 ?? 0;
  command.cdw12 = request.cdw12 ?? 0;
  command.cdw13 = request.cdw13 ?? 0;
  command.cdw14 = request.cdw14 ?? 0;
  command.cdw15 = request.cdw15 ?? 0;
  if (request.cdw2 !== undefined || request.cdw3 !== undefined)
    command.extra = { cdw2: request.cdw2 ?? 0, cdw3: request.cdw3 ?? 0, metadata: undefined };
  return command;
}

/** @throws RangeError for data that goes another way than the opcode says (figure 87). */
export function checkDirection(opcode: number, send: number, receive: number): void {
  const way = opcode & 3;
  const wrong = (send > 0 && (way & 1) === 0) || (receive > 0 && (way & 2) === 0);
  if (!wrong) return;
  const ways = [
    'transfers no data',
    'sends data to the controller',
    'receives data',
    'sends or receives data',
  ];
  throw outOfRange(
    `opcode 0x${opcode.toString(16).padStart(2, '0')} ${ways[way]} (bits 1:0), got ` +
      (send > 0 ? `${send} bytes to send` : `${receive} bytes to receive`),
  );
}

/**
 * What a command names as the length of its data. `always`: it has data in any case; others have operations without any. `room`:
 * there may be more room than that.
 */
interface NamedLength {
  readonly name: string;
  readonly bytes: (request: RawCommand) => number | undefined;
  readonly always?: true;
  readonly room?: true;
}

const dwords = (count: number) => (count + 1) * 4;

/** Admin commands, by opcode (NVM Express Base 2.0, section 5). Security Send may be padded to whole dwords. */
const ADMIN_LENGTHS: Readonly<Record<number, NamedLength>> = {
  [AdminOpcode.GET_LOG_PAGE]: {
    ...{ name: 'Get Log Page with these NUMDL and NUMDU', always: true, room: true },
    bytes: ({ cdw10 = 0, cdw11 = 0 }) => dwords((cdw11 & 0xffff) * 65_536 + (cdw10 >>> 16)),
  },
  [AdminOpcode.IDENTIFY]: { name: 'Identify', bytes: () => IDENTIFY_SIZE, always: true, room: true },
  0x11: { name: 'Firmware Image Download', bytes: ({ cdw10 = 0 }) => dwords(cdw10), always: true },
  0x19: { name: 'Directive Send', bytes: ({ cdw10 = 0 }) => dwords(cdw10) },
  0x1a: { name: 'Directive Receive', bytes: ({ cdw10 = 0 }) => dwords(cdw10), room: true },
  0x81: { name: 'Security Send', bytes: ({ cdw11 = 0 }) => cdw11, room: true },
  0x82: { name: 'Security Receive', bytes: ({ cdw11 = 0 }) => cdw11, room: true },
  0x86: { name: 'Get LBA Status', bytes: ({ cdw12 = 0 }) => dwords(cdw12), always: true, room: true },
};

/** I/O commands that have no blocks of data. */
const IO_LENGTHS: Readonly<Record<number, NamedLength>> = {
  [NvmOpcode.DATASET_MANAGEMENT]: {
    ...{ name: 'Dataset Management', always: true },
    bytes: ({ cdw10 = 0 }) => ((cdw10 & 0xff) + 1) * RANGE_BYTES,
  },
  0x0d: { name: 'Reservation Register', bytes: () => 16, always: true },
  0x0e: { name: 'Reservation Report', bytes: ({ cdw10 = 0 }) => dwords(cdw10), always: true, room: true },
  0x11: { name: 'Reservation Acquire', bytes: () => 16, always: true },
  0x12: { name: 'I/O Management Receive', bytes: ({ cdw11 = 0 }) => dwords(cdw11), room: true },
  0x15: { name: 'Reservation Release', bytes: () => 8, always: true },
  0x19: {
    ...{ name: 'Copy', always: true },
    bytes: ({ cdw12 = 0 }) => {
      const each = COPY_RANGE_BYTES[(cdw12 >>> 8) & 0xf];
      return each === undefined ? undefined : ((cdw12 & 0xff) + 1) * each;
    },
  },
};

/** @throws RangeError where an admin command transfers another length than it was given, or more than there is room for. */
export function checkAdminLength(request: RawCommand, send: number, receive: number): void {
  checkDirection(request.opcode, send, receive);
  checkNamed(ADMIN_LENGTHS[request.opcode], request, send, receive);
}

function checkNamed(
  named: NamedLength | undefined,
  request: RawCommand,
  send: number,
  receive: number,
): void {
  const bytes = named?.bytes(request);
  if (named === undefined || bytes === undefined) return;
  const length = Math.max(send, receive);
  if (length === 0 && named.always !== true) return;
  if (named.room !== true) exactly(named.name, length, bytes);
  else if ((request.opcode & 1) === 0) atLeast(named.name, receive, bytes);
  else if (send < bytes) throw outOfRange(`${named.name} takes ${bytes} bytes, got ${send}`);
}

function atLeast(what: string, receive: number, bytes: number): void {
  if (receive < bytes)
    throw outOfRange(`${what} gives ${bytes} bytes: receive must be at least that, got ${receive}`);
}

/** How the blocks of a namespace are transferred. */
export type BlockLayout = Pick<NvmeNamespace, 'blockSize' | 'identity'>;

/** @throws RangeError where an I/O command transfers another length than it was given. */
export function checkIoLength(request: IoCommand, namespace: BlockLayout | undefined): void {
  const { opcode, send, receive = 0, sendMetadata, receiveMetadata = 0, cdw12 = 0 } = request;
  const length = send?.length ?? receive;
  const metadata = sendMetadata?.length ?? receiveMetadata;
  checkDirection(opcode, send?.length ?? 0, receive);
  checkDirection(opcode, sendMetadata?.length ?? 0, receiveMetadata);
  checkNamed(IO_LENGTHS[opcode], request, send?.length ?? 0, receive);
  if (!WITH_BLOCKS.includes(opcode) || namespace === undefined) return;
  const { blockSize, identity } = namespace;
  const blocks = (cdw12 & 0xffff) + 1;
  const metadataSize = identity.formats[identity.formatIndex]?.metadataSize ?? 0;
  const interleaved = identity.extendedMetadata ? metadataSize : 0;
  exactly(`${blocks} blocks`, length, blocks * (blockSize + interleaved));
  const separate = identity.extendedMetadata ? 0 : metadataSize;
  // Without a buffer for it none is transferred: MPTR is 0, and controllers insert or strip protection then (PRACT).
  if (metadata > 0) exactly(`the metadata of ${blocks} blocks`, metadata, blocks * separate);
}

function exactly(what: string, length: number, bytes: number): void {
  if (length !== bytes) throw outOfRange(`${what}: ${bytes} bytes are transferred, got ${length}`);
}

/** What sending an I/O command takes. */
export interface IoPassthrough {
  commands: NvmeCommandQueue;
  info: ControllerInfo;
  namespace: NvmeNamespace | undefined;
}

/** @throws RangeError, UnsupportedError; what the queue and `device.dma.alloc` throw. */
export async function passThrough(
  { commands, info, namespace }: IoPassthrough,
  request: IoCommand,
  options: CallOptions | undefined,
): Promise<IoResult> {
  checkIoLength(request, namespace);
  const { send, receive = 0, sendMetadata, receiveMetadata = 0 } = request;
  const most = info.maxTransferBytes;
  const length = send?.length ?? receive;
  if (length > most) throw outOfRange(`the length of the data must be at most ${most} bytes, got ${length}`);
  const command = composed(`I/O command 0x${request.opcode.toString(16).padStart(2, '0')}`, request);
  const data = Buffer.alloc(receive);
  if (send !== undefined && send.length > 0) command.through(Buffer.from(send), true);
  else if ((request.opcode & 2) !== 0) command.into(data);
  const size = sendMetadata?.length ?? receiveMetadata;
  if (size === 0)
    return { result: await commands.execute<number>(command, options), data, metadata: Buffer.alloc(0) };
  const buffer = await info.device.dma.alloc(size, { alignment: info.pageSize });
  try {
    if (sendMetadata !== undefined) buffer.bytes.set(sendMetadata);
    command.extra = { cdw2: request.cdw2 ?? 0, cdw3: request.cdw3 ?? 0, metadata: buffer };
    const result = await commands.execute<number>(command, options);
    return { result, data, metadata: Buffer.from(buffer.bytes.subarray(0, receiveMetadata)) };
  } finally {
    await releaseQuietly(buffer);
  }
}

/** The command's own error is the one to report. */
async function releaseQuietly(buffer: DmaBuffer): Promise<void> {
  await buffer.close().catch(() => undefined);
}

/** The options of `NvmeController.format` (Format NVM, NVM Express Base 2.0, section 5.14). */
export interface FormatOptions extends CallOptions {
  /** NSID, or `ALL_NAMESPACES`. */
  namespace: number;
  /** LBAF: the index of a format in `NamespaceIdentity.formats`, 0 to 63. */
  lbaFormat: number;
  /** SES: 0 nothing, 1 user data erase, 2 cryptographic erase. Default 0. */
  secureErase?: 0 | 1 | 2 | undefined;
  /** PI: end-to-end protection, 0 none, types 1 to 3. Default 0. */
  protection?: 0 | 1 | 2 | 3 | undefined;
  /** PIL: protection information is the first bytes of the metadata; else the last. Default false. */
  protectionFirst?: boolean | undefined;
  /** MSET: metadata is transferred at the end of each block's data; else in a buffer of its own. Default false. */
  extendedMetadata?: boolean | undefined;
}

/** @internal */
export const FORMAT_OPTIONS = new option.OptionTable<FormatOptions>(
  {
    ...option.CALL_CHECKS,
    namespace: option.wholeNumber(1, UINT32_MAX),
    lbaFormat: option.wholeNumber(0, 63),
    secureErase: option.oneOf(0, 1, 2),
    protection: option.oneOf(0, 1, 2, 3),
    protectionFirst: option.boolean,
    extendedMetadata: option.boolean,
  },
  ['namespace', 'lbaFormat'],
);

/** CDW10 of Format NVM (figure 171). */
export function formatDword(options: FormatOptions): number {
  const {
    lbaFormat,
    secureErase = 0,
    protection = 0,
    protectionFirst = false,
    extendedMetadata = false,
  } = options;
  return (
    (lbaFormat & 0xf) |
    (Number(extendedMetadata) << 4) |
    (protection << 5) |
    (Number(protectionFirst) << 8) |
    (secureErase << 9) |
    ((lbaFormat >>> 4) << 12)
  );
}

/** @throws UnsupportedError where the controller cannot format (OACS). */
export function requireFormat(optionalAdminCommands: number, bit: number): void {
  if ((optionalAdminCommands & bit) === 0)
    throw new UnsupportedError('the controller does not support Format NVM (OACS bit 1)');
}
