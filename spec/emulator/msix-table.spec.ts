/** MSI-X towards hosts that program the table themselves, and towards those that send SET_IRQS and nothing else. */
import { beforeEach, describe, expect, test } from '@jest/globals';
import { msixCapability, PciConfigSpace, PciDevice, type ClientContext } from '../../lib/emulator/index.js';
import { MsixTable } from '../../lib/emulator/msix-table.js';
import { request, setIrqsRequest } from '../support/wire.js';
import { connected, eventFd } from './fixture.js';
import type { RawClient } from './raw-client.js';

const DEVICE_RESET = 13;
const MSIX = 2;
const EVENTFD_TRIGGER = 0x24;
const CONFIG = 7;
/** Message Control of the first capability. */
const CONTROL = 0x42;
const ENABLE = 0x8000;
const FUNCTION_MASK = 0x4000;
const TABLE = 0x100;
const PENDING = 0x800;
const VECTORS = 66;

/** A write to BAR0 interrupts whoever made it: by the vector that was written. */
class Interrupter extends PciDevice {
  readonly #msix: MsixTable;

  constructor() {
    const table = { bir: 2, offset: TABLE };
    const config = new PciConfigSpace({
      vendorId: 1,
      deviceId: 1,
      bars: [
        { index: 0, size: 16 },
        { index: 2, size: 4096 },
      ],
      capabilities: [msixCapability(VECTORS, table, { bir: 2, offset: PENDING })],
    });
    super(config, [{ index: MSIX, count: VECTORS }]);
    this.#msix = new MsixTable(config, { vectors: VECTORS, table: TABLE, pending: PENDING });
    const write = (_offset: number, data: Buffer, client: ClientContext) =>
      this.#msix.interrupt(client, data.readUInt32LE());
    this.addRegion({ index: 0, size: 16, handler: { read: (_, count) => Buffer.alloc(count), write } });
    this.addRegion({ index: 2, size: 4096, handler: this.#msix });
  }

  override detach(client: ClientContext): void {
    super.detach(client);
    this.#msix.detach(client);
  }

  override reset(): void {
    this.#msix.reset();
    void super.reset();
  }

  protected override configWritten(): void {
    super.configWritten();
    this.#msix.update();
  }
}

let device: Interrupter;
let client: RawClient;
/** The client's eventfds of vectors 0 to 2. */
let events: { fd: number; count(): number }[];

beforeEach(async () => {
  device = new Interrupter();
  ({ client, events } = await host(device));
});

async function host(of: Interrupter): Promise<{ client: RawClient; events: typeof events }> {
  const raw = await connected(of);
  const made = [eventFd(), eventFd(), eventFd()];
  const arm = setIrqsRequest({ index: MSIX, count: made.length, flags: EVENTFD_TRIGGER });
  await raw.answer(
    arm,
    made.map(({ fd }) => fd),
  );
  return { client: raw, events: made };
}

const counts = () => events.map((event) => event.count());
const interrupt = (vector: number) => client.write32(0, 0, vector);
const setMask = (vector: number, mask: 0 | 1) => client.write32(2, TABLE + vector * 16 + 12, mask);
const setControl = (bits: number) =>
  client.writeRegion(CONFIG, CONTROL, Buffer.from([bits & 0xff, bits >> 8]));
const pending = () => client.readRegion(2, PENDING, 16);

/** The 16 bytes of pending bits with these set. */
function bits(...vectors: number[]): Buffer {
  const bytes = Buffer.alloc(16);
  for (const vector of vectors) bytes[vector >> 3]! |= 1 << (vector & 7);
  return bytes;
}

describe('a host that sends SET_IRQS and nothing else', () => {
  test('is signalled', async () => {
    await interrupt(0);
    await interrupt(2);
    await interrupt(2);
    expect(counts()).toEqual([1, 0, 2]);
    expect(await pending()).toEqual(bits());
  });

  test('that enables MSI-X in config space, and masks the function there while it sets up its own table', async () => {
    await setControl(ENABLE | FUNCTION_MASK);
    await interrupt(1);
    await setControl(ENABLE);
    await interrupt(1);
    expect(counts()).toEqual([0, 2, 0]);
  });

  test('is not signalled without an eventfd', async () => {
    await client.answer(setIrqsRequest({ index: MSIX, start: 1, count: 1, flags: EVENTFD_TRIGGER }));
    await interrupt(1);
    expect(counts()).toEqual([0, 0, 0]);
  });

  test('and reads the table is still one', async () => {
    expect(await client.readRegion(2, TABLE, 32)).toEqual(
      Buffer.from('00000000000000000000000001000000'.repeat(2), 'hex'),
    );
    await client.writeRegion(2, PENDING, Buffer.alloc(16, 0xff));
    await client.writeRegion(2, 0, Buffer.alloc(TABLE, 0xff));
    expect(await client.readRegion(2, 0, TABLE)).toEqual(Buffer.alloc(TABLE));
    await interrupt(0);
    expect(counts()).toEqual([1, 0, 0]);
  });

  test('is not held back by what another host wrote', async () => {
    const other = await host(device);
    await setMask(0, 1);
    await setMask(0, 0);
    await setControl(ENABLE);
    await setMask(0, 1);
    await interrupt(0);
    expect(counts()).toEqual([0, 0, 0]);
    await other.client.write32(0, 0, 0);
    expect(other.events[0]!.count()).toBe(1);
    expect(await other.client.readRegion(2, PENDING, 16)).toEqual(bits());
  });
});

describe('a host that writes the table', () => {
  test('is signalled where it has enabled the function and unmasked the vector', async () => {
    await setMask(0, 0);
    await interrupt(0);
    expect(counts()).toEqual([0, 0, 0]);
    await setControl(ENABLE);
    await interrupt(0);
    await interrupt(1);
    expect(counts()).toEqual([1, 0, 0]);
  });

  test('is signalled once when it unmasks a vector that is pending', async () => {
    await setControl(ENABLE);
    await setMask(1, 1);
    await setMask(0, 0);
    await interrupt(1);
    await interrupt(1);
    await interrupt(65);
    expect(await pending()).toEqual(bits(1, 65));
    expect(counts()).toEqual([0, 0, 0]);
    await setMask(1, 0);
    expect(await pending()).toEqual(bits(65));
    expect(counts()).toEqual([0, 1, 0]);
    await setMask(1, 1);
    await setMask(1, 0);
    expect(counts()).toEqual([0, 0, 0]);
  });

  test('is signalled when it unmasks the function', async () => {
    await setMask(0, 0);
    await setMask(2, 0);
    await setControl(ENABLE | FUNCTION_MASK);
    for (const vector of [0, 1, 2]) await interrupt(vector);
    expect(await pending()).toEqual(bits(0, 1, 2));
    await setControl(ENABLE);
    expect(counts()).toEqual([1, 0, 1]);
    expect(await pending()).toEqual(bits(1));
  });

  test('hears nothing of what happened while the function was disabled', async () => {
    await setControl(ENABLE);
    await setMask(0, 1);
    await interrupt(0);
    await setControl(0);
    await interrupt(0);
    expect(await pending()).toEqual(bits());
    await setControl(ENABLE);
    await setMask(0, 0);
    expect(counts()).toEqual([0, 0, 0]);
  });

  test('finds it masked after a reset, and nothing pending', async () => {
    await setControl(ENABLE);
    await setMask(0, 0);
    await interrupt(1);
    await client.answer(request(DEVICE_RESET, Buffer.alloc(0)));
    expect(await pending()).toEqual(bits());
    await setControl(ENABLE);
    await interrupt(0);
    expect(counts()).toEqual([0, 0, 0]);
    expect(await pending()).toEqual(bits(0));
  });

  test('reads back what it wrote, and nothing beside the table', async () => {
    await client.writeRegion(2, TABLE - 8, Buffer.alloc(16, 0xa5));
    const around = await client.readRegion(2, TABLE - 8, 24);
    expect(around.toString('hex')).toBe(
      `${'00'.repeat(8)}${'a5'.repeat(8)}${'00'.repeat(4)}01000000`.slice(0, 48),
    );
    await client.writeRegion(2, TABLE + VECTORS * 16 - 8, Buffer.alloc(16, 0xa5));
    expect((await client.readRegion(2, TABLE + VECTORS * 16 - 8, 16)).toString('hex')).toBe(
      `${'a5'.repeat(8)}${'00'.repeat(8)}`,
    );
  });
});
