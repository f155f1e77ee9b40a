/** Which registers a rig's device has, as the command line or a program says it. */
import { outOfRange, wrongType } from '../fields.js';
import { REGION_WORDS } from '../faults/checks.js';
import { RegisterMap, RegisterPlacement, loadRegisterMap } from '../registers/index.js';

/** A file as `--map` takes it, `FILE[:BLOCK][@REGION[+OFFSET]]`; a map, from bar0's beginning on; or a map and where it is. */
export type RigMap = string | RegisterMap | RegisterPlacement;

const FORM = /^(?<file>.+?)(?::(?<block>[\w-]+))?(?:@(?<region>\w+)(?:\+(?<offset>0x[\da-f]+|\d+))?)?$/i;

/** @throws what reading the file throws; RangeError for a region or a block that there is not. */
export async function placementOf(map: RigMap): Promise<RegisterPlacement> {
  if (map instanceof RegisterPlacement) return map;
  if (map instanceof RegisterMap) return new RegisterPlacement(map);
  if (typeof map !== 'string') {
    throw wrongType('openRig: map', 'the name of a file, a RegisterMap or a RegisterPlacement', map);
  }
  const { file, block, region = 'bar0', offset = '0' } = FORM.exec(map)?.groups ?? {};
  if (file === undefined) throw outOfRange(`openRig: map is FILE[:BLOCK][@REGION[+OFFSET]], got ${map}`);
  const index = /^\d+$/.test(region) ? Number(region) : REGION_WORDS.indexOf(region.toLowerCase());
  if (index === -1) {
    throw outOfRange(
      `openRig: map: a region is a number or one of ${REGION_WORDS.join(', ')}, got ${region}`,
    );
  }
  const { map: loaded } = await loadRegisterMap(file);
  return new RegisterPlacement(loaded, { block, region: index, offset: Number(offset) });
}
