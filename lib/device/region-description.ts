/** What GET_REGION_INFO said of a region, and the fds that came with it. */
import { fstatSync } from 'node:fs';
import { closeFds, holdFd, type HeldFd } from '../native.js';
import { REGION_FLAG_MMAP } from '../protocol/constants.js';
import type { MmapArea, RegionInfo } from '../protocol/region-info.js';

/** Most regions have none: a process may have thousands of them. */
const NO_FDS: ReadonlyMap<number, HeldFd> = new Map();

export class RegionDescription {
  readonly info: RegionInfo;
  /** The areas that can be mapped: those of the sparse capability, the whole region without one, none without fds. */
  readonly areas: readonly MmapArea[];
  /** Why none of the areas can be mapped although files came for them. */
  readonly unmappableReason: string | undefined;
  /** By their index in the reply; those that no area is behind are closed. */
  #fds: ReadonlyMap<number, HeldFd>;

  /** Owns `fds` from here on. */
  constructor(info: RegionInfo, fds: number[]) {
    this.info = info;
    const areas = mappableAreas(info, fds.length);
    this.unmappableReason = ambiguity(info, areas, fds);
    this.areas = this.unmappableReason === undefined ? areas : [];
    const used = new Set(this.areas.map((area) => area.fdIndex ?? 0));
    closeFds(fds.filter((_, index) => !used.has(index)));
    // `mappableAreas` has left out areas of fds that did not come.
    this.#fds = used.size === 0 ? NO_FDS : new Map([...used].map((index) => [index, holdFd(fds[index]!)]));
  }

  /** The fd behind an area: one serves all areas, but where the capability gives each area an index. */
  fdOf(area: MmapArea): number | undefined {
    return this.#fds.get(area.fdIndex ?? 0)?.fd;
  }

  close(): void {
    for (const held of this.#fds.values()) held.close();
    this.#fds = NO_FDS;
  }
}

function mappableAreas(info: RegionInfo, fdCount: number): readonly MmapArea[] {
  if ((info.flags & REGION_FLAG_MMAP) === 0 || fdCount === 0 || info.size === 0) return [];
  const { sparseMmap, sparseMmapFds } = info.capabilities;
  const areas = sparseMmapFds?.areas ?? sparseMmap?.areas ?? [{ offset: 0, size: info.size }];
  return areas.filter((area) => area.size > 0 && (area.fdIndex ?? 0) < fdCount);
}

/**
 * Several areas lie in one file, as in the region, unless the capability gives each its own. Files for each without it
 * would have to be told apart by guessing; copies of one (libvfio-user sends such) need not be.
 */
function ambiguity(info: RegionInfo, areas: readonly MmapArea[], fds: readonly number[]): string | undefined {
  if (areas.length < 2 || fds.length < 2 || info.capabilities.sparseMmapFds !== undefined) return undefined;
  const files = new Set(fds.map(fileOf));
  if (files.size === 1) return undefined;
  return (
    `region ${info.index} came with ${files.size} files for ${areas.length} areas, and without the capability ` +
    '(sparse_mmap_fds) that says which is in which: nothing of it is mapped'
  );
}

/** What file an fd is of. */
function fileOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev} ${ino}`;
}
