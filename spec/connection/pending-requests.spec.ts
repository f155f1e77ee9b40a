/** Ids and slots of many calls. */
import { expect, test } from '@jest/globals';
import { SlotTable } from '../../lib/connection/pending-requests.js';
import type { Slot } from '../../lib/connection/pending-request.js';

let table: SlotTable;

function leave(slot: Slot): void {
  table.unlink(slot);
  table.release(slot);
}

test('thousands of calls have ids of their own, and find their slots', () => {
  table = new SlotTable();
  const slots = Array.from({ length: 17_000 }, () => {
    const slot = table.take();
    table.adopt(slot, table.borrowId());
    return slot;
  });
  expect(new Set(slots.map(({ id }) => id)).size).toBe(slots.length);
  const [kept, others] = [slots.filter((_, i) => i % 3 === 0), slots.filter((_, i) => i % 3 !== 0)];
  for (const slot of others) leave(slot);
  for (let i = 0; i < 70_000; i++) {
    const slot = table.take();
    const id = table.borrowId();
    if (table.get(id) !== undefined) throw new Error(`id ${id} is in use`);
    table.adopt(slot, id);
    if (table.get(id) !== slot) throw new Error(`id ${id} does not find its slot`);
    leave(slot);
  }
  expect(kept.every((slot) => table.get(slot.id) === slot)).toBe(true);
});
