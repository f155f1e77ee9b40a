import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Fifo } from '../lib/fifo.js';

test('is an array, of which the first is taken', () => {
  const step = fc.oneof(
    fc.record({ do: fc.constantFrom('push', 'pushFirst'), value: fc.nat() }),
    fc.record({ do: fc.constantFrom('shift', 'drain'), value: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const queue = new Fifo<number>();
      let model: number[] = [];
      for (const { do: verb, value } of steps) {
        if (verb === 'push') {
          queue.push(value);
          model.push(value);
        } else if (verb === 'pushFirst') {
          queue.pushFirst(value);
          model.unshift(value);
        } else if (verb === 'shift') expect(queue.shift()).toBe(model.shift());
        else {
          expect(queue.drain()).toEqual(model);
          model = [];
        }
        expect([queue.length, queue.peek()]).toEqual([model.length, model[0]]);
      }
    }),
  );
});
