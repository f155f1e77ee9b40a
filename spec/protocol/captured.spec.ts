/** Whole messages as real servers sent them: libvfio-user's samples `server` and `shadow_ioeventfd_server`, rust-vmm's `gpio`. */
import { describe, expect, test } from '@jest/globals';
import * as protocol from '../../lib/protocol/index.js';
import type { Decoder } from '../support/wire-placed.js';

function captured<T>(command: number, decoder: Decoder<T>, ...hex: string[]): T {
  const bytes = Buffer.from(hex.join('').replaceAll(' ', ''), 'hex');
  const header = protocol.decodeHeader(bytes, 0);
  expect(header).toMatchObject({ command, size: bytes.length, flags: protocol.HEADER_FLAG_REPLY, errno: 0 });
  return decoder(bytes, protocol.HEADER_SIZE, bytes.length);
}

describe('libvfio-user', () => {
  test('VERSION without migration', () => {
    const version = captured(
      1,
      protocol.decodeVersion,
      '010001005c0000000100000000000000 00000200',
      '7b20226361706162696c6974696573223a207b20226d61785f6d73675f666473223a20382c20226d61785f646174615f',
      '786665725f73697a65223a2031303438353736207d207d00',
    );
    expect(version).toMatchObject({
      major: 0,
      minor: 2,
      capabilities: { maxMsgFds: 8, maxDataXferSize: 1048576 },
    });
    expect(version.capabilities.migration).toBeUndefined();
  });

  test('DEVICE_GET_INFO', () => {
    const hex = '02000400200000000100000000000000 10000000030000000900000005000000';
    expect(captured(4, protocol.decodeDeviceInfo, hex)).toEqual({ flags: 3, numRegions: 9, numIrqs: 5 });
  });

  test('DEVICE_GET_REGION_INFO that did not fit 32 bytes, and again with room', () => {
    const cut = captured(
      5,
      protocol.decodeRegionInfo,
      '05000500300000000100000000000000 50000000070000000100000000000000 00300000000000000000000000000000',
    );
    expect(cut).toMatchObject({ index: 1, flags: 7, size: 0x3000, argsz: 80, truncated: true });
    const whole = captured(
      5,
      protocol.decodeRegionInfo,
      '06000500600000000100000000000000 500000000f0000000100000020000000 00300000000000000000000000000000',
      '01000100000000000200000000000000 00000000000000000010000000000000 00200000000000000010000000000000',
    );
    expect(whole).toMatchObject({ index: 1, flags: 15, size: 0x3000, argsz: 80, truncated: false });
    expect(whole.capabilities.sparseMmap?.areas).toEqual([
      { offset: 0, size: 0x1000 },
      { offset: 0x2000, size: 0x1000 },
    ]);
  });

  test('DEVICE_GET_IRQ_INFO', () => {
    const hex = '15000700200000000100000000000000 10000000010000000000000001000000';
    expect(captured(7, protocol.decodeIrqInfo, hex)).toEqual({ index: 0, flags: 1, count: 1 });
  });

  test('DEVICE_GET_REGION_IO_FDS: one shadow, whole and cut', () => {
    const whole = captured(
      6,
      protocol.decodeRegionIoFds,
      '29000600500000000100000000000000 40000000000000000000000001000000 00000000000000000400000000000000',
      '00000000020000000000000001000000 00000000000000000000000000000000',
    );
    expect(whole.subRegions).toEqual([
      {
        ...{ type: 2, offset: 0, size: 4, fdIndex: 0, flags: 0 },
        ...{ shadowFdIndex: 1, shadowOffset: 0, datamatch: 0n },
      },
    ]);
    const hex = '2a000600200000000100000000000000 40000000000000000000000001000000';
    expect(captured(6, protocol.decodeRegionIoFds, hex)).toEqual({
      ...{ index: 0, count: 1, argsz: 64, truncated: true, subRegions: [] },
    });
  });

  test('REGION_READ and REGION_WRITE of config space', () => {
    const read: Decoder<string> = (bytes, start, end) => {
      protocol.checkRegionReadReply(bytes, start, end, 0, 7, 4);
      return bytes.toString('hex', start + protocol.REGION_ACCESS_SIZE, end);
    };
    const hex = '1a000900240000000100000000000000 00000000000000000700000004000000 addeefbe';
    expect(captured(9, read, hex)).toBe('addeefbe');
    captured(
      10,
      (bytes, start, end) => protocol.checkRegionWriteReply(bytes, start, end, 0x3c, 7, 1),
      '1b000a00200000000100000000000000 3c000000000000000700000001000000',
    );
  });

  test('DMA_UNMAP: the request again, and nothing from a server without DMA', () => {
    const hex = '2c000300280000000100000000000000 18000000000000000000010000000000 0000010000000000';
    expect(captured(3, protocol.decodeDmaUnmapReply, hex)).toEqual({
      flags: 0,
      address: 0x10000n,
      size: 0x10000n,
    });
    expect(captured(3, protocol.decodeDmaUnmapReply, '2c000300100000000100000000000000')).toBeUndefined();
  });

  test('DEVICE_FEATURE: migration and its state', () => {
    const flags = '1e001000200000000100000000000000 10000000010001000500000000000000';
    const state = '25001000200000000100000000000000 10000000020002000300000000000000';
    expect(protocol.migrationFlagNames(captured(16, protocol.decodeMigrationReply, flags))).toEqual([
      ...['STOP_COPY', 'PRE_COPY'],
    ]);
    const decoder: Decoder<number> = (b, s, e) =>
      protocol.decodeMigStateReply(b, s, e, protocol.DEVICE_FEATURE_SET);
    expect(captured(16, decoder, state)).toBe(protocol.MigrationState.STOP_COPY);
  });

  test('DEVICE_FEATURE: a probe, and logging started and stopped', () => {
    const { PROBE, SET } = { PROBE: protocol.DEVICE_FEATURE_PROBE, SET: protocol.DEVICE_FEATURE_SET };
    const probe: Decoder<number> = (b, s, e) =>
      protocol.decodeDeviceFeatureReply(b, s, e, protocol.Feature.DMA_LOGGING_START, PROBE | SET).data.length;
    expect(captured(16, probe, '20001000180000000100000000000000 0800000006000600')).toBe(0);
    const started = captured(
      16,
      protocol.decodeDmaLoggingStartReply,
      '21001000380000000100000000000000 2800000006000200 00100000000000000100000000000000',
      '00000100000000000000010000000000',
    );
    expect(started).toEqual({ pageSize: 4096, ranges: [{ iova: 0x10000n, length: 0x10000n }] });
    captured(
      16,
      protocol.checkDmaLoggingStopReply,
      '23001000280000000100000000000000 1800000007000200 00100000000000000000000000000000',
    );
  });
});

describe('rust-vmm', () => {
  test('VERSION', () => {
    const version = captured(
      1,
      protocol.decodeVersion,
      '01000100700000000100000000000000 00000000',
      '7b226361706162696c6974696573223a7b226d61785f6d73675f666473223a312c226d61785f646174615f786665725f',
      '73697a65223a313034383537362c226d6967726174696f6e223a7b22706773697a65223a343039367d7d7d00',
    );
    expect(version).toMatchObject({
      major: 0,
      minor: 0,
      capabilities: { maxMsgFds: 1, migration: { pgsize: 4096 } },
    });
  });

  test('DMA_UNMAP of all: the request again', () => {
    const hex = '1f000300280000000100000000000000 18000000020000000000000000000000 0000000000000000';
    expect(captured(3, protocol.decodeDmaUnmapReply, hex)).toEqual({ flags: 2, address: 0n, size: 0n });
  });
});
