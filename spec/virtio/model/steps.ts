/** What can happen in the model: what users do, what goes wrong, and how it ends. */
import fc from 'fast-check';

export type Fault =
  'lose' | 'hold' | 'late' | 'status' | 'twice' | 'stranger' | 'silent' | 'scribble' | 'jump';

export interface Nature {
  readonly ring: 'split' | 'packed';
  readonly completion: 'poll' | 'interrupt';
  readonly indirect: boolean;
  readonly eventIndex: boolean;
  readonly mapNotifications: boolean;
  readonly entries: number;
  readonly retries: number;
  /** Faults that break the rules are what they are; else they are others: a device that lied is out of the game. */
  readonly lies: boolean;
}

export interface IoStep {
  readonly kind: 'call' | 'submit';
  readonly what: 'read' | 'write' | 'write zeroes' | 'flush';
  readonly lba: number;
  readonly blocks: number;
  readonly timeoutMs: number | undefined;
  readonly isAbortable: boolean;
}

export type Step =
  | IoStep
  | { readonly kind: 'ring' | 'poll' | 'reset' | 'need reset' | 'abort' }
  | { readonly kind: 'fault'; readonly fault: Fault; readonly after: number }
  | { readonly kind: 'pause'; readonly ms: number };

export type End = 'close driver' | 'close device' | 'cut';

export const anyNature: fc.Arbitrary<Nature> = fc.record({
  ring: fc.constantFrom('split', 'packed'),
  completion: fc.constantFrom('poll', 'interrupt'),
  indirect: fc.boolean(),
  eventIndex: fc.boolean(),
  mapNotifications: fc.boolean(),
  entries: fc.constantFrom(4, 8, 64),
  retries: fc.constantFrom(0, 1),
  lies: fc.constantFrom(false, false, true),
});

const anyIo: fc.Arbitrary<IoStep> = fc.record({
  kind: fc.constantFrom('call', 'call', 'call', 'submit'),
  what: fc.constantFrom('read', 'write', 'write', 'write zeroes', 'flush'),
  lba: fc.nat(30),
  blocks: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 40 })),
  timeoutMs: fc.constantFrom(undefined, undefined, undefined, 40),
  isAbortable: fc.boolean(),
});

export const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { arbitrary: anyIo, weight: 12 },
  { arbitrary: fc.record({ kind: fc.constantFrom('ring', 'poll', 'ring', 'poll') }), weight: 4 },
  { arbitrary: fc.record({ kind: fc.constantFrom('reset', 'need reset', 'abort') }), weight: 2 },
  {
    arbitrary: fc.record({
      kind: fc.constant('fault' as const),
      fault: fc.constantFrom<Fault>(
        'lose',
        'hold',
        'late',
        'status',
        'scribble',
        'twice',
        'stranger',
        'silent',
        'jump',
      ),
      after: fc.nat(2),
    }),
    weight: 3,
  },
  {
    arbitrary: fc.record({ kind: fc.constant('pause' as const), ms: fc.constantFrom(0, 1, 5, 60) }),
    weight: 3,
  },
);

export const anyEnd: fc.Arbitrary<End> = fc.constantFrom('close driver', 'close device', 'cut');
