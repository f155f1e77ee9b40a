/** `id-ctrl`: Identify Controller. */
import { CONTROLLER, Fields, POWER_STATE, POWER_STATE_BYTES } from '../../nvme/layouts.js';
import { printable } from '../errors.js';
import { int, type JsonC } from './json-c.js';
import { hexC } from './text.js';

/**
 * How a field is printed: `x`, `d` and `u` are printf's, and JSON has a number; `text` is text, `large` 128 bits as digits.
 */
type Kind = 'x' | 'd' | 'u' | 'text' | 'large' | 'ieee' | 'uuid' | 'nqn';

/** In nvme-cli's order. */
const KINDS: Readonly<Record<Exclude<keyof typeof CONTROLLER, 'psd'>, Kind>> = {
  ...{
    vid: 'x',
    ssvid: 'x',
    sn: 'text',
    mn: 'text',
    fr: 'text',
    rab: 'd',
    ieee: 'ieee',
    cmic: 'x',
    mdts: 'd',
  },
  ...{ cntlid: 'x', ver: 'x', rtd3r: 'x', rtd3e: 'x', oaes: 'x', ctratt: 'x', rrls: 'x', cntrltype: 'd' },
  ...{
    fguid: 'uuid',
    crdt1: 'u',
    crdt2: 'u',
    crdt3: 'u',
    nvmsr: 'u',
    vwci: 'u',
    mec: 'u',
    oacs: 'x',
    acl: 'd',
  },
  ...{
    aerl: 'd',
    frmw: 'x',
    lpa: 'x',
    elpe: 'd',
    npss: 'd',
    avscc: 'x',
    apsta: 'x',
    wctemp: 'd',
    cctemp: 'd',
  },
  ...{
    mtfa: 'd',
    hmpre: 'd',
    hmmin: 'd',
    tnvmcap: 'large',
    unvmcap: 'large',
    rpmbs: 'x',
    edstt: 'd',
    dsto: 'd',
  },
  ...{ fwug: 'd', kas: 'd', hctma: 'x', mntmt: 'd', mxtmt: 'd', sanicap: 'x', hmminds: 'u', hmmaxd: 'd' },
  ...{ nsetidmax: 'd', endgidmax: 'd', anatt: 'd', anacap: 'd', anagrpmax: 'u', nanagrpid: 'u', pels: 'u' },
  ...{
    domainid: 'd',
    megcap: 'large',
    sqes: 'x',
    cqes: 'x',
    maxcmd: 'd',
    nn: 'd',
    oncs: 'x',
    fuses: 'x',
    fna: 'x',
  },
  ...{ vwc: 'x', awun: 'd', awupf: 'd', icsvscc: 'd', nwpc: 'd', acwu: 'd', ocfs: 'x', sgls: 'x', mnan: 'u' },
  ...{
    maxdna: 'large',
    maxcna: 'u',
    subnqn: 'nqn',
    ioccsz: 'u',
    iorcsz: 'u',
    icdoff: 'd',
    fcatt: 'x',
    msdbd: 'd',
  },
  ofcs: 'd',
};
const ROWS = Object.entries(KINDS) as [Exclude<keyof typeof CONTROLLER, 'psd'>, Kind][];

/** NPSS has a byte, and the structure room for so many. */
const MOST_POWER_STATES = 32;
const WORKLOADS = ['-', '1', '2'];
const MXPS = 1;
const NOPS = 2;

export function controllerJson(bytes: Buffer): JsonC {
  const at = new Fields(bytes, CONTROLLER);
  const members: [string, JsonC][] = [];
  for (const [name, kind] of ROWS) {
    // An empty name is left out.
    if (kind === 'nqn' && at.padded(name) === '') continue;
    members.push([name, jsonOf(at, name, kind)]);
  }
  members.push(['psds', powerStates(at).map(powerStateJson)]);
  return Object.fromEntries(members);
}

function jsonOf(at: Fields<typeof CONTROLLER>, name: keyof typeof CONTROLLER, kind: Kind): JsonC {
  if (kind === 'text' || kind === 'nqn') return at.padded(name);
  if (kind === 'large') return at.bigint(name).toString();
  if (kind === 'uuid') return uuid(at.bytes(name));
  return int(at.number(name));
}

export function controllerText(bytes: Buffer): string {
  const at = new Fields(bytes, CONTROLLER);
  const lines = ROWS.map(([name, kind]) => `${name.padEnd(9)} : ${textOf(at, name, kind)}`);
  return `${['NVME Identify Controller:', ...lines, ...powerStates(at).map(powerStateText)].join('\n')}\n`;
}

function textOf(at: Fields<typeof CONTROLLER>, name: keyof typeof CONTROLLER, kind: Kind): string {
  if (kind === 'text' || kind === 'nqn') return printable(at.padded(name));
  if (kind === 'large') return at.bigint(name).toString();
  if (kind === 'uuid') return uuid(at.bytes(name));
  if (kind === 'ieee') return at.number(name).toString(16).padStart(6, '0');
  if (kind === 'x') return hexC(at.number(name));
  return (kind === 'd' ? int(at.number(name)) : at.number(name)).toString();
}

function uuid(bytes: Buffer): string {
  const digits = bytes.toString('hex');
  return [
    digits.slice(0, 8),
    digits.slice(8, 12),
    digits.slice(12, 16),
    digits.slice(16, 20),
    digits.slice(20),
  ].join('-');
}

function powerStates(at: Fields<typeof CONTROLLER>): Fields<typeof POWER_STATE>[] {
  const count = Math.min(at.number('npss') + 1, MOST_POWER_STATES);
  const bytes = at.bytes('psd');
  return Array.from(
    { length: count },
    (_, i) => new Fields(bytes.subarray(i * POWER_STATE_BYTES, (i + 1) * POWER_STATE_BYTES), POWER_STATE),
  );
}

function powerStateJson(at: Fields<typeof POWER_STATE>): JsonC {
  return {
    max_power: at.number('mp'),
    flags: at.number('flags'),
    entry_lat: int(at.number('enlat')),
    exit_lat: int(at.number('exlat')),
    read_tput: at.number('rrt'),
    read_lat: at.number('rrl'),
    write_tput: at.number('rwt'),
    write_lat: at.number('rwl'),
    idle_power: at.number('idlp'),
    idle_scale: at.number('ips') >>> 6,
    active_power: at.number('actp'),
    active_power_work: at.number('apws') & 7,
    active_scale: at.number('apws') >>> 6,
  };
}

function powerStateText(at: Fields<typeof POWER_STATE>, index: number): string {
  const flags = at.number('flags');
  const most = watts(at.number('mp'), (flags & MXPS) !== 0 ? 4 : 2);
  const apws = at.number('apws');
  return (
    `ps   ${String(index).padStart(4)} : mp:${most} ${(flags & NOPS) !== 0 ? 'non-' : ''}operational ` +
    `enlat:${int(at.number('enlat'))} exlat:${int(at.number('exlat'))} rrt:${at.number('rrt')} rrl:${at.number('rrl')}\n` +
    `            rwt:${at.number('rwt')} rwl:${at.number('rwl')} idle_power:${scaled(at.number('idlp'), at.number('ips') >>> 6)} ` +
    `active_power:${scaled(at.number('actp'), apws >>> 6)}\n` +
    `            active_power_workload:${WORKLOADS[apws & 7] ?? 'reserved'}`
  );
}

function scaled(power: number, scale: number): string {
  if (scale === 0) return '-';
  if (scale === 3) return 'reserved';
  return watts(power, scale === 1 ? 4 : 2);
}

function watts(power: number, digits: number): string {
  return `${(power / 10 ** digits).toFixed(digits)}W`;
}
