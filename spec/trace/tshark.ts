/** What tshark makes of a capture with the dissector of tools/wireshark. */
import { execFile, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const DISSECTOR = fileURLToPath(new URL('../../tools/wireshark/vfio-user.lua', import.meta.url));
const MOST_OUTPUT = 64 << 20;
const PREFIX = 'vfio_user_vfio_user_';

/** Whether there is a tshark to ask. */
export const hasTshark = spawnSync('tshark', ['--version']).status === 0;

/** A packet's fields by their names without `vfio_user.`, dots as underscores; each as many times as it occurs. */
export type Packet = ReadonlyMap<string, readonly (string | boolean)[]>;

/** Runs tshark over `file`. `home` is a directory of no user. */
export async function tshark(file: string, home: string, ...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(
    'tshark',
    ['-n', '-X', `lua_script:${DISSECTOR}`, '-r', file, ...args],
    {
      maxBuffer: MOST_OUTPUT,
      env: { PATH: process.env['PATH'], HOME: home, TZ: 'UTC' },
    },
  );
  return stdout;
}

/** The fields of every message, in order. */
export async function dissect(file: string, home: string, ...args: string[]): Promise<Packet[]> {
  const lines = (await tshark(file, home, '-T', 'ek', ...args)).split('\n');
  return lines.filter((line) => line.includes('"vfio_user":')).map(packetOf);
}

/** One field of each packet as text, the empty string where it does not occur. */
export async function column(
  file: string,
  home: string,
  field: string,
  ...args: string[]
): Promise<string[]> {
  const text = await tshark(file, home, '-T', 'fields', '-e', field, ...args);
  return text.split('\n').slice(0, -1);
}

function packetOf(line: string): Packet {
  const { layers } = JSON.parse(line) as { layers: Record<string, unknown> };
  const fields = new Map<string, (string | boolean)[]>();
  collect(layers['vfio_user'], fields);
  return fields;
}

/** Protocols in protocols are objects in objects. */
function collect(layer: unknown, into: Map<string, (string | boolean)[]>): void {
  if (typeof layer !== 'object' || layer === null) return;
  for (const [name, value] of Object.entries(layer)) {
    if (name.startsWith(PREFIX)) into.set(name.slice(PREFIX.length), [value].flat() as (string | boolean)[]);
    else collect(value, into);
  }
}
