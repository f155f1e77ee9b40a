/** What GET_REGION_INFO said of a region, and the fds that came with it. */
import { closeFds } from '../native.js';
import { REGION_FLAG_MMAP } from '../protocol/constants.js';
import type { MmapArea, RegionInfo } from '../protocol/region-info.js';

export class RegionDescription {
  readonly info: RegionInfo;
  /** The areas that can be mapped: those of the sparse capability, the whole region without one, none without fds. */
  readonly areas: readonly MmapArea[];
  /** By their index in the reply; those that no area is behind are closed. */
  readonly #fds: Map<number, number>;

  /** Owns `fds` from here on. */
  constructor(info: RegionInfo, fds: number[]) {
    this.info = info;
    this.areas = mappableAreas(info, fds.length);
    const used = new Set(this.areas.map((area) => area.fdIndex ?? 0));
    closeFds(fds.filter((_, index) => !used.has(index)));
    this.#fds = new Map([...used].map((index) => [index, fds[index]!]));
  }

  /** The fd behind an area: one serves all areas, but where the capability gives each area an index. */
  fdOf(area: MmapArea): number | undefined {
    return this.#fds.get(area.fdIndex ?? 0);
  }

  close(): void {
    closeFds([...this.#fds.values()]);
    this.#fds.clear();
  }
}

function mappableAreas(info: RegionInfo, fdCount: number): readonly MmapArea[] {
  if ((info.flags & REGION_FLAG_MMAP) === 0 || fdCount === 0 || info.size === 0) return [];
  const { sparseMmap, sparseMmapFds } = info.capabilities;
  const areas = sparseMmapFds?.areas ?? sparseMmap?.areas ?? [{ offset: 0, size: info.size }];
  return areas.filter((area) => area.size > 0 && (area.fdIndex ?? 0) < fdCount);
}
