/** `smart-log`, `error-log` and `fw-log`. */
import { ERROR_ENTRY, Fields, FIRMWARE, SMART } from '../../nvme/layouts.js';
import { ERROR_ENTRY_SIZE, firmwareSlots } from '../../nvme/log-pages.js';
import { decodeStatus } from '../../nvme/index.js';
import { int, type JsonC } from './json-c.js';
import { celsius, hexC, printed, siSize } from './text.js';

const COUNTS = [
  ['data_units_read', 'Data Units Read'],
  ['data_units_written', 'Data Units Written'],
  ['host_read_commands', 'host_read_commands'],
  ['host_write_commands', 'host_write_commands'],
  ['controller_busy_time', 'controller_busy_time'],
  ['power_cycles', 'power_cycles'],
  ['power_on_hours', 'power_on_hours'],
  ['unsafe_shutdowns', 'unsafe_shutdowns'],
  ['media_errors', 'media_errors'],
  ['num_err_log_entries', 'num_err_log_entries'],
] as const;
const TIMES = [
  ['warning_temp_time', 'Warning Temperature Time'],
  ['critical_comp_time', 'Critical Composite Temperature Time'],
] as const;
const THERMAL = [
  ['thm_temp1_trans_count', 'Thermal Management T1 Trans Count'],
  ['thm_temp2_trans_count', 'Thermal Management T2 Trans Count'],
  ['thm_temp1_total_time', 'Thermal Management T1 Total Time'],
  ['thm_temp2_total_time', 'Thermal Management T2 Total Time'],
] as const;
/** Bits of the critical warning, by the names that JSON has for them. */
const WARNINGS = ['available_spare', 'temp_threshold', 'reliability_degraded', 'ro', 'vmbu_failed', 'pmr_ro'];
const DATA_UNIT = 512_000;
const SENSORS = 8;
/** Where nvme-cli's colons stand, with its tabs. */
const COLON = 40;
const TAB = 8;
/** Of a slot's eight bytes as a number, with its prefix. */
const SLOT_DIGITS = 16;
const DOTS = '.................';
const TRANSPORTS = [
  'The transport type is not indicated or the error is not transport related',
  'RDMA',
  'Fibre Channel',
  'TCP',
];

export function smartJson(bytes: Buffer, isHuman: boolean): JsonC {
  const at = new Fields(bytes, SMART);
  const warning = at.number('critical_warning');
  const bits = WARNINGS.map((name, i): [string, JsonC] => [name, (warning >>> i) & 1]);
  return Object.fromEntries([
    ['critical_warning', isHuman ? Object.fromEntries([['value', warning], ...bits]) : warning],
    ...(['temperature', 'avail_spare', 'spare_thresh', 'percent_used'] as const).map(
      (name): [string, JsonC] => [name, at.number(name)],
    ),
    ['endurance_grp_critical_warning_summary', at.number('endu_grp_crit_warn_sumry')],
    ...COUNTS.map(([name]): [string, JsonC] => [name, at.bigint(name).toString()]),
    ...TIMES.map(([name]): [string, JsonC] => [name, int(at.number(name))]),
    ...sensorsOf(at).map(([index, value]): [string, JsonC] => [`temperature_sensor_${index}`, value]),
    ...THERMAL.map(([name]): [string, JsonC] => [name, int(at.number(name))]),
  ]);
}

export function smartText(bytes: Buffer, device: string, nsid: number): string {
  const at = new Fields(bytes, SMART);
  const degrees = (kelvin: number) => `${celsius(kelvin)}°C (${kelvin} Kelvin)`;
  const lines = [
    `Smart Log for NVME device:${device} namespace-id:${nsid.toString(16)}`,
    tabbed('critical_warning', hexC(at.number('critical_warning'))),
    tabbed('temperature', degrees(at.number('temperature'))),
    tabbed('available_spare', `${at.number('avail_spare')}%`),
    tabbed('available_spare_threshold', `${at.number('spare_thresh')}%`),
    tabbed('percentage_used', `${at.number('percent_used')}%`),
    `endurance group critical warning summary: ${hexC(at.number('endu_grp_crit_warn_sumry'))}`,
    ...COUNTS.map(([name, title]) => {
      const value = at.bigint(name);
      return tabbed(title, title.startsWith('Data') ? `${value} (${dataUnits(value)})` : value.toString());
    }),
    ...TIMES.map(([name, title]) => tabbed(title, at.number(name).toString())),
    ...sensorsOf(at).map(([index, value]) => `Temperature Sensor ${index}           : ${degrees(value)}`),
    ...THERMAL.map(([name, title]) => tabbed(title, at.number(name).toString())),
  ];
  return `${lines.join('\n')}\n`;
}

function tabbed(title: string, value: string): string {
  return `${title}${'\t'.repeat(Math.ceil((COLON - title.length) / TAB))}: ${value}`;
}

function dataUnits(units: bigint): string {
  const [value, suffix] = siSize(Number(units) * DATA_UNIT);
  return `${value.toFixed(2)} ${suffix}B`;
}

/** Those that there are, from 1. */
function sensorsOf(at: Fields<typeof SMART>): [index: number, value: number][] {
  const bytes = at.bytes('temp_sensor');
  return Array.from({ length: SENSORS }, (_, i): [number, number] => [
    i + 1,
    bytes.readUInt16LE(2 * i),
  ]).filter(([, value]) => value !== 0);
}

function entriesOf(bytes: Buffer): Fields<typeof ERROR_ENTRY>[] {
  const count = Math.floor(bytes.length / ERROR_ENTRY_SIZE);
  return Array.from(
    { length: count },
    (_, i) => new Fields(bytes.subarray(i * ERROR_ENTRY_SIZE, (i + 1) * ERROR_ENTRY_SIZE), ERROR_ENTRY),
  );
}

/** All entries, those that are not in use too. */
export function errorsJson(bytes: Buffer): JsonC {
  return {
    errors: entriesOf(bytes).map((at) => ({
      error_count: at.bigint('error_count'),
      sqid: at.number('sqid'),
      cmdid: at.number('cmdid'),
      status_field: at.number('status_field') >>> 1,
      phase_tag: at.number('status_field') & 1,
      parm_error_location: at.number('parm_error_location'),
      lba: at.bigint('lba'),
      nsid: int(at.number('nsid')),
      vs: at.number('vs'),
      trtype: at.number('trtype'),
      cs: at.bigint('cs'),
      trtype_spec_info: at.number('trtype_spec_info'),
    })),
  };
}

export function errorsText(bytes: Buffer, device: string): string {
  const entries = entriesOf(bytes);
  const lines = [`Error Log Entries for device:${device} entries:${entries.length}`, DOTS];
  for (const [i, at] of entries.entries()) {
    const status = at.number('status_field') >>> 1;
    lines.push(
      ` Entry[${String(i).padStart(2)}]   `,
      DOTS,
      `error_count\t: ${at.bigint('error_count')}`,
      `sqid\t\t: ${at.number('sqid')}`,
      `cmdid\t\t: ${hexC(at.number('cmdid'))}`,
      `status_field\t: ${hexC(status)}(${decodeStatus(status).name})`,
      `phase_tag\t: ${hexC(at.number('status_field') & 1)}`,
      `parm_err_loc\t: ${hexC(at.number('parm_error_location'))}`,
      `lba\t\t: ${hexC(at.bigint('lba'))}`,
      `nsid\t\t: ${hexC(at.number('nsid'))}`,
      `vs\t\t: ${at.number('vs')}`,
      `trtype\t\t: ${TRANSPORTS[at.number('trtype')] ?? 'Reserved'}`,
      `cs\t\t: ${hexC(at.bigint('cs'))}`,
      `trtype_spec_info: ${hexC(at.number('trtype_spec_info'))}`,
      DOTS,
    );
  }
  return `${lines.join('\n')}\n`;
}

/** Slots that hold something, by number. */
function slotsOf(bytes: Buffer): [slot: number, revision: Buffer][] {
  return firmwareSlots(bytes)
    .map((revision, i): [number, Buffer] => [i + 1, revision])
    .filter(([, revision]) => revision[0] !== 0);
}

export function firmwareJson(bytes: Buffer, device: string): JsonC {
  const slots = slotsOf(bytes).map(([slot, revision]): [string, JsonC] => [
    `Firmware Rev Slot ${slot}`,
    `${revision.readBigUInt64LE()} (${printed(revision)})`,
  ]);
  const active = new Fields(bytes, FIRMWARE).number('afi');
  return { [device]: Object.fromEntries([['Active Firmware Slot (afi)', active], ...slots]) };
}

export function firmwareText(bytes: Buffer, device: string): string {
  const slots = slotsOf(bytes).map(
    ([slot, revision]) =>
      `frs${slot} : ${hexC(revision.readBigUInt64LE(), SLOT_DIGITS)} (${printed(revision)})`,
  );
  const afi = hexC(new Fields(bytes, FIRMWARE).number('afi'));
  return `${[`Firmware Log for device:${device}`, `afi  : ${afi}`, ...slots].join('\n')}\n`;
}
