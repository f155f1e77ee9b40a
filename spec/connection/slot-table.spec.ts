/** Deadlines of calls, where giving one up answers others; ids and slots of many calls. */
import { afterEach, expect, test } from '@jest/globals';
import { SlotTable } from '../../lib/connection/slot-table.js';
import type { Slot } from '../../lib/connection/slot.js';

let table: SlotTable;

afterEach(() => table.close());

const turn = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function leave(slot: Slot): void {
  table.unlink(slot);
  table.release(slot);
}

function wait(timeoutMs: number): Slot {
  const slot = table.take(timeoutMs);
  table.watchDeadline(slot);
  return slot;
}

test('a call that is answered while another is given up is not given up too, and those behind it are', async () => {
  const given: Slot[] = [];
  table = new SlotTable((slot) => {
    given.push(slot);
    leave(slot);
    if (slot === first) leave(second);
  });
  const spare = Array.from({ length: 3 }, () => wait(1_000));
  const [first, second, third] = [wait(5), wait(5), wait(5)];
  const last = wait(30);
  for (const slot of spare) leave(slot);
  await turn(100);
  expect(given).toEqual([first, third, last]);
  expect(table.first).toBeUndefined();
});

test('a slot that is used again within that time belongs to its new call', async () => {
  let again: Slot | undefined;
  const given: Slot[] = [];
  table = new SlotTable((slot) => {
    given.push(slot);
    leave(slot);
    if (again !== undefined) return;
    leave(second);
    again = wait(Infinity);
  });
  const first = wait(5);
  const second = wait(5);
  await turn(50);
  expect(given).toEqual([first]);
  expect(again).toBe(second);
  expect(table.first).toBe(again);
});

test('thousands of calls have ids of their own, and find their slots', () => {
  table = new SlotTable(() => undefined);
  const slots = Array.from({ length: 17_000 }, () => {
    const slot = table.take(Infinity);
    table.adopt(slot, table.borrowId());
    return slot;
  });
  expect(new Set(slots.map(({ id }) => id)).size).toBe(slots.length);
  const [kept, others] = [slots.filter((_, i) => i % 3 === 0), slots.filter((_, i) => i % 3 !== 0)];
  for (const slot of others) leave(slot);
  for (let i = 0; i < 70_000; i++) {
    const slot = table.take(Infinity);
    const id = table.borrowId();
    if (table.get(id) !== undefined) throw new Error(`id ${id} is in use`);
    table.adopt(slot, id);
    if (table.get(id) !== slot) throw new Error(`id ${id} does not find its slot`);
    leave(slot);
  }
  expect(kept.every((slot) => table.get(slot.id) === slot)).toBe(true);
});
