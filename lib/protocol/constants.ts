/**
 * The numbers of the protocol, by the names that the specification and `<linux/vfio.h>` give them.
 *
 * Everything here is data: no table is ever changed, and the `…Names` functions turn flags into words for people.
 */

/** Bytes before every message's payload ("Header"). */
export const HEADER_SIZE = 16;
/** Where in it the size of the whole message stands, 32 bits. */
export const HEADER_SIZE_AT = 4;

/** Command numbers ("Commands"). */
export const Command = {
  VERSION: 1,
  DMA_MAP: 2,
  DMA_UNMAP: 3,
  DEVICE_GET_INFO: 4,
  DEVICE_GET_REGION_INFO: 5,
  DEVICE_GET_REGION_IO_FDS: 6,
  DEVICE_GET_IRQ_INFO: 7,
  DEVICE_SET_IRQS: 8,
  REGION_READ: 9,
  REGION_WRITE: 10,
  /** Server to client. */
  DMA_READ: 11,
  /** Server to client. */
  DMA_WRITE: 12,
  DEVICE_RESET: 13,
  /** Withdrawn from the specification; old servers have it. */
  DIRTY_PAGES: 14,
  REGION_WRITE_MULTI: 15,
  DEVICE_FEATURE: 16,
  MIG_DATA_READ: 17,
  MIG_DATA_WRITE: 18,
} as const;

const COMMAND_NAMES = namesOf(Command);

/** `REGION_READ` for 9; `command 99` for a number without name. */
export function commandName(command: number): string {
  return COMMAND_NAMES.get(command) ?? `command ${command}`;
}

/** Flags of the header. Bits 0 to 3 are the message's type. */
export const HEADER_FLAG_TYPE_MASK = 0xf;
/** Header flags, bits 0 to 3: the message is a command. */
export const HEADER_FLAG_COMMAND = 0x0;
/** Header flags, bits 0 to 3: the message is a reply. */
export const HEADER_FLAG_REPLY = 0x1;
/** Header flags: the command wants no reply. */
export const HEADER_FLAG_NO_REPLY = 0x10;
/** Header flags: the command failed, and the header has its errno. */
export const HEADER_FLAG_ERROR = 0x20;

/** What a peer that does not say otherwise in VERSION can do. */
export const DEFAULT_MAX_MSG_FDS = 1;
/** `max_data_xfer_size` of a peer that does not say: 1 MiB. */
export const DEFAULT_MAX_DATA_XFER_SIZE = 1048576;
/** `max_dma_maps` of a server that does not say. */
export const DEFAULT_MAX_DMA_MAPS = 65535;
/** `pgsizes` of a server that does not say: pages of 4 KiB. */
export const DEFAULT_PGSIZES = 4096n;

/** Flags of DEVICE_GET_INFO. Those above PCI are `<linux/vfio.h>`'s and only have a meaning for display. */
export const DEVICE_FLAG_RESET = 0x1;
/** GET_INFO: a PCI device. */
export const DEVICE_FLAG_PCI = 0x2;
/** GET_INFO: a platform device. */
export const DEVICE_FLAG_PLATFORM = 0x4;
/** GET_INFO: an AMBA device. */
export const DEVICE_FLAG_AMBA = 0x8;
/** GET_INFO: a CCW device. */
export const DEVICE_FLAG_CCW = 0x10;
/** GET_INFO: an AP device. */
export const DEVICE_FLAG_AP = 0x20;
/** GET_INFO: an fsl-mc device. */
export const DEVICE_FLAG_FSL_MC = 0x40;
/** GET_INFO: capabilities follow. */
export const DEVICE_FLAG_CAPS = 0x80;
/** GET_INFO: a CDX device. */
export const DEVICE_FLAG_CDX = 0x100;

/** Flags of DEVICE_GET_REGION_INFO. */
export const REGION_FLAG_READ = 0x1;
/** GET_REGION_INFO: the region can be written. */
export const REGION_FLAG_WRITE = 0x2;
/** GET_REGION_INFO: the region can be mapped. */
export const REGION_FLAG_MMAP = 0x4;
/** GET_REGION_INFO: capabilities follow. */
export const REGION_FLAG_CAPS = 0x8;

/** Capability ids in the reply of DEVICE_GET_REGION_INFO. */
export const REGION_CAP_SPARSE_MMAP = 1;
/** Region capability: a type of its own. */
export const REGION_CAP_TYPE = 2;
/** Region capability: the MSI-X table can be mapped. */
export const REGION_CAP_MSIX_MAPPABLE = 3;
/** One fd for each area: the id of the newest draft. */
export const REGION_CAP_SPARSE_MMAP_FDS = 0x8001;
/** The id that the first code for the same capability used. */
export const REGION_CAP_SPARSE_MMAP_FDS_EARLY = 16;

/** Flags of DEVICE_GET_IRQ_INFO. */
export const IRQ_FLAG_EVENTFD = 0x1;
/** GET_IRQ_INFO: interrupts can be masked. */
export const IRQ_FLAG_MASKABLE = 0x2;
/** GET_IRQ_INFO: an interrupt masks itself when it fires. */
export const IRQ_FLAG_AUTOMASKED = 0x4;
/** GET_IRQ_INFO: interrupts are enabled as one set. */
export const IRQ_FLAG_NORESIZE = 0x8;

/** Flags of DEVICE_SET_IRQS: one DATA and one ACTION. */
export const IRQ_SET_DATA_NONE = 0x1;
/** SET_IRQS: a byte for each interrupt says whether it is meant. */
export const IRQ_SET_DATA_BOOL = 0x2;
/** SET_IRQS: an eventfd for each interrupt comes with the message. */
export const IRQ_SET_DATA_EVENTFD = 0x4;
/** SET_IRQS: masks. */
export const IRQ_SET_ACTION_MASK = 0x8;
/** SET_IRQS: unmasks. */
export const IRQ_SET_ACTION_UNMASK = 0x10;
/** SET_IRQS: triggers; with eventfds, sets what is signalled. */
export const IRQ_SET_ACTION_TRIGGER = 0x20;

/** Flags of DMA_MAP. With neither MMAP nor FILE_IO the server maps the fd, if there is one. */
export const DMA_MAP_FLAG_READ = 0x1;
/** DMA_MAP: the device may write the memory. */
export const DMA_MAP_FLAG_WRITE = 0x2;
/** DMA_MAP: the server may map the fd. */
export const DMA_MAP_FLAG_MMAP = 0x4;
/** DMA_MAP: the server reads and writes the file. */
export const DMA_MAP_FLAG_FILE_IO = 0x8;

/** Flags of DMA_UNMAP. */
export const DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 0x1;
/** DMA_UNMAP: all mappings; address and size are 0. */
export const DMA_UNMAP_FLAG_ALL = 0x2;

/** Flags of DIRTY_PAGES, mutually exclusive. */
export const DIRTY_PAGES_FLAG_START = 0x1;
/** DIRTY_PAGES: stops logging. */
export const DIRTY_PAGES_FLAG_STOP = 0x2;
/** DIRTY_PAGES: gets a bitmap, and clears the log. */
export const DIRTY_PAGES_FLAG_GET_BITMAP = 0x4;

/** Types of sub-regions in the reply of DEVICE_GET_REGION_IO_FDS. */
export const IO_FD_TYPE_IOEVENTFD = 0;
/** GET_REGION_IO_FDS: an ioregionfd. */
export const IO_FD_TYPE_IOREGIONFD = 1;
/** libvfio-user's: an ioeventfd whose written value is also found in shared memory. */
export const IO_FD_TYPE_IOEVENTFD_SHADOW = 2;

/** Flags of DEVICE_FEATURE: the feature's number in the low 16 bits, then the operations. */
export const DEVICE_FEATURE_MASK = 0xffff;
/** DEVICE_FEATURE: gets the feature. */
export const DEVICE_FEATURE_GET = 0x10000;
/** DEVICE_FEATURE: sets the feature. */
export const DEVICE_FEATURE_SET = 0x20000;
/** DEVICE_FEATURE: asks whether it is supported. */
export const DEVICE_FEATURE_PROBE = 0x40000;

/** Feature numbers ("Device Features"). */
export const Feature = {
  MIGRATION: 1,
  MIG_DEVICE_STATE: 2,
  DMA_LOGGING_START: 6,
  DMA_LOGGING_STOP: 7,
  DMA_LOGGING_REPORT: 8,
} as const;

const FEATURE_NAMES = namesOf(Feature);

/** `MIG_DEVICE_STATE` for 2; `feature 99` for a number without name. */
export function featureName(feature: number): string {
  return FEATURE_NAMES.get(feature) ?? `feature ${feature}`;
}

/** Flags of the MIGRATION feature. */
export const MIGRATION_STOP_COPY = 0x1;
/** MIGRATION: the states for peer-to-peer DMA are supported. */
export const MIGRATION_P2P = 0x2;
/** MIGRATION: the state can be read while the device runs. */
export const MIGRATION_PRE_COPY = 0x4;

/** States of the migration state machine (`enum vfio_device_mig_state`). */
export const MigrationState = {
  ERROR: 0,
  STOP: 1,
  RUNNING: 2,
  STOP_COPY: 3,
  RESUMING: 4,
  RUNNING_P2P: 5,
  PRE_COPY: 6,
  PRE_COPY_P2P: 7,
} as const;
/** One of the states. */
export type MigrationState = (typeof MigrationState)[keyof typeof MigrationState];

const MIGRATION_STATE_NAMES = namesOf(MigrationState);

/** `STOP_COPY` for 3; `state 99` for a number without name. */
export function migrationStateName(state: number): string {
  return MIGRATION_STATE_NAMES.get(state) ?? `state ${state}`;
}

/** Region indexes of a PCI device. */
export const PciRegion = {
  BAR0: 0,
  BAR1: 1,
  BAR2: 2,
  BAR3: 3,
  BAR4: 4,
  BAR5: 5,
  ROM: 6,
  CONFIG: 7,
  VGA: 8,
  /** Old servers have a migration region here. */
  MIGRATION: 9,
} as const;

/** Interrupt indexes of a PCI device. */
export const PciIrq = { INTX: 0, MSI: 1, MSIX: 2, ERR: 3, REQ: 4 } as const;

/** A flag and its name for people. */
export type FlagTable = readonly (readonly [flag: number, name: string])[];

const DEVICE_FLAGS: FlagTable = [
  [DEVICE_FLAG_RESET, 'RESET'],
  [DEVICE_FLAG_PCI, 'PCI'],
  [DEVICE_FLAG_PLATFORM, 'PLATFORM'],
  [DEVICE_FLAG_AMBA, 'AMBA'],
  [DEVICE_FLAG_CCW, 'CCW'],
  [DEVICE_FLAG_AP, 'AP'],
  [DEVICE_FLAG_FSL_MC, 'FSL_MC'],
  [DEVICE_FLAG_CAPS, 'CAPS'],
  [DEVICE_FLAG_CDX, 'CDX'],
];
const REGION_FLAGS: FlagTable = [
  [REGION_FLAG_READ, 'READ'],
  [REGION_FLAG_WRITE, 'WRITE'],
  [REGION_FLAG_MMAP, 'MMAP'],
  [REGION_FLAG_CAPS, 'CAPS'],
];
const IRQ_FLAGS: FlagTable = [
  [IRQ_FLAG_EVENTFD, 'EVENTFD'],
  [IRQ_FLAG_MASKABLE, 'MASKABLE'],
  [IRQ_FLAG_AUTOMASKED, 'AUTOMASKED'],
  [IRQ_FLAG_NORESIZE, 'NORESIZE'],
];
const IRQ_SET_FLAGS: FlagTable = [
  [IRQ_SET_DATA_NONE, 'DATA_NONE'],
  [IRQ_SET_DATA_BOOL, 'DATA_BOOL'],
  [IRQ_SET_DATA_EVENTFD, 'DATA_EVENTFD'],
  [IRQ_SET_ACTION_MASK, 'ACTION_MASK'],
  [IRQ_SET_ACTION_UNMASK, 'ACTION_UNMASK'],
  [IRQ_SET_ACTION_TRIGGER, 'ACTION_TRIGGER'],
];
const DMA_MAP_FLAGS: FlagTable = [
  [DMA_MAP_FLAG_READ, 'READ'],
  [DMA_MAP_FLAG_WRITE, 'WRITE'],
  [DMA_MAP_FLAG_MMAP, 'MMAP'],
  [DMA_MAP_FLAG_FILE_IO, 'FILE_IO'],
];
const DMA_UNMAP_FLAGS: FlagTable = [
  [DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, 'GET_DIRTY_BITMAP'],
  [DMA_UNMAP_FLAG_ALL, 'ALL'],
];
const MIGRATION_FLAGS: FlagTable = [
  [MIGRATION_STOP_COPY, 'STOP_COPY'],
  [MIGRATION_P2P, 'P2P'],
  [MIGRATION_PRE_COPY, 'PRE_COPY'],
];
const DEVICE_FEATURE_FLAGS: FlagTable = [
  [DEVICE_FEATURE_GET, 'GET'],
  [DEVICE_FEATURE_SET, 'SET'],
  [DEVICE_FEATURE_PROBE, 'PROBE'],
];
const HEADER_FLAGS: FlagTable = [
  [HEADER_FLAG_REPLY, 'REPLY'],
  [HEADER_FLAG_NO_REPLY, 'NO_REPLY'],
  [HEADER_FLAG_ERROR, 'ERROR'],
];

/**
 * The names of the flags that are set, in the table's order; bits without name come last, as one hexadecimal number.
 * `flags` is an unsigned 32-bit value.
 */
export function flagNames(flags: number, table: FlagTable): string[] {
  const names: string[] = [];
  let rest = flags;
  for (const [flag, name] of table) {
    if ((flags & flag) === 0) continue;
    names.push(name);
    rest = (rest & ~flag) >>> 0;
  }
  if (rest !== 0) names.push(`0x${rest.toString(16)}`);
  return names;
}

/** The names of the bits in header flags. */
export const headerFlagNames = (flags: number): string[] => flagNames(flags, HEADER_FLAGS);
/** The names of the bits in `DeviceInfo.flags`. */
export const deviceFlagNames = (flags: number): string[] => flagNames(flags, DEVICE_FLAGS);
/** The names of the bits in `RegionInfo.flags`. */
export const regionFlagNames = (flags: number): string[] => flagNames(flags, REGION_FLAGS);
/** The names of the bits in `IrqInfo.flags`. */
export const irqFlagNames = (flags: number): string[] => flagNames(flags, IRQ_FLAGS);
/** The names of the bits in `SetIrqs.flags`. */
export const irqSetFlagNames = (flags: number): string[] => flagNames(flags, IRQ_SET_FLAGS);
/** The names of the bits in `DmaMap.flags`. */
export const dmaMapFlagNames = (flags: number): string[] => flagNames(flags, DMA_MAP_FLAGS);
/** The names of the bits in `DmaUnmap.flags`. */
export const dmaUnmapFlagNames = (flags: number): string[] => flagNames(flags, DMA_UNMAP_FLAGS);
/** The names of the bits in the flags of MIGRATION. */
export const migrationFlagNames = (flags: number): string[] => flagNames(flags, MIGRATION_FLAGS);
/** The operations only: give it the flags without the feature's number. */
export const deviceFeatureFlagNames = (flags: number): string[] => flagNames(flags, DEVICE_FEATURE_FLAGS);

function namesOf(values: Readonly<Record<string, number>>): ReadonlyMap<number, string> {
  return new Map(Object.entries(values).map(([name, value]) => [value, name]));
}
