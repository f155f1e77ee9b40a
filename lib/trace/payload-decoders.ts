/**
 * The table of payloads: what each command's request and reply say, as fields under the specification's names. Each
 * entry lets the codec check the bytes first.
 */
import { Command } from '../protocol/constants.js';
import {
  regionRead,
  regionReadReply,
  regionWrite,
  regionWriteMulti,
  regionWriteMultiReply,
  regionWriteReply,
} from './describe-access.js';
import {
  deviceInfo,
  getInfo,
  getIrqInfo,
  getRegionInfo,
  getRegionIoFds,
  irqInfo,
  regionInfo,
  regionIoFds,
  setIrqs,
  version,
} from './describe-device.js';
import {
  dirtyPages,
  dirtyPagesReply,
  dmaMap,
  dmaRead,
  dmaReadReply,
  dmaUnmap,
  dmaUnmapReply,
  dmaWrite,
  dmaWriteReply,
} from './describe-dma.js';
import { deviceFeature, migDataRead, migDataReadReply, migDataWrite } from './describe-feature.js';
import { dataAt, type Describe, type Payload } from './payload-fields.js';

const REQUESTS: Readonly<Record<number, Describe>> = {
  [Command.VERSION]: version,
  [Command.DMA_MAP]: dmaMap,
  [Command.DMA_UNMAP]: dmaUnmap,
  [Command.DEVICE_GET_INFO]: getInfo,
  [Command.DEVICE_GET_REGION_INFO]: getRegionInfo,
  [Command.DEVICE_GET_REGION_IO_FDS]: getRegionIoFds,
  [Command.DEVICE_GET_IRQ_INFO]: getIrqInfo,
  [Command.DEVICE_SET_IRQS]: setIrqs,
  [Command.REGION_READ]: regionRead,
  [Command.REGION_WRITE]: regionWrite,
  [Command.DMA_READ]: dmaRead,
  [Command.DMA_WRITE]: dmaWrite,
  [Command.DIRTY_PAGES]: dirtyPages,
  [Command.REGION_WRITE_MULTI]: regionWriteMulti,
  [Command.DEVICE_FEATURE]: (bytes, start, end) => deviceFeature(bytes, start, end, false),
  [Command.MIG_DATA_READ]: migDataRead,
  [Command.MIG_DATA_WRITE]: migDataWrite,
};

/** Commands that are missing here have replies without payload. */
const REPLIES: Readonly<Record<number, Describe>> = {
  [Command.VERSION]: version,
  [Command.DMA_UNMAP]: dmaUnmapReply,
  [Command.DEVICE_GET_INFO]: deviceInfo,
  [Command.DEVICE_GET_REGION_INFO]: regionInfo,
  [Command.DEVICE_GET_REGION_IO_FDS]: regionIoFds,
  [Command.DEVICE_GET_IRQ_INFO]: irqInfo,
  [Command.REGION_READ]: regionReadReply,
  [Command.REGION_WRITE]: regionWriteReply,
  [Command.DMA_READ]: dmaReadReply,
  [Command.DMA_WRITE]: dmaWriteReply,
  [Command.DIRTY_PAGES]: dirtyPagesReply,
  [Command.REGION_WRITE_MULTI]: regionWriteMultiReply,
  [Command.DEVICE_FEATURE]: (bytes, start, end) => deviceFeature(bytes, start, end, true),
  [Command.MIG_DATA_READ]: migDataReadReply,
};

/**
 * The payload `bytes[start, end)` of a command or of a good reply to it.
 *
 * @throws ProtocolError for what the codec refuses.
 */
export function describePayload(
  command: number,
  isReply: boolean,
  bytes: Buffer,
  start: number,
  end: number,
): Payload {
  const known = (isReply ? REPLIES : REQUESTS)[command];
  return known === undefined ? { fields: {}, ...dataAt(start, end) } : known(bytes, start, end);
}
