import { describe, expect, test } from '@jest/globals';
import { checkPlan, parseFault } from '../../lib/proxy/fault-spec.js';
import { FaultPlan, type Selectable } from '../../lib/proxy/fault-plan.js';

const message: Selectable = {
  direction: 'to-server',
  socket: 'main',
  command: 9,
  isReply: false,
  size: 32,
  fds: 0,
};

/** Which of so many messages like `message` meet the only fault, from 1. */
function fired(fault: object, count: number, seed?: number, change: Partial<Selectable> = {}): number[] {
  const plan = checkPlan({ faults: [fault], ...(seed !== undefined && { seed }) });
  const faults = new FaultPlan(plan.faults, plan.seed);
  return Array.from({ length: count }, (_, i) => i + 1).filter(
    () => faults.firings({ ...message, ...change }).length > 0,
  );
}

describe('what a fault may say', () => {
  test('names become numbers, and a bare list is a plan', () => {
    expect(checkPlan([{ fault: 'errno', errno: 'EIO', command: 'region_read' }])).toEqual({
      seed: 1,
      faults: [{ fault: 'errno', errno: 5, command: 9, kind: 'request' }],
    });
    expect(checkPlan({ seed: 7, faults: [] })).toEqual({ seed: 7, faults: [] });
  });

  test.each<[unknown, RegExp]>([
    [null, /^the faults is null, not an object$/],
    [{ seed: 1 }, /^faults is a list$/],
    [{ faults: [], speed: 1 }, /^'speed' is unknown here/],
    [{ faults: [], seed: -1 }, /^seed is -1; it is a whole number from 0 to 4294967295$/],
    [['drop'], /^faults\[0\] is "drop", not an object$/],
    [[{}], /^faults\[0\]\.fault is missing; it is one of delay, drop, split/],
    [[{ fault: 'toString' }], /^faults\[0\]\.fault is "toString"; it is one of/],
    [[{ fault: 'drop' }, { fault: 'delay' }], /^faults\[1\]: delay needs 'ms'$/],
    [[{ fault: 'delay', ms: 0 }], /^faults\[0\]\.ms is 0; it is a whole number from 1 to 3600000$/],
    [[{ fault: 'drop', ms: 5 }], /^faults\[0\]\.ms is unknown to drop; it knows direction/],
    [[{ fault: 'drop', direction: 'up' }], /^faults\[0\]\.direction is "up"; it is to-server or to-client$/],
    [
      [{ fault: 'drop', command: 'READ' }],
      /^faults\[0\]\.command is "READ"; it is a number or one of VERSION/,
    ],
    [[{ fault: 'drop', command: 'constructor' }], /command is "constructor"/],
    [[{ fault: 'drop', nth: 1.5 }], /nth is 1\.5; it is a whole number/],
    [[{ fault: 'drop', nth: 1, every: 2 }], /^faults\[0\]: nth and every exclude each other$/],
    [[{ fault: 'drop', probability: 2 }], /probability is 2; it is a number from 0 to 1$/],
    [[{ fault: 'split', at: [8, 8] }], /at does not ascend$/],
    [[{ fault: 'split', at: [] }], /at has 0 offsets/],
    [[{ fault: 'split', at: [1], pieces: 2 }], /pieces and at exclude each other$/],
    [[{ fault: 'corrupt' }], /^faults\[0\]: corrupt needs 'offset' or 'bits'$/],
    [[{ fault: 'corrupt', bits: 1, xor: 1 }], /bits and xor exclude each other$/],
    [[{ fault: 'errno', errno: 'EWHAT' }], /errno is "EWHAT"; it is an errno's name, as EIO, or its number$/],
    [[{ fault: 'errno', errno: 4096 }], /errno is 4096/],
    [[{ fault: 'errno', errno: 5, kind: 'reply' }], /only requests can be answered with an errno$/],
    [[{ fault: 'withhold-fd', fd: -1 }], /fd is -1/],
    [Array.from({ length: 1001 }, () => ({ fault: 'drop' })), /^1001 faults; at most 1000$/],
  ])('%j is refused', (plan, reason) => {
    expect(() => checkPlan(plan)).toThrow(TypeError);
    expect(() => checkPlan(plan)).toThrow(reason);
  });

  test('faults as people type them', () => {
    expect(parseFault('drop')).toEqual({ fault: 'drop' });
    expect(parseFault('delay:ms=50,command=REGION_READ,probability=.5')).toEqual({
      fault: 'delay',
      ms: 50,
      command: 'REGION_READ',
      probability: 0.5,
    });
    expect(parseFault('split:at=8+0x10,ms=1')).toEqual({ fault: 'split', at: [8, 16], ms: 1 });
    expect(() => parseFault('drop:nth')).toThrow("'nth' in 'drop:nth': name=value is wanted");
    expect(() => parseFault('drop:nth=1,nth=2')).toThrow('nth is there twice');
    expect(() => parseFault('drop:fault=delay')).toThrow('fault is there twice');
  });
});

describe('which messages a fault is for', () => {
  test('the n-th, each n-th, at most so many', () => {
    expect(fired({ fault: 'drop', nth: 3 }, 9)).toEqual([3]);
    expect(fired({ fault: 'drop', every: 4 }, 9)).toEqual([4, 8]);
    expect(fired({ fault: 'drop', times: 2 }, 9)).toEqual([1, 2]);
    expect(fired({ fault: 'drop', every: 2, times: 1 }, 9)).toEqual([2]);
  });

  test.each([
    [{ direction: 'to-client' }, { direction: 'to-client' as const }],
    [{ socket: 'twin' }, { socket: 'twin' as const }],
    [{ command: 'REGION_WRITE' }, { command: 10 }],
    [{ kind: 'reply' }, { isReply: true }],
  ])('only those of %j', (selection, change) => {
    expect(fired({ fault: 'drop', ...selection }, 2)).toEqual([]);
    expect(fired({ fault: 'drop', ...selection }, 2, 1, change)).toEqual([1, 2]);
  });

  test('only those that it can happen to', () => {
    expect(fired({ fault: 'withhold-fd' }, 1)).toEqual([]);
    expect(fired({ fault: 'withhold-fd' }, 1, 1, { fds: 1 })).toEqual([1]);
    expect(fired({ fault: 'withhold-fd', fd: 1 }, 1, 1, { fds: 1 })).toEqual([]);
    expect(fired({ fault: 'corrupt', offset: 32 }, 1)).toEqual([]);
    expect(fired({ fault: 'corrupt', offset: 31 }, 1)).toEqual([1]);
  });

  test('chance comes again with its seed, and about as often as was asked', () => {
    const some = fired({ fault: 'drop', probability: 0.25 }, 4000, 42);
    expect(fired({ fault: 'drop', probability: 0.25 }, 4000, 42)).toEqual(some);
    expect(fired({ fault: 'drop', probability: 0.25 }, 4000, 43)).not.toEqual(some);
    expect(some.length).toBeGreaterThan(800);
    expect(some.length).toBeLessThan(1200);
    expect(fired({ fault: 'drop', probability: 0 }, 100)).toEqual([]);
    expect(fired({ fault: 'drop', probability: 1 }, 100)).toHaveLength(100);
  });

  test('a fault more does not change when the others happen', () => {
    const plan = (faults: object[]) => new FaultPlan(checkPlan({ seed: 5, faults }).faults, 5);
    const chance = { fault: 'drop', probability: 0.5 };
    const alone = plan([chance]);
    const together = plan([chance, { fault: 'duplicate', probability: 0.5 }]);
    for (let i = 0; i < 200; i++) {
      const one = alone.firings(message).some(({ number }) => number === 1);
      expect(together.firings(message).some(({ number }) => number === 1)).toBe(one);
    }
  });
});
