import { describe, expect, test } from '@jest/globals';
import Ajv from 'ajv';
import { EduDevice } from '../../lib/emulator/index.js';
import {
  DeviceFaults,
  FAULT_PLAN_SCHEMA,
  FaultPlan,
  checkPlan,
  parseFault,
  type FaultSpec,
  type Selectable,
} from '../../lib/faults/index.js';
import { connect } from '../../lib/index.js';
import { RAM_NAMES } from './fixture.js';

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
  const faults = new FaultPlan({ faults: [fault as FaultSpec], ...(seed !== undefined && { seed }) });
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
    const plan = (faults: object[]) => new FaultPlan({ seed: 5, faults: faults as FaultSpec[] });
    const chance = { fault: 'drop', probability: 0.5 };
    const alone = plan([chance]);
    const together = plan([chance, { fault: 'duplicate', probability: 0.5 }]);
    for (let i = 0; i < 200; i++) {
      const one = alone.firings(message).some(({ number }) => number === 1);
      expect(together.firings(message).some(({ number }) => number === 1)).toBe(one);
    }
  });
});

describe('faults of the device', () => {
  const validate = new Ajv().compile(FAULT_PLAN_SCHEMA);

  test.each<[string, object]>([
    ['a register by name', { fault: 'stuck-bits', register: 'SCRATCH.READY', value: 1 }],
    [
      'a region and an offset',
      { fault: 'stuck-bits', region: 'bar0', offset: 4, mask: '0xff00', value: 256 },
    ],
    ['64 bits', { fault: 'wrong-value', register: 'DMA_SOURCE', value: '0xffffffffffffffff', nth: 2 }],
    ['an interrupt', { fault: 'late-interrupt', irq: 'MSIX'.toLowerCase(), vector: 3, ms: 5, every: 2 }],
    ['DMA', { fault: 'dma-corrupted', address: '0x1000', size: 4096, bits: 3 }],
    ['an event', { fault: 'server-killed', region: 'config', access: 'read', nth: 7 }],
    ['a time', { fault: 'surprise-removal', afterMs: 20 }],
  ])('%s, as the schema says, too', (_, fault) => {
    expect(() => checkPlan({ map: RAM_NAMES, faults: [fault] })).not.toThrow();
    expect(validate({ seed: 1, faults: [fault] })).toBe(true);
  });

  test.each<[object, RegExp]>([
    [
      { fault: 'stuck-bits', register: 'NOTHING', value: 1 },
      /register: the map ram has no register or field/,
    ],
    [{ fault: 'stuck-bits', register: 'ID' }, /stuck-bits needs 'value'$/],
    [
      { fault: 'stuck-bits', register: 'SCRATCH.READY', value: 2 },
      /value is 0x2, more than SCRATCH.READY holds$/,
    ],
    [{ fault: 'stuck-bits', value: 2 }, /stuck-bits needs 'register' or 'region'$/],
    [{ fault: 'stuck-bits', region: 0, value: 2 }, /region needs 'offset'$/],
    [
      { fault: 'stuck-bits', region: 'bar9', offset: 0, value: 2 },
      /region is "bar9"; it is a number or one of/,
    ],
    [{ fault: 'stuck-bits', region: 0, offset: 0, bytes: 9, value: 2 }, /bytes is 9; it is a whole number/],
    [
      { fault: 'stuck-bits', region: 0, offset: 0, bytes: 1, value: 256 },
      /value is 0x100, more than bar0\+0x0/,
    ],
    [{ fault: 'wrong-value', register: 'ID' }, /wrong-value needs 'value' or 'bits'$/],
    [{ fault: 'wrong-value', register: 'ID', value: 1, bits: 2 }, /bits and value exclude each other$/],
    [{ fault: 'wrong-value', register: 'ID', value: '0x10000000000000000' }, /is an integer of 64 bits/],
    [{ fault: 'wrong-value', register: 'ID', value: -1 }, /is an integer of 64 bits/],
    [{ fault: 'wrong-value', register: 'ID', offset: 4, value: 1 }, /offset and bytes go with region$/],
    [
      { fault: 'wrong-value', register: 'ID', region: 0, value: 1 },
      /register and region exclude each other$/,
    ],
    [{ fault: 'lost-write', register: 'SCRATCH.LOW' }, /a write is lost as a whole/],
    [{ fault: 'lost-interrupt', irq: 'nmi' }, /irq is "nmi"; it is a number or one of intx, msi/],
    [{ fault: 'late-interrupt' }, /needs 'ms'$/],
    [{ fault: 'spurious-interrupt', register: 'ID' }, /needs 'irq'$/],
    [{ fault: 'spurious-interrupt', irq: 'msi' }, /needs 'register' or 'region' or 'afterMs'$/],
    [{ fault: 'server-killed', afterMs: 5, nth: 1 }, /afterMs and nth exclude each other$/],
    [{ fault: 'all-ones', register: 'ID', ms: 1, accesses: 1 }, /ms and accesses exclude each other$/],
    [{ fault: 'dma-refused', errno: 'NO' }, /errno is "NO"/],
    [{ fault: 'dma-refused', register: 'ID' }, /register is unknown to dma-refused/],
    [{ fault: 'interrupt-storm', irq: 1, count: 1e7, register: 'ID' }, /count is 10000000/],
  ])('%j is refused', (fault, reason) => {
    expect(() => checkPlan({ map: RAM_NAMES, faults: [fault] })).toThrow(TypeError);
    expect(() => checkPlan({ map: RAM_NAMES, faults: [fault] })).toThrow(reason);
  });

  test('names need a map', () => {
    expect(() => checkPlan([{ fault: 'lost-write', register: 'ID' }])).toThrow(
      'faults[0].register is "ID", and there is no map of names',
    );
    expect(() => checkPlan({ map: {}, faults: [] })).toThrow('map is no RegisterPlacement');
  });

  test('the schema refuses what is unknown', () => {
    expect(validate({ faults: [{ fault: 'dorp' }] })).toBe(false);
    expect(validate({ faults: [{ fault: 'drop', nht: 1 }] })).toBe(false);
    expect(validate([{ fault: 'delay' }])).toBe(false);
    expect(validate({ seed: -1, faults: [] })).toBe(false);
  });

  test('an emulated device has none of messages', async () => {
    const model = new EduDevice();
    const faults = [{ fault: 'drop' } as const];
    await expect(connect({ model, options: { faults } })).rejects.toThrow(
      'faults: drop happens to messages: only a proxy has it',
    );
  });

  test('the report says what was seen and what happened, and is bounded', () => {
    const plan = new FaultPlan([{ fault: 'lost-interrupt', irq: 'msi', every: 2 }]);
    const host = { onServerEnd: () => undefined, onFault: () => undefined };
    const faults = new DeviceFaults(plan, host);
    for (let i = 0; i < 20_010; i++) faults.interrupt(1, 0);
    const { fired: kept, omitted, faults: summary } = plan.report();
    expect([kept.length, omitted]).toEqual([10_000, 5]);
    expect(summary).toEqual([{ number: 1, fault: 'lost-interrupt', seen: 20_010, fired: 10_005 }]);
  });
});
