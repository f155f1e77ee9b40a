import { describe, expect, test } from '@jest/globals';
import type { ProtocolError } from '../../lib/index.js';
import { SLOT_OWNED, SLOT_TAGGED } from '../../lib/commands/command-slots.js';
import type { Doorbell } from '../../lib/nvme/rings.js';
import { QueuePair } from '../../lib/nvme/queue-pair.js';

/** A doorbell that remembers. */
class Bell implements Doorbell {
  readonly kind = 'mapped';
  readonly values: number[] = [];

  write(value: number): void {
    this.values.push(value);
  }
}

/** A pair with its rings in plain memory, and the controller's side of the completion ring. */
class Bench {
  readonly pair: QueuePair;
  readonly sq: Uint32Array;
  readonly cq: Uint32Array;
  readonly tail = new Bell();
  readonly head = new Bell();
  readonly violations: ProtocolError[] = [];
  readonly owned: [slot: number, status: number, result: number][] = [];
  readonly #entries: number;
  #at = 0;
  #phase = 1;

  constructor(entries: number, { slots = entries - 1, tellsHeadAtOnce = false } = {}) {
    this.#entries = entries;
    this.sq = new Uint32Array(entries * 16);
    this.cq = new Uint32Array(entries * 4);
    const { sq, cq } = this;
    this.pair = new QueuePair({ id: 3, slots, sq, cq, tellsHeadAtOnce });
    this.pair.onViolation = (error) => this.violations.push(error);
    this.pair.onCompletion = (slot, status, result) => this.owned.push([slot, status, result]);
    this.pair.open(this.tail, this.head);
  }

  /** The controller completes the command that is in the slot. */
  complete(slot: number, status = 0, result = 0): void {
    this.completeId(this.pair.slots.commandIds[slot] ?? slot, status, result);
  }

  completeId(commandId: number, status = 0, result = 0): void {
    this.cq.set([result, 0, 0, (((status << 1) | this.#phase) << 16) | commandId], this.#at * 4);
    if (++this.#at < this.#entries) return;
    this.#at = 0;
    this.#phase ^= 1;
  }

  submit(tag: number): number {
    const slot = this.pair.slots.claim(SLOT_TAGGED, tag);
    if (slot < 0) return slot;
    const at = this.pair.sq.next();
    for (let i = 0; i < 16; i++) this.pair.sq.entries[at + i] = tag * 16 + i;
    return slot;
  }
}

describe('slots', () => {
  test('each is given out once, until it is reported', () => {
    const { pair } = new Bench(4);
    const slots = [1, 2, 3].map((tag) => pair.slots.claim(SLOT_TAGGED, tag));
    expect(new Set(slots).size).toBe(3);
    expect(pair.slots.claim(SLOT_OWNED, 0)).toBe(-1);
    expect(pair.inFlight).toBe(3);
  });

  test('fewer than entries, where the controller wants that', () => {
    const bench = new Bench(8, { slots: 2 });
    expect([bench.submit(1), bench.submit(2), bench.submit(3)].filter((slot) => slot >= 0)).toHaveLength(2);
  });

  test('none while the pair is closed', () => {
    const { pair } = new Bench(4);
    pair.close();
    expect(pair.slots.claim(SLOT_TAGGED, 1)).toBe(-1);
  });
});

describe('rings', () => {
  test('entries follow each other round the ring, doorbells say where it ends', () => {
    const bench = new Bench(4);
    for (let i = 0; i < 9; i++) {
      const slot = bench.submit(i);
      bench.pair.ring();
      bench.complete(slot);
      expect(bench.pair.poll()).toBe(1);
      expect(bench.pair.completedTags[0]).toBe(i);
    }
    expect(bench.tail.values).toEqual([1, 2, 3, 0, 1, 2, 3, 0, 1]);
  });

  test('one doorbell for many entries, none for none', () => {
    const bench = new Bench(16);
    bench.pair.ring();
    for (let i = 0; i < 10; i++) bench.submit(i);
    bench.pair.ring();
    bench.pair.ring();
    expect(bench.tail.values).toEqual([10]);
  });

  test.each([1, 7, 8, 20])('the controller finds %d commands at a time, once it is told of them', (many) => {
    const entries = 32;
    const bench = new Bench(entries);
    const expected = new Uint32Array(entries * 16);
    let tag = 1;
    for (let round = 0; round < 3 * entries; round += many) {
      const slots: number[] = [];
      const before = bench.sq.slice();
      for (let i = 0; i < many; i++, tag++) {
        const at = ((tag - 1) % entries) * 16;
        for (let word = 0; word < 16; word++) expected[at + word] = tag * 16 + word;
        slots.push(bench.submit(tag));
      }
      expect(bench.sq).toEqual(before);
      bench.pair.ring();
      expect(bench.sq).toEqual(expected);
      for (const slot of slots) bench.complete(slot);
      expect(bench.pair.poll()).toBe(many);
    }
  });

  test('a pair that was closed, or whose memory went, shows and tells nothing more', () => {
    for (const end of [(pair: QueuePair) => pair.close(), (pair: QueuePair) => pair.end()]) {
      const bench = new Bench(16);
      for (let i = 0; i < 10; i++) bench.submit(i + 1);
      end(bench.pair);
      bench.pair.ring();
      expect(bench.tail.values).toEqual([]);
      expect(bench.sq).toEqual(new Uint32Array(16 * 16));
    }
  });

  test('the head is told with the next tail', () => {
    const bench = new Bench(16);
    bench.complete(bench.submit(1));
    bench.pair.poll();
    expect(bench.head.values).toEqual([]);
    bench.submit(2);
    bench.pair.ring();
    expect(bench.head.values).toEqual([1]);
  });

  test('or when half of the ring is consumed', () => {
    const bench = new Bench(8);
    for (let i = 0; i < 4; i++) bench.complete(bench.submit(i));
    bench.pair.poll(3);
    expect(bench.head.values).toEqual([]);
    bench.pair.poll();
    expect(bench.head.values).toEqual([4]);
  });

  test('while the pair is paused, too: the controller keeps the queue', () => {
    const bench = new Bench(4);
    const slots = [1, 2, 3].map((tag) => bench.submit(tag));
    bench.pair.pause();
    expect(bench.tail.values).toEqual([3]);
    for (const slot of slots) bench.complete(slot);
    expect(bench.pair.pollOwned()).toBe(3);
    expect(bench.head.values).toEqual([3]);
    expect(bench.submit(4)).toBe(-1);
    bench.pair.resume();
    expect(bench.pair.poll()).toBe(3);
    expect(bench.submit(4)).toBeGreaterThanOrEqual(0);
  });

  test('or at once', () => {
    const bench = new Bench(8, { tellsHeadAtOnce: true });
    bench.complete(bench.submit(0));
    bench.pair.poll();
    expect(bench.head.values).toEqual([1]);
  });
});

describe('completions', () => {
  test('go to their owners, with status and result', () => {
    const bench = new Bench(8);
    const slot = bench.pair.slots.claim(SLOT_OWNED, 0);
    bench.complete(slot, 0x4281, 77);
    bench.complete(bench.submit(9), 0x7fff);
    expect(bench.pair.poll()).toBe(1);
    expect([bench.pair.completedTags[0], bench.pair.completedStatus[0]]).toEqual([9, 0x7fff]);
    expect(bench.owned).toEqual([[slot, 0x4281, 77]]);
  });

  test('of tagged commands are kept by pollOwned for the next poll, and their slots', () => {
    const bench = new Bench(4);
    for (let i = 0; i < 3; i++) bench.complete(bench.submit(i + 10), i);
    expect(bench.pair.pollOwned()).toBe(3);
    expect(bench.submit(1)).toBe(-1);
    expect(bench.pair.poll(2)).toBe(2);
    expect([...bench.pair.completedTags.subarray(0, 2)]).toEqual([10, 11]);
    expect(bench.pair.poll()).toBe(1);
    expect([bench.pair.completedTags[0], bench.pair.completedStatus[0]]).toEqual([12, 2]);
    expect(bench.pair.inFlight).toBe(0);
  });

  test('with the phase tag of the last round are none', () => {
    const bench = new Bench(2);
    bench.complete(bench.submit(1));
    expect(bench.pair.poll()).toBe(1);
    bench.submit(2);
    expect(bench.pair.poll()).toBe(0);
    expect(bench.violations).toEqual([]);
  });
});

describe('a controller that breaks the rules', () => {
  test.each([
    ['a command that was never sent', 2],
    ['one beyond the slots', 7],
    ['a number that no slot has', 0xffff],
  ])('by completing %s', (_, slot) => {
    const bench = new Bench(8, { slots: 4 });
    bench.submit(1);
    bench.complete(slot === 2 ? bench.pair.slots.count - 2 : slot);
    expect(bench.pair.poll()).toBe(0);
    expect(bench.violations).toHaveLength(1);
    expect(bench.violations[0]).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
    expect(bench.pair.isOpen).toBe(false);
    bench.pair.poll();
    bench.pair.pollOwned();
    expect(bench.violations).toHaveLength(1);
  });

  test('by completing a command again when its slot is in use by another one', () => {
    const bench = new Bench(8, { slots: 1 });
    const slot = bench.submit(1);
    const first = bench.pair.slots.commandIds[slot]!;
    bench.complete(slot);
    bench.pair.poll();
    expect(bench.submit(2)).toBe(slot);
    bench.completeId(first);
    expect(bench.pair.poll()).toBe(0);
    expect(bench.violations[0]?.message).toContain(
      `a completion of command ${first}, which is not in flight`,
    );
    expect(bench.pair.inFlight).toBe(1);
  });

  test.each([1, 2, 3, 255, 256, 1023, 16_383, 16_384, 16_385, 32_767])(
    'by an identifier: with %i slots none is used twice in a row, nor FFFFh',
    (slots) => {
      const bench = new Bench(slots + 1);
      let before = new Set<number>();
      for (let round = 0; round < 3; round++) {
        const ids = Array.from({ length: slots }, (_, i) => bench.pair.slots.commandIds[bench.submit(i)]!);
        bench.pair.abandon();
        bench.pair.poll();
        expect(new Set(ids).size).toBe(slots);
        expect(ids).not.toContain(0xffff);
        expect(ids.some((id) => before.has(id))).toBe(false);
        before = new Set(ids);
      }
    },
  );

  test('by completing twice', () => {
    const bench = new Bench(8);
    const slot = bench.submit(1);
    bench.complete(slot);
    bench.complete(slot);
    expect(bench.pair.pollOwned()).toBe(1);
    expect(bench.violations).toHaveLength(1);
  });
});

describe('the end of all commands', () => {
  test('tells owners their slots, and reports tags as aborted by the host', () => {
    const bench = new Bench(8);
    const owned = bench.pair.slots.claim(SLOT_OWNED, 0);
    bench.submit(5);
    bench.pair.close();
    expect(bench.pair.abandon()).toEqual([owned]);
    expect(bench.pair.poll()).toBe(1);
    expect([bench.pair.completedTags[0], bench.pair.completedStatus[0]]).toEqual([5, 0x371]);
    expect(bench.pair.inFlight).toBe(0);
  });

  test('what was open begins anew after clear', () => {
    const bench = new Bench(2);
    bench.complete(bench.submit(1));
    bench.pair.poll();
    bench.complete(bench.submit(2));
    bench.pair.poll();
    bench.complete(bench.submit(3));
    bench.pair.poll();
    bench.pair.clear();
    expect(bench.pair.poll()).toBe(0);
    expect(bench.violations).toEqual([]);
  });

  test('detached memory is not touched', () => {
    const bench = new Bench(4);
    bench.complete(bench.submit(1));
    bench.pair.end();
    expect(bench.pair.poll()).toBe(0);
    expect(bench.pair.pollOwned()).toBe(0);
    expect(bench.pair.inFlight).toBe(0);
    expect(bench.violations).toEqual([]);
  });
});

describe('overdue commands', () => {
  test('are those out for so many epochs, and each has an identity', () => {
    const bench = new Bench(8);
    const slot = bench.submit(1);
    const command = bench.pair.outstanding(slot);
    bench.pair.slots.epoch += 2;
    bench.submit(2);
    expect(bench.pair.slots.overdue(2)).toEqual([slot]);
    expect(command.isOut()).toBe(true);
    bench.complete(slot);
    bench.pair.poll();
    expect(command.isOut()).toBe(false);
    while (bench.submit(3) !== slot);
    expect(command.isOut()).toBe(false);
    expect(bench.pair.slots.overdue(2)).toEqual([]);
  });
});
