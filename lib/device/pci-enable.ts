/**
 * What a host does before its driver starts: gives BARs addresses and lets the device answer (PCI Local Bus
 * Specification 3.0, section 6.2.5.1). QEMU's devices refuse every BAR access, and all DMA, until that is done.
 */
import type { CallOptions } from '../connection/index.js';
import {
  PciCommand,
  PciConfig,
  assignBars,
  barOffset,
  barSizeFromMask,
  encodeBarAddress,
  type Bar,
  type BarRequest,
} from '../pci/index.js';
import { UnsupportedError } from '../errors.js';
import type { ConfigSpace } from './config-space.js';
import type { Region } from './region.js';

const ALL_ONES = 0xffff_ffff;
const DECODE = PciCommand.IO | PciCommand.MEMORY;

/**
 * Assigns addresses to the BARs that have none, then turns memory, I/O and bus mastering on.
 * @throws UnsupportedError where the BARs do not fit their address windows.
 */
export async function enableDevice(
  config: ConfigSpace,
  regions: readonly Region[],
  options?: CallOptions,
): Promise<void> {
  await config.settle(options);
  const unassigned = config.bars.filter((bar) => {
    const size = regions[bar.index]?.size ?? 0;
    return size > 0 && !hasAddress(bar, size);
  });
  if (unassigned.length > 0) {
    // While a BAR is sized it must not answer to the addresses that it passes through.
    await config.update(PciConfig.COMMAND, 2, DECODE, 0, options);
    await assignAddresses(config, regions, unassigned, options);
  }
  const wanted = DECODE | PciCommand.BUS_MASTER;
  await config.update(PciConfig.COMMAND, 2, wanted, wanted, options);
}

/** Not what a BAR reads as whose sizing was broken off: an address that makes it end where its registers do. */
function hasAddress({ kind, address }: Bar, size: number): boolean {
  if (address === 0n) return false;
  const end = address + BigInt(2 ** Math.ceil(Math.log2(size)));
  return end !== 1n << 32n && end !== 1n << (kind === 'io' ? 16n : 64n);
}

async function assignAddresses(
  config: ConfigSpace,
  regions: readonly Region[],
  unassigned: readonly Bar[],
  options?: CallOptions,
): Promise<void> {
  const requests: BarRequest[] = config.bars
    .filter((bar) => bar.address !== 0n && !unassigned.includes(bar))
    .map((bar) => ({ ...bar, size: regions[bar.index]?.size ?? 0 }));
  for (const bar of unassigned) {
    const size = await sizeBar(config, bar, options);
    requests.push({ ...bar, address: 0n, size });
  }
  const { assignments, problems } = assignBars(requests);
  if (problems.length > 0) throw new UnsupportedError(problems.join('; '));
  for (const { index, kind, address } of assignments) {
    const words = encodeBarAddress(kind, address);
    for (const [i, word] of words.entries())
      await config.writeUInt32(barOffset(index) + 4 * i, word, options);
  }
}

/** What the register says after all ones were written: 0n where it is not implemented. */
async function sizeBar(config: ConfigSpace, bar: Bar, options?: CallOptions): Promise<bigint> {
  const low = barOffset(bar.index);
  await config.writeUInt32(low, ALL_ONES, options);
  const lowMask = config.getUInt32(low);
  if (bar.kind !== 'memory64') {
    await config.writeUInt32(low, 0, options);
    return barSizeFromMask(lowMask);
  }
  await config.writeUInt32(low + 4, ALL_ONES, options);
  const highMask = config.getUInt32(low + 4);
  await config.writeUInt32(low, 0, options);
  await config.writeUInt32(low + 4, 0, options);
  return barSizeFromMask(lowMask, highMask);
}
