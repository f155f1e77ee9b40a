/** SET_IRQS: arming, masking, triggering, and what must be refused. */
import { constants } from 'node:os';
import { describe, expect, test } from '@jest/globals';
import {
  RamDevice,
  RamRegister,
  type ClientContext,
  type DeviceModel,
  type EmulatorOptions,
} from '../../lib/emulator/index.js';
import { openFds } from '../support/fds.js';
import { request, setIrqsRequest } from '../support/wire.js';
import { cleanup, connected, eventFd, memory } from './fixture.js';
import type { RawClient } from './raw-client.js';

const { EINVAL } = constants.errno;

const NONE = 0x1;
const BOOL = 0x2;
const EVENTFD = 0x4;
const MASK = 0x8;
const UNMASK = 0x10;
const TRIGGER = 0x20;
const INTX = 0;
const MSIX = 2;
const ERR = 3;

async function client(vectors = 4, options?: EmulatorOptions): Promise<RawClient> {
  const device = new RamDevice({ vectors });
  cleanup(() => device.close());
  return connected(device, options);
}

/** Writes the device's trigger register. */
function fire(raw: RawClient, index: number, sub = 0): Promise<void> {
  return raw.write32(0, RamRegister.TRIGGER, (index << 16) | sub);
}

/** A device whose interrupts a spec triggers itself. */
function lines(flags: number): { device: DeviceModel; context: () => ClientContext } {
  let attached: ClientContext | undefined;
  const device: DeviceModel = {
    regions: [],
    irqs: [{ index: 0, count: 1, flags }],
    attach: (context) => (attached = context),
  };
  return { device, context: () => attached! };
}

describe('eventfds', () => {
  test('are signalled one by one', async () => {
    const raw = await client();
    const events = [eventFd(), eventFd(), eventFd()];
    const arm = setIrqsRequest({ index: MSIX, start: 1, count: 3, flags: EVENTFD | TRIGGER });
    expect(
      await raw.answer(
        arm,
        events.map(({ fd }) => fd),
      ),
    ).toHaveLength(0);
    await fire(raw, MSIX, 0);
    await fire(raw, MSIX, 2);
    await fire(raw, MSIX, 3);
    await fire(raw, MSIX, 3);
    expect(events.map((event) => event.count())).toEqual([0, 1, 2]);
  });

  test('of one index say nothing of another', async () => {
    const raw = await client();
    const intx = eventFd();
    const msix = eventFd();
    await raw.answer(setIrqsRequest({ index: INTX, count: 1, flags: EVENTFD | TRIGGER }), [intx.fd]);
    await raw.answer(setIrqsRequest({ index: MSIX, count: 1, flags: EVENTFD | TRIGGER }), [msix.fd]);
    await fire(raw, INTX);
    expect([intx.count(), msix.count()]).toEqual([1, 0]);
  });

  test('are replaced by new ones, and de-assigned by none', async () => {
    const raw = await client();
    const first = eventFd();
    const second = eventFd();
    const arm = setIrqsRequest({ index: MSIX, count: 1, flags: EVENTFD | TRIGGER });
    await raw.answer(arm, [first.fd]);
    await raw.answer(arm, [second.fd]);
    await fire(raw, MSIX);
    expect([first.count(), second.count()]).toEqual([0, 1]);
    await raw.answer(arm);
    await fire(raw, MSIX);
    expect(second.count()).toBe(0);
  });

  test('in the middle of an index can be de-assigned alone', async () => {
    const raw = await client();
    const events = [eventFd(), eventFd(), eventFd()];
    const arm = setIrqsRequest({ index: MSIX, count: 3, flags: EVENTFD | TRIGGER });
    await raw.answer(
      arm,
      events.map(({ fd }) => fd),
    );
    await raw.answer(setIrqsRequest({ index: MSIX, start: 1, count: 1, flags: EVENTFD | TRIGGER }));
    for (const sub of [0, 1, 2]) await fire(raw, MSIX, sub);
    expect(events.map((event) => event.count())).toEqual([1, 0, 1]);
  });

  test('are all de-assigned when the index is disabled', async () => {
    const raw = await client();
    const event = eventFd();
    const before = openFds();
    await raw.answer(setIrqsRequest({ index: MSIX, count: 1, flags: EVENTFD | TRIGGER }), [event.fd]);
    expect(openFds()).toBe(before + 1);
    await raw.answer(setIrqsRequest({ index: MSIX, flags: NONE | TRIGGER }));
    expect(openFds()).toBe(before);
    await fire(raw, MSIX);
    expect(event.count()).toBe(0);
  });

  test('of as many vectors as one message has fds for', async () => {
    const raw = await client(64, { maxMsgFds: 64 });
    const event = eventFd();
    const arm = setIrqsRequest({ index: MSIX, count: 64, flags: EVENTFD | TRIGGER });
    await raw.answer(arm, new Array<number>(64).fill(event.fd));
    await fire(raw, MSIX, 63);
    expect(event.count()).toBe(1);
  });
});

describe('the client', () => {
  test('triggers interrupts itself', async () => {
    const raw = await client();
    const events = [eventFd(), eventFd(), eventFd()];
    const arm = setIrqsRequest({ index: MSIX, count: 3, flags: EVENTFD | TRIGGER });
    await raw.answer(
      arm,
      events.map(({ fd }) => fd),
    );
    await raw.answer(setIrqsRequest({ index: MSIX, count: 3, flags: BOOL | TRIGGER, data: [1, 0, 0xff] }));
    await raw.answer(setIrqsRequest({ index: MSIX, start: 2, count: 1, flags: NONE | TRIGGER }));
    expect(events.map((event) => event.count())).toEqual([1, 0, 2]);
  });

  test('masks an interrupt, which comes once when it is unmasked', async () => {
    const raw = await client();
    const event = eventFd();
    await raw.answer(setIrqsRequest({ index: INTX, count: 1, flags: EVENTFD | TRIGGER }), [event.fd]);
    await raw.answer(setIrqsRequest({ index: INTX, count: 1, flags: NONE | MASK }));
    await fire(raw, INTX);
    await fire(raw, INTX);
    expect(event.count()).toBe(0);
    await raw.answer(setIrqsRequest({ index: INTX, count: 1, flags: BOOL | UNMASK, data: [0] }));
    expect(event.count()).toBe(0);
    await raw.answer(setIrqsRequest({ index: INTX, count: 1, flags: BOOL | UNMASK, data: [1] }));
    expect(event.count()).toBe(1);
    await fire(raw, INTX);
    expect(event.count()).toBe(1);
  });

  test('is told when an interrupt is masked and unmasked', async () => {
    const raw = await client();
    const masked = eventFd();
    const unmasked = eventFd();
    await raw.answer(setIrqsRequest({ index: INTX, count: 1, flags: EVENTFD | MASK }), [masked.fd]);
    await raw.answer(setIrqsRequest({ index: INTX, count: 1, flags: EVENTFD | UNMASK }), [unmasked.fd]);
    await raw.answer(setIrqsRequest({ index: INTX, count: 1, flags: NONE | MASK }));
    await raw.answer(setIrqsRequest({ index: INTX, count: 1, flags: NONE | MASK }));
    expect([masked.count(), unmasked.count()]).toEqual([1, 0]);
    await raw.answer(setIrqsRequest({ index: INTX, count: 1, flags: NONE | UNMASK }));
    expect([masked.count(), unmasked.count()]).toEqual([0, 1]);
  });
});

describe('the device', () => {
  test('sees whether an interrupt is armed and masked', async () => {
    const { device, context } = lines(3);
    const raw = await connected(device);
    const line = context().irq(0);
    expect([line.isArmed, line.isMasked, line.trigger()]).toEqual([false, false, false]);
    const event = eventFd();
    await raw.answer(setIrqsRequest({ count: 1, flags: EVENTFD | TRIGGER }), [event.fd]);
    expect([line.isArmed, line.isMasked, line.trigger()]).toEqual([true, false, true]);
    await raw.answer(setIrqsRequest({ count: 1, flags: NONE | MASK }));
    expect([line.isArmed, line.isMasked, line.trigger()]).toEqual([true, true, false]);
    expect(event.count()).toBe(1);
  });

  test('masks an AUTOMASKED interrupt with each signal', async () => {
    const { device, context } = lines(7);
    const raw = await connected(device);
    const event = eventFd();
    await raw.answer(setIrqsRequest({ count: 1, flags: EVENTFD | TRIGGER }), [event.fd]);
    expect([context().irq(0).trigger(), context().irq(0).trigger()]).toEqual([true, false]);
    expect(event.count()).toBe(1);
    await raw.answer(setIrqsRequest({ count: 1, flags: NONE | UNMASK }));
    expect([event.count(), context().irq(0).isMasked]).toEqual([1, true]);
  });

  // An exception there would end the process of a device that interrupts from a timer.
  test('is told when it raises interrupts that it does not have', async () => {
    const { device, context } = lines(1);
    const errors: unknown[] = [];
    await connected(device, { onError: (error) => errors.push(error) });
    for (const line of [context().irq(0, 1), context().irq(2)]) {
      expect([line.isArmed, line.isMasked, line.trigger()]).toEqual([false, false, false]);
    }
    expect(errors).toEqual([expect.any(RangeError), expect.any(RangeError)]);
  });
});

describe('SET_IRQS refuses', () => {
  test.each([
    ['an index that does not exist', { index: 5, count: 1, flags: NONE | TRIGGER }],
    ['an index without interrupts', { index: ERR, count: 1, flags: NONE | TRIGGER }],
    ['to disable an index without interrupts', { index: ERR, flags: NONE | TRIGGER }],
    ['a range past the end', { index: MSIX, start: 3, count: 2, flags: NONE | TRIGGER }],
    ['a start past the end', { index: MSIX, start: 4, count: 1, flags: NONE | TRIGGER }],
    ['a range past 32 bits', { index: MSIX, start: 0xffffffff, count: 1, flags: NONE | TRIGGER }],
    ['two kinds of data', { index: MSIX, count: 1, flags: NONE | EVENTFD | TRIGGER }],
    ['no data flag', { index: MSIX, count: 1, flags: TRIGGER }],
    ['two actions', { index: MSIX, count: 1, flags: NONE | MASK | UNMASK }],
    ['no action', { index: MSIX, count: 1, flags: NONE }],
    ['an unknown flag', { index: MSIX, count: 1, flags: NONE | TRIGGER | 0x40 }],
    ['fewer booleans than interrupts', { index: MSIX, count: 2, flags: BOOL | TRIGGER, data: [1] }],
    ['data without DATA_BOOL', { index: MSIX, count: 1, flags: NONE | TRIGGER, data: [1] }],
    ['a count of 0 to mask', { index: MSIX, flags: NONE | MASK }],
    ['an argsz of less than the structure', { argsz: 19, index: MSIX, count: 1, flags: NONE | TRIGGER }],
  ])('%s', async (_what, bad) => {
    const raw = await client();
    expect(await raw.refusal(setIrqsRequest(bad))).toBe(EINVAL);
  });

  test('a cut payload', async () => {
    expect(await (await client()).refusal(request(8, Buffer.alloc(19)))).toBe(EINVAL);
  });

  test('to mask, or to take eventfds for, an index that is not made for it', async () => {
    const eventOnly = await connected(lines(1).device);
    expect(await eventOnly.refusal(setIrqsRequest({ count: 1, flags: NONE | MASK }))).toBe(EINVAL);
    const noEvents = await connected(lines(2).device);
    const event = eventFd();
    expect(await noEvents.refusal(setIrqsRequest({ count: 1, flags: EVENTFD | TRIGGER }), [event.fd])).toBe(
      EINVAL,
    );
  });

  test('fds that do not fit, and closes them', async () => {
    const raw = await client();
    const event = eventFd();
    const noEvent = memory(4096);
    const before = openFds();
    const arm = (count: number, flags: number) => setIrqsRequest({ index: MSIX, count, flags });
    expect(await raw.refusal(arm(2, EVENTFD | TRIGGER), [event.fd])).toBe(EINVAL);
    expect(await raw.refusal(arm(1, EVENTFD | TRIGGER), [event.fd, event.fd])).toBe(EINVAL);
    expect(await raw.refusal(arm(1, NONE | TRIGGER), [event.fd])).toBe(EINVAL);
    expect(await raw.refusal(arm(2, EVENTFD | TRIGGER), [event.fd, noEvent])).toBe(EINVAL);
    expect(openFds()).toBe(before);
    await fire(raw, MSIX);
    expect(event.count()).toBe(0);
  });
});
