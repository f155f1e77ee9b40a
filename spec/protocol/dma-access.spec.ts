import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  checkDmaReadReply,
  checkDmaWriteReply,
  decodeDmaAccess,
  decodeDmaRead,
  decodeDmaWrite,
  DMA_ACCESS_SIZE,
  writeDmaAccess,
} from '../../lib/protocol/dma-access.js';
import {
  dmaReadReply,
  dmaReadRequest,
  dmaWriteReply,
  dmaWriteRequest,
  payloadOf,
  type DmaAccessFields,
} from '../support/wire.js';
import {
  addresses,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
  sizes,
  type Decoder,
} from '../support/wire-placed.js';

const TOP = 2n ** 64n - 1n;

describe('writeDmaAccess', () => {
  test.each<[bigint, number | bigint]>([
    [0x10000n, 4096],
    [0x10000n, 4096n],
    [0n, 0],
    [TOP, 0x1_0000_0001],
    [0x8000_0000_0000_0000n, TOP],
  ])('address %i, %i bytes', (address, count) => {
    const into = Buffer.alloc(20, 0xaa);
    writeDmaAccess(into, 2, address, count);
    expect(into.subarray(2, 18)).toEqual(payloadOf(dmaReadRequest({ address, count })));
    expect([into[1], into[18]]).toEqual([0xaa, 0xaa]);
    expect(DMA_ACCESS_SIZE).toBe(16);
  });

  test('what does not fit 64 bits is a RangeError', () => {
    const rangeError = expect.objectContaining({ name: 'RangeError' });
    expect(() => writeDmaAccess(Buffer.alloc(16), 0, -1n, 0)).toThrow(rangeError);
    expect(() => writeDmaAccess(Buffer.alloc(16), 0, TOP + 1n, 0)).toThrow(rangeError);
    expect(() => writeDmaAccess(Buffer.alloc(16), 0, 0n, TOP + 1n)).toThrow(rangeError);
    expect(() => writeDmaAccess(Buffer.alloc(16), 0, 0n, -1)).toThrow(rangeError);
  });
});

describe('requests from the server', () => {
  const read = payloadOf(dmaReadRequest({ address: TOP, count: 4096 }));
  const write = payloadOf(dmaWriteRequest({ address: 0x10000n, data: [1, 2, 3] }));

  test('DMA_READ is 16 bytes', () => {
    expect(decode(decodeDmaRead, read)).toEqual({ address: TOP, count: 4096 });
    expectEveryCutRefused(decodeDmaRead, read);
    expectRefused(decodeDmaRead, Buffer.concat([read, Buffer.of(0)]), /DMA_READ: the payload is 17 bytes/);
  });

  test('DMA_WRITE has exactly as much data as its count says', () => {
    expect(decode(decodeDmaWrite, write)).toEqual({ address: 0x10000n, count: 3 });
    expectEveryCutRefused(decodeDmaWrite, write);
    expectRefused(decodeDmaWrite, Buffer.concat([write, Buffer.of(0)]), /a write of 3 bytes is exactly 19/);
    for (const count of [0, 2, 4, 0xffffffff, 2n ** 53n - 1n]) {
      const twin = payloadOf(dmaWriteRequest({ data: [1, 2, 3], count }));
      expectRefused(decodeDmaWrite, twin, new RegExp(`DMA_WRITE: .* a write of ${count} bytes`));
    }
  });

  test('decodeDmaAccess looks at the 16 bytes alone', () => {
    expect(decode(decodeDmaAccess, write)).toEqual({ address: 0x10000n, count: 3 });
    expectEveryCutRefused(decodeDmaAccess, read);
  });

  test('a count above 2^53 is refused', () => {
    for (const count of [2n ** 53n, TOP]) {
      expectRefused(decodeDmaRead, payloadOf(dmaReadRequest({ count })), /DMA_READ: count is 0x/);
      expectRefused(decodeDmaWrite, payloadOf(dmaWriteRequest({ count })), /DMA_WRITE: count is 0x/);
    }
  });

  test('a round trip keeps every field', () => {
    fc.assert(
      fc.property(addresses(), sizes(), (address, count) => {
        const bytes = Buffer.alloc(16);
        writeDmaAccess(bytes, 0, address, count);
        expect(decode(decodeDmaRead, bytes)).toEqual({ address, count });
      }),
    );
  });

  test('random bytes are decoded or refused, nothing else', () => {
    expectOnlyProtocolErrors(decodeDmaAccess, read);
    expectOnlyProtocolErrors(decodeDmaRead, read);
    expectOnlyProtocolErrors(decodeDmaWrite, write);
  });
});

describe('replies, as a server reads them', () => {
  const readAsked: Decoder<void> = (b, s, e) => checkDmaReadReply(b, s, e, 0x10000n, 3);
  const writeAsked: Decoder<void> = (b, s, e) => checkDmaWriteReply(b, s, e, 0x10000n, 3);
  const readReply = (fields?: DmaAccessFields): Buffer =>
    payloadOf(dmaReadReply({ address: 0x10000n, data: [1, 2, 3], ...fields }));
  const writeReply = (fields?: DmaAccessFields): Buffer =>
    payloadOf(dmaWriteReply({ address: 0x10000n, count: 3, ...fields }));

  test('what was asked for is accepted', () => {
    decode(readAsked, readReply());
    decode(writeAsked, writeReply());
  });

  test.each<[string, DmaAccessFields, RegExp]>([
    ['another address', { address: 0x10001n }, /address is 0x10001, 0x10000 was asked for/],
    ['another count', { count: 4 }, /count is 4, 3 was asked for/],
    ['a count above 2^53', { count: TOP }, /count is 0xffffffffffffffff/],
  ])('%s is refused', (_name, twin, words) => {
    expectRefused(readAsked, readReply(twin), words);
    expectRefused(writeAsked, writeReply(twin), words);
  });

  test('data of another size is refused', () => {
    expectRefused(
      readAsked,
      readReply({ count: 3, data: [1, 2] }),
      /the data of a read of 3 bytes is exactly 19/,
    );
    expectRefused(readAsked, readReply({ count: 3, data: [1, 2, 3, 4] }), /the payload is 20 bytes/);
    expectRefused(writeAsked, writeReply({ data: [1, 2, 3] }), /DMA_WRITE reply: the payload is 19 bytes/);
  });

  test('a cut reply is refused at every length, the 12 bytes of the older text among them', () => {
    expectEveryCutRefused(readAsked, readReply());
    expectEveryCutRefused(writeAsked, writeReply());
    expectOnlyProtocolErrors(readAsked, readReply());
    expectOnlyProtocolErrors(writeAsked, writeReply());
  });
});
