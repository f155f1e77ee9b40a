/**
 * Where the fields of the structures stand that a controller gives, by the names that the specifications have for them:
 * `[offset, bytes]`, little-endian. The decoders, and the command line's, which prints what nvme-cli prints, read by these.
 */

/** A structure's fields. */
export type Layout = Readonly<Record<string, readonly [offset: number, bytes: number]>>;

/** Identify Controller (NVM Express Base 2.0, figure 275). */
export const CONTROLLER = {
  vid: [0, 2],
  ssvid: [2, 2],
  sn: [4, 20],
  mn: [24, 40],
  fr: [64, 8],
  rab: [72, 1],
  ieee: [73, 3],
  cmic: [76, 1],
  mdts: [77, 1],
  cntlid: [78, 2],
  ver: [80, 4],
  rtd3r: [84, 4],
  rtd3e: [88, 4],
  oaes: [92, 4],
  ctratt: [96, 4],
  rrls: [100, 2],
  cntrltype: [111, 1],
  fguid: [112, 16],
  crdt1: [128, 2],
  crdt2: [130, 2],
  crdt3: [132, 2],
  nvmsr: [253, 1],
  vwci: [254, 1],
  mec: [255, 1],
  oacs: [256, 2],
  acl: [258, 1],
  aerl: [259, 1],
  frmw: [260, 1],
  lpa: [261, 1],
  elpe: [262, 1],
  npss: [263, 1],
  avscc: [264, 1],
  apsta: [265, 1],
  wctemp: [266, 2],
  cctemp: [268, 2],
  mtfa: [270, 2],
  hmpre: [272, 4],
  hmmin: [276, 4],
  tnvmcap: [280, 16],
  unvmcap: [296, 16],
  rpmbs: [312, 4],
  edstt: [316, 2],
  dsto: [318, 1],
  fwug: [319, 1],
  kas: [320, 2],
  hctma: [322, 2],
  mntmt: [324, 2],
  mxtmt: [326, 2],
  sanicap: [328, 4],
  hmminds: [332, 4],
  hmmaxd: [336, 2],
  nsetidmax: [338, 2],
  endgidmax: [340, 2],
  anatt: [342, 1],
  anacap: [343, 1],
  anagrpmax: [344, 4],
  nanagrpid: [348, 4],
  pels: [352, 4],
  domainid: [356, 2],
  megcap: [368, 16],
  sqes: [512, 1],
  cqes: [513, 1],
  maxcmd: [514, 2],
  nn: [516, 4],
  oncs: [520, 2],
  fuses: [522, 2],
  fna: [524, 1],
  vwc: [525, 1],
  awun: [526, 2],
  awupf: [528, 2],
  icsvscc: [530, 1],
  nwpc: [531, 1],
  acwu: [532, 2],
  ocfs: [534, 2],
  sgls: [536, 4],
  mnan: [540, 4],
  maxdna: [544, 16],
  maxcna: [560, 4],
  subnqn: [768, 256],
  ioccsz: [1792, 4],
  iorcsz: [1796, 4],
  icdoff: [1800, 2],
  fcatt: [1802, 1],
  msdbd: [1803, 1],
  ofcs: [1804, 2],
  /** 32 power state descriptors. */
  psd: [2048, 1024],
} as const satisfies Layout;

export const POWER_STATE_BYTES = 32;

/** A power state descriptor of Identify Controller (figure 276). */
export const POWER_STATE = {
  mp: [0, 2],
  flags: [3, 1],
  enlat: [4, 4],
  exlat: [8, 4],
  rrt: [12, 1],
  rrl: [13, 1],
  rwt: [14, 1],
  rwl: [15, 1],
  idlp: [16, 2],
  ips: [18, 1],
  actp: [20, 2],
  apws: [22, 1],
} as const satisfies Layout;

/** Identify Namespace (NVM Command Set 1.0, figure 97). */
export const NAMESPACE = {
  nsze: [0, 8],
  ncap: [8, 8],
  nuse: [16, 8],
  nsfeat: [24, 1],
  nlbaf: [25, 1],
  flbas: [26, 1],
  mc: [27, 1],
  dpc: [28, 1],
  dps: [29, 1],
  nmic: [30, 1],
  rescap: [31, 1],
  fpi: [32, 1],
  dlfeat: [33, 1],
  nawun: [34, 2],
  nawupf: [36, 2],
  nacwu: [38, 2],
  nabsn: [40, 2],
  nabo: [42, 2],
  nabspf: [44, 2],
  noiob: [46, 2],
  nvmcap: [48, 16],
  npwg: [64, 2],
  npwa: [66, 2],
  npdg: [68, 2],
  npda: [70, 2],
  nows: [72, 2],
  mssrl: [74, 2],
  mcl: [76, 4],
  msrc: [80, 1],
  nulbaf: [82, 1],
  anagrpid: [92, 4],
  nsattr: [99, 1],
  nvmsetid: [100, 2],
  endgid: [102, 2],
  nguid: [104, 16],
  eui64: [120, 8],
  /** 64 LBA formats of 4 bytes. */
  lbaf: [128, 256],
} as const satisfies Layout;

/** An entry of the error log (NVM Express Base 2.0, figure 206). */
export const ERROR_ENTRY = {
  error_count: [0, 8],
  sqid: [8, 2],
  cmdid: [10, 2],
  /** With the phase tag in bit 0. */
  status_field: [12, 2],
  parm_error_location: [14, 2],
  lba: [16, 8],
  nsid: [24, 4],
  vs: [28, 1],
  trtype: [29, 1],
  cs: [32, 8],
  trtype_spec_info: [40, 2],
} as const satisfies Layout;

/** SMART / Health Information (figure 207). */
export const SMART = {
  critical_warning: [0, 1],
  temperature: [1, 2],
  avail_spare: [3, 1],
  spare_thresh: [4, 1],
  percent_used: [5, 1],
  endu_grp_crit_warn_sumry: [6, 1],
  data_units_read: [32, 16],
  data_units_written: [48, 16],
  host_read_commands: [64, 16],
  host_write_commands: [80, 16],
  controller_busy_time: [96, 16],
  power_cycles: [112, 16],
  power_on_hours: [128, 16],
  unsafe_shutdowns: [144, 16],
  media_errors: [160, 16],
  num_err_log_entries: [176, 16],
  warning_temp_time: [192, 4],
  critical_comp_time: [196, 4],
  /** Eight of 2 bytes. */
  temp_sensor: [200, 16],
  thm_temp1_trans_count: [216, 4],
  thm_temp2_trans_count: [220, 4],
  thm_temp1_total_time: [224, 4],
  thm_temp2_total_time: [228, 4],
} as const satisfies Layout;

/** Firmware Slot Information (figure 208). */
export const FIRMWARE = {
  afi: [0, 1],
  /** Seven of 8 bytes. */
  frs: [8, 56],
} as const satisfies Layout;

/** Registers of the controller (NVM Express Base 2.0, section 3.1.3), in BAR 0. */
export const REGISTERS = {
  cap: [0x00, 8],
  vs: [0x08, 4],
  intms: [0x0c, 4],
  intmc: [0x10, 4],
  cc: [0x14, 4],
  csts: [0x1c, 4],
  nssr: [0x20, 4],
  aqa: [0x24, 4],
  asq: [0x28, 8],
  acq: [0x30, 8],
  cmbloc: [0x38, 4],
  cmbsz: [0x3c, 4],
  bpinfo: [0x40, 4],
  bprsel: [0x44, 4],
  bpmbl: [0x48, 8],
  cmbmsc: [0x50, 8],
  cmbsts: [0x58, 4],
  crto: [0x68, 4],
  pmrcap: [0xe00, 4],
  pmrctl: [0xe04, 4],
  pmrsts: [0xe08, 4],
  pmrebs: [0xe0c, 4],
  pmrswtp: [0xe10, 4],
  pmrmscl: [0xe14, 4],
  pmrmscu: [0xe18, 4],
} as const satisfies Layout;

/** Reads the fields of a structure by name; the bytes have been checked to be all there. */
export class Fields<T extends Layout> {
  readonly #bytes: Buffer;
  readonly #layout: T;

  constructor(bytes: Buffer, layout: T) {
    this.#bytes = bytes;
    this.#layout = layout;
  }

  /** A field of at most 4 bytes. */
  number(name: keyof T): number {
    const [offset, size] = this.#place(name);
    return this.#bytes.readUIntLE(offset, size);
  }

  /** A field of any length as a number. */
  bigint(name: keyof T): bigint {
    const [offset, size] = this.#place(name);
    let value = 0n;
    for (let at = offset + size; at > offset; at -= 4)
      value = (value << 32n) | BigInt(this.#bytes.readUInt32LE(at - 4));
    return value;
  }

  /** The field's bytes. */
  bytes(name: keyof T): Buffer {
    const [offset, size] = this.#place(name);
    return this.#bytes.subarray(offset, offset + size);
  }

  /** Text to the first NUL, with its padding. Bytes that are no ASCII stay as they are: whoever prints it knows how. */
  padded(name: keyof T): string {
    const raw = this.bytes(name).toString('latin1');
    const end = raw.indexOf('\0');
    return end === -1 ? raw : raw.slice(0, end);
  }

  /** The same without the padding. */
  text(name: keyof T): string {
    return this.padded(name).trim();
  }

  #place(name: keyof T): readonly [offset: number, bytes: number] {
    return this.#layout[name]!;
  }
}
