/** What is fetched from memory before it is asked for: of whoever was asked next the last time. */
import { afterEach, expect, test } from '@jest/globals';
import { resign, succeed, type Successor } from '../../lib/connection/succession.js';

const all: Successor[] = [];

function newSuccessor(): Successor {
  const one: Successor = { previous: undefined, next: undefined, touch: () => 0 };
  all.push(one);
  return one;
}

afterEach(() => {
  for (const one of all.splice(0)) resign(one);
});

test('who was asked after one comes next', () => {
  const [a, b, c] = [newSuccessor(), newSuccessor(), newSuccessor()];
  for (const one of [a, b, c, a, b, c]) succeed(one);
  expect([a.next, b.next, c.next]).toEqual([b, c, a]);
  expect([a.previous, b.previous, c.previous]).toEqual([c, a, b]);
});

test('who is asked alone has nobody next', () => {
  const one = newSuccessor();
  for (let i = 0; i < 3; i++) succeed(one);
  expect(one.next).toBeUndefined();
});

test('whoever follows now has taken the place of whoever followed before, and follows nobody else', () => {
  const [a, b, c] = [newSuccessor(), newSuccessor(), newSuccessor()];
  for (const one of [a, b, c, a, c]) succeed(one);
  expect(a.next).toBe(c);
  expect(b.previous).toBeUndefined();
  expect(b.next).toBeUndefined();
  expect(c.previous).toBe(a);
});

test('one that is closed is held by no other', () => {
  const [a, b, c] = [newSuccessor(), newSuccessor(), newSuccessor()];
  for (const one of [a, b, c, a, b]) succeed(one);
  resign(b);
  expect([a.next, c.previous, b.previous, b.next]).toEqual([undefined, undefined, undefined, undefined]);
  // And it is not the latest any more, whom the next would follow.
  succeed(c);
  expect(b.next).toBeUndefined();
  expect(c.previous).toBeUndefined();
});
