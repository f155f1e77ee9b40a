/** Ids of many requests. */
import { expect, test } from '@jest/globals';
import { PendingRequest } from '../../lib/connection/pending-request.js';
import { PendingRequests } from '../../lib/connection/pending-requests.js';

let requests: PendingRequests;

function nothing(): void {}

function add(): PendingRequest {
  const call = { command: 9, isBlocking: false, reply: nothing, resolve: nothing, reject: nothing };
  const request = new PendingRequest({ ...call, onAbandoned: undefined }, 1_000, false);
  requests.add(request);
  return request;
}

test('thousands of requests have ids of their own, and are found by them', () => {
  requests = new PendingRequests();
  const many = Array.from({ length: 17_000 }, () => {
    const request = add();
    requests.give(request, requests.borrowId());
    return request;
  });
  expect(new Set(many.map(({ id }) => id)).size).toBe(many.length);
  const [kept, others] = [many.filter((_, i) => i % 3 === 0), many.filter((_, i) => i % 3 !== 0)];
  for (const request of others) requests.remove(request);
  for (let i = 0; i < 70_000; i++) {
    const request = add();
    const id = requests.borrowId();
    if (requests.get(id) !== undefined) throw new Error(`id ${id} is in use`);
    requests.give(request, id);
    if (requests.get(id) !== request) throw new Error(`id ${id} does not find its request`);
    requests.remove(request);
  }
  expect(kept.every((request) => requests.get(request.id) === request)).toBe(true);
});

test('the id of a request that was given up is taken until its late reply has come', () => {
  requests = new PendingRequests();
  for (const count of [1, 20]) {
    const many = Array.from({ length: count }, () => {
      const request = add();
      requests.give(request, requests.borrowId());
      return request;
    });
    for (const request of many) requests.bury(request);
    expect(requests.first).toBeUndefined();
    const tombstones = many.map(({ id }) => requests.get(id)!);
    expect(tombstones.map(({ id }) => id)).toEqual(many.map(({ id }) => id));
    for (let i = 0; i < 0x8000; i++) {
      const id = requests.borrowId();
      if (many.some((request) => request.id === id)) throw new Error(`id ${id} is given out again`);
    }
    for (const tombstone of tombstones) requests.free(tombstone);
    expect(many.map(({ id }) => requests.get(id))).toEqual(many.map(() => undefined));
  }
});
