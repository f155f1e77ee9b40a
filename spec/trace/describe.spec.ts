import { describe as suite, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Command, commandName } from '../../lib/protocol/constants.js';
import { describe } from '../../lib/trace/index.js';
import * as w from '../support/wire.js';
import { SAMPLES } from './samples.js';

const EVERYTHING = { previewBytes: Infinity };

suite('a message is described', () => {
  test.each(SAMPLES.map((sample, i) => [`${i} ${sample.command} ${sample.kind}`, sample] as const))(
    '%s',
    (_name, { bytes, direction, fds, command, kind, fields, data, errno, flags = [] }) => {
      expect(describe(bytes, { ...EVERYTHING, direction, fds })).toEqual({
        command,
        kind,
        id: bytes.readUInt16LE(0),
        size: bytes.length,
        flags,
        ...(errno !== undefined && { errno }),
        fields,
        ...(data !== undefined && { data: { length: data.length / 2, preview: data } }),
        fds,
        direction,
      });
    },
  );

  test('in both directions for every command that there is', () => {
    const seen = new Set(SAMPLES.map(({ command, kind }) => `${command} ${kind}`));
    for (const command of Object.values(Command)) {
      for (const kind of ['request', 'reply']) expect(seen).toContain(`${commandName(command)} ${kind}`);
    }
  });

  test('with as much of its data as is wanted', () => {
    const bytes = w.regionWriteRequest({ data: Buffer.alloc(100, 0xab) });
    expect(describe(bytes).data).toEqual({ length: 100, preview: 'ab'.repeat(32) });
    expect(describe(bytes, { previewBytes: 3 }).data).toEqual({ length: 100, preview: 'ababab' });
    expect(describe(bytes, { previewBytes: 0 }).data).toEqual({ length: 100, preview: '' });
  });

  test('whatever memory it lies in', () => {
    const memory = Buffer.alloc(100, 0xee);
    const bytes = w.regionReadRequest({ offset: 8, region: 1, count: 4 });
    memory.set(bytes, 31);
    const view = new Uint8Array(memory.buffer, memory.byteOffset + 31, bytes.length);
    expect(describe(view).fields).toEqual({ offset: 8, region: 1, count: 4 });
  });

  test('with flags that have no names as numbers', () => {
    expect(describe(w.deviceGetInfoReply({ flags: 0x8000_0001 })).fields).toMatchObject({
      flags: ['RESET', '0x80000000'],
    });
    expect(describe(w.deviceResetRequest({ flags: 0x40 })).flags).toEqual(['0x40']);
    const migration = w.deviceFeatureReply({ flags: 0x10001, data: w.wire().u64(0x1_0000_0009n) });
    const flags = ['STOP_COPY', '0x8', '0x100000000'];
    expect(describe(migration).fields).toMatchObject({ migration: { flags } });
  });

  test('with an errno that has no name as a number', () => {
    expect(describe(w.errorReply(9, 9999)).errno).toBe('errno 9999');
  });
});

suite('what is wrong with a message is said', () => {
  const area = w.sparseMmap([[0, 4096]]);
  const broken: [name: string, bytes: Buffer, reason: RegExp][] = [
    ['no whole header', Buffer.alloc(15), /15 bytes, a header is exactly 16/],
    ['nothing at all', Buffer.alloc(0), /0 bytes/],
    ['a type that does not exist', w.deviceResetRequest({ flags: 2 }), /type is 2/],
    ['a size less than the header', w.deviceResetRequest({ size: 15 }), /size is 15/],
    ['a size beyond the message', w.deviceResetRequest({ size: 17 }), /only 16 of 17 bytes are here/],
    ['a size before its end', w.regionReadRequest({}, { size: 31 }), /says 31 bytes, these are 32/],
    ['VERSION cut', w.request(1, Buffer.alloc(3)), /version structure/],
    ['VERSION without JSON', w.versionReply({ data: '{' }), /not JSON/],
    ['DMA_MAP of other size', w.request(2, Buffer.alloc(31)), /exactly 32/],
    ['DMA_MAP with unknown flags', w.dmaMapRequest({ flags: 0x10 }), /unknown bits/],
    ['DMA_UNMAP with a short argsz', w.dmaUnmapRequest({ argsz: 23 }), /argsz/],
    ['DMA_UNMAP reply of other size', w.reply(3, Buffer.alloc(25)), /DMA_UNMAP reply/],
    ['GET_INFO cut', w.request(4, Buffer.alloc(15)), /device info structure/],
    ['GET_INFO reply with many regions', w.deviceGetInfoReply({ numRegions: 5000 }), /num_regions is 5000/],
    ['REGION_INFO cut', w.request(5, Buffer.alloc(31)), /region info structure/],
    [
      'REGION_INFO with a loop',
      w.regionInfoReply({ size: 4096, capabilities: w.sparseMmap([[0, 4096]], 32) }),
      /comes back/,
    ],
    ['REGION_INFO with an area outside', w.regionInfoReply({ size: 16, capabilities: area }), /outside/],
    ['IO_FDS of no stride', w.regionIoFdsReply({ argsz: 40, count: 3 }), /no whole entry/],
    ['IRQ_INFO cut', w.reply(7, Buffer.alloc(15)), /IRQ info structure/],
    ['SET_IRQS with two DATA bits', w.setIrqsRequest({ flags: 0x23, count: 1 }), /exactly one DATA/],
    ['REGION_READ with data', w.regionReadRequest({ data: [1] }), /exactly 16/],
    ['REGION_READ reply of less data', w.regionReadReply({ count: 5, data: [1] }), /1 bytes of data, 5/],
    ['REGION_WRITE of more data', w.regionWriteRequest({ count: 1, data: [1, 2] }), /a write of 1 bytes/],
    ['REGION_WRITE reply with data', w.regionWriteReply({ data: [1] }), /REGION_WRITE reply/],
    ['DMA_READ cut', w.request(11, Buffer.alloc(15)), /DMA access structure/],
    ['DMA_READ reply of less data', w.dmaReadReply({ count: 5, data: [1] }), /DMA_READ reply/],
    ['DMA_WRITE of a huge count', w.dmaWriteRequest({ count: 1n << 60n, data: [1] }), /2\^53-1/],
    ['DMA_WRITE reply with data', w.dmaWriteReply({ data: [1] }), /DMA_WRITE reply/],
    ['DIRTY_PAGES with two flags', w.dirtyPagesRequest({ flags: 3 }), /exactly one/],
    ['WRITE_MULTI with less', w.regionWriteMultiRequest([], 1), /1 writes/],
    ['WRITE_MULTI of 9 bytes', multiOf(9), /1 to 8/],
    ['FEATURE cut', w.request(16, Buffer.alloc(7)), /device feature structure/],
    ['FEATURE without operation', w.deviceFeatureRequest({ flags: 1 }), /no operation/],
    ['a state that is none', w.deviceFeatureRequest({ flags: 0x20002, data: w.wire().u64(8) }), /state 8/],
    ['a report of no pages', w.deviceFeatureReply({ flags: 0x10008, data: [1] }), /report structure/],
    ['MIG_DATA_READ with data', w.migDataReadRequest({ data: [1] }), /exactly 8/],
    ['MIG_DATA_READ reply of less data', w.migDataReadReply({ size: 2, data: [1] }), /size of 2/],
    ['MIG_DATA_WRITE of less data', w.migDataWriteRequest({ size: 2, data: [1] }), /size of 2/],
  ];

  function multiOf(count: number): Buffer {
    return w.regionWriteMultiRequest([{ offset: 0, region: 0, data: [1], count }]);
  }

  test.each(broken)('%s', (_name, bytes, reason) => {
    const { malformed, fields, data } = describe(bytes, EVERYTHING);
    expect(malformed).toMatch(reason);
    expect(fields).toEqual({});
    const payload = bytes.subarray(16).toString('hex');
    expect(data?.preview ?? '').toBe(payload);
  });

  test('and its header is shown all the same', () => {
    expect(describe(w.regionReadRequest({ data: [1] }, { id: 77 }))).toMatchObject({
      command: 'REGION_READ',
      kind: 'request',
      id: 77,
    });
  });

  test('and nothing is ever thrown', () => {
    const sound = SAMPLES.map(({ bytes }) => bytes);
    const changes = fc.array(fc.tuple(fc.nat(), fc.constantFrom(0, 1, 4, 0x7f, 0x80, 0xff)), {
      maxLength: 5,
    });
    fc.assert(
      fc.property(
        fc.constantFrom(...sound),
        changes,
        fc.option(fc.nat()),
        fc.boolean(),
        (seed, damage, cut, fix) => {
          const bytes = Buffer.from(seed.subarray(0, cut === null ? undefined : cut % (seed.length + 1)));
          for (const [at, value] of damage) if (bytes.length > 0) bytes[at % bytes.length] = value;
          // Mostly the payload is to be reached.
          if (fix && bytes.length >= 16) bytes.writeUInt32LE(bytes.length, 4);
          const { fields, malformed } = describe(bytes);
          expect(malformed === undefined || Object.keys(fields).length === 0).toBe(true);
        },
      ),
      { numRuns: 5_000 },
    );
  });
});
