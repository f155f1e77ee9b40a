/** A recording that has each command once, for a replay server that hostile clients talk to. */
import { CaptureWriter, type TracedEvent } from '../../../lib/trace/index.js';
import { RAM_IDENTIFICATION } from '../../../lib/emulator/index.js';
import * as w from '../../support/wire.js';

const SOCKET = 'recorded';
const DATA = { capabilities: { max_msg_fds: 8, max_data_xfer_size: 1 << 20 } };
const TWIN = { capabilities: { ...DATA.capabilities, twin_socket: { supported: true, fd_index: 0 } } };

type Line =
  | { sent: Buffer; fds?: number }
  | { received: Buffer; fds?: number }
  | { interrupt: [index: number, subindex: number] };

/** The write that the recorded device did DMA for: a DMA_READ of 4 bytes at 0x10, a DMA_WRITE of them to 0x100. */
export const DOORBELL = w.regionWriteRequest({ offset: 0x20, region: 2, data: [0xd0, 0, 0, 0] });
/** What the recorded client had at 0x10. */
export const RECORDED_DATA = [1, 2, 3, 4];
/** The write upon which the recorded device wrote 32 times 512 KiB, not waiting for an answer. */
export const BURST = w.regionWriteRequest({ offset: 0x20, region: 2, data: [0xd1, 0, 0, 0] });
export const BURST_WRITES = 32;
export const BURST_BYTES = 512 << 10;
/** A read that is answered with 8 KiB. */
export const LONG_READ = w.regionReadRequest({ region: 2, count: 8 << 10 });

export interface RecordingOptions {
  /** The recorded server had a twin socket, and asked for DMA on it. */
  hasTwin?: boolean;
  hasBurst?: boolean;
}

export async function writeRecording(
  path: string,
  { hasTwin = false, hasBurst = false }: RecordingOptions = {},
): Promise<void> {
  const writer = await CaptureWriter.open({ path });
  const twin = hasTwin ? `${SOCKET} (twin)` : SOCKET;
  let time = 0n;
  let id = 0;
  const write = (line: Line, socket = SOCKET): void => {
    writer.write(eventOf(line, (time += 1_000n), socket));
  };
  const exchange = (sent: Buffer, received: Buffer, fds = 0): void => {
    const numbered = [sent, received].map((bytes) => withId(bytes, id)) as [Buffer, Buffer];
    id++;
    write({ sent: numbered[0], fds });
    write({ received: numbered[1] });
  };
  write({ sent: w.versionRequest({ data: hasTwin ? TWIN : DATA }, { id: id++ }) });
  write({ received: w.versionReply({ data: hasTwin ? TWIN : DATA }, { id: 0 }), fds: hasTwin ? 1 : 0 });
  const identification = w.wire().u32(RAM_IDENTIFICATION).build();
  exchange(w.regionReadRequest({ count: 4 }), w.regionReadReply({ data: identification }));
  exchange(LONG_READ, w.regionReadReply({ region: 2, data: Buffer.alloc(8 << 10, 7) }));
  exchange(w.regionWriteRequest({ region: 2, offset: 8, data: [9] }), w.regionWriteReply({ region: 2 }));
  exchange(w.dmaMapRequest({ address: 1 << 20 }), w.dmaMapReply(), 1);
  exchange(w.dmaMapRequest({ address: 2 << 20 }), w.dmaMapReply());
  exchange(w.dmaUnmapRequest({ address: 2 << 20 }), w.dmaUnmapReply({ address: 2 << 20 }));
  exchange(w.deviceGetInfoRequest({ argsz: 20 }), w.deviceGetInfoReply({ numRegions: 9, numIrqs: 5 }));
  exchange(w.regionInfoRequest({ index: 7 }), w.regionInfoReply({ index: 7, size: 256 }));
  exchange(w.regionIoFdsRequest({ index: 3 }), w.regionIoFdsReply({ index: 3 }));
  exchange(w.irqInfoRequest({ index: 2 }), w.irqInfoReply({ index: 2, count: 4 }));
  exchange(w.deviceFeatureRequest({ argsz: 24, flags: 0x10001 }), w.reply(16, Buffer.alloc(24)));
  exchange(w.regionWriteMultiRequest([{ offset: 4, region: 2, data: [1] }]), w.reply(15, Buffer.alloc(8)));
  exchange(w.deviceResetRequest(), w.deviceResetReply());
  exchange(w.dirtyPagesRequest({ flags: 2 }), w.reply(14, Buffer.alloc(8)));
  exchange(w.setIrqsRequest({ flags: 0x24, index: 2, count: 2 }), w.setIrqsReply(), 2);
  write({ interrupt: [2, 1] });
  const dmaRead = { address: 0x10, count: 4 };
  const dmaWrite = { address: 0x100, data: RECORDED_DATA };
  write({ sent: withId(DOORBELL, id) });
  write({ received: w.dmaReadRequest(dmaRead, { id: 1 }) }, twin);
  write({ sent: w.dmaReadReply({ ...dmaRead, data: RECORDED_DATA }, { id: 1 }) }, twin);
  write({ received: w.dmaWriteRequest(dmaWrite, { id: 2 }) }, twin);
  write({ sent: w.dmaWriteReply({ address: 0x100, count: 4 }, { id: 2 }) }, twin);
  write({ received: w.regionWriteReply({ offset: 0x20, region: 2, count: 4 }, { id: id++ }) });
  if (hasBurst) {
    write({ sent: withId(BURST, id) });
    const burst = Array.from({ length: BURST_WRITES }, (_, i) => i + 10);
    const much = { address: 0x1000, data: Buffer.alloc(BURST_BYTES, 5) };
    for (const each of burst) write({ received: w.dmaWriteRequest(much, { id: each }) }, twin);
    const done = { address: 0x1000, count: BURST_BYTES };
    for (const each of burst) write({ sent: w.dmaWriteReply(done, { id: each }) }, twin);
    write({ received: w.regionWriteReply({ offset: 0x20, region: 2, count: 4 }, { id }) });
  }
  writer.close();
}

function withId(bytes: Buffer, id: number): Buffer {
  const copy = Buffer.from(bytes);
  copy.writeUInt16LE(id, 0);
  return copy;
}

function eventOf(line: Line, time: bigint, socket: string): TracedEvent {
  if ('interrupt' in line) {
    const [index, subindex] = line.interrupt;
    return { socket, time, index, subindex, count: 1 };
  }
  const bytes = 'sent' in line ? line.sent : line.received;
  return {
    socket,
    time,
    direction: 'sent' in line ? 'sent' : 'received',
    bytes,
    size: bytes.length,
    fds: Array.from({ length: line.fds ?? 0 }, (_, i) => i + 3),
  };
}
