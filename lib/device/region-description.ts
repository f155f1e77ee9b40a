/** What GET_REGION_INFO said of a region, and the fds that came with it. */
import { closeFds } from '../native.js';
import { REGION_FLAG_MMAP } from '../protocol/constants.js';
import type { MmapArea, RegionInfo } from '../protocol/region-info.js';

export class RegionDescription {
  readonly info: RegionInfo;
  /** The areas that can be mapped: those of the sparse capability, the whole region without one, none without fds. */
  readonly areas: readonly MmapArea[];
  readonly #fds: number[];

  /** Owns `fds` from here on. */
  constructor(info: RegionInfo, fds: number[]) {
    this.info = info;
    this.#fds = fds;
    this.areas = mappableAreas(info, fds.length);
    if (this.areas.length === 0) this.close();
  }

  /** The fd behind an area: one serves all areas, but where the capability gives each area an index. */
  fdOf(area: MmapArea): number | undefined {
    return this.#fds[area.fdIndex ?? 0];
  }

  close(): void {
    closeFds(this.#fds.splice(0));
  }
}

function mappableAreas(info: RegionInfo, fdCount: number): readonly MmapArea[] {
  if ((info.flags & REGION_FLAG_MMAP) === 0 || fdCount === 0 || info.size === 0) return [];
  const { sparseMmap, sparseMmapFds } = info.capabilities;
  const areas = sparseMmapFds?.areas ?? sparseMmap?.areas ?? [{ offset: 0, size: info.size }];
  return areas.filter((area) => area.size > 0 && (area.fdIndex ?? 0) < fdCount);
}
