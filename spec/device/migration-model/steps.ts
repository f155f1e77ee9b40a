/** What can be done in the model of migration, and in which order. */
import fc from 'fast-check';
import { MigrationState } from '../../../lib/index.js';

/** What passes between a step and the next one; a number is milliseconds, `quiet` until nothing is under way. */
export type Pause = 'nothing' | 'microtasks' | 'a turn' | 'quiet' | number;

export type Place = 'source' | 'destination';

/** What becomes of a stream after so many chunks; `hold` goes on with `release`, or when it is broken off. */
export type StreamEnd = 'all' | 'break' | 'destroy' | 'fail' | 'hold';

/** Messages that faults are for. `state` has the probes, too; `dma` the device's own. */
export type Kind =
  'state' | 'report' | 'read' | 'write' | 'unmap' | 'map' | 'reset' | 'region' | 'dma' | 'any';

/** `error` is an answer of a command that was carried out all the same, as `damage` is. */
export type FaultAction =
  | { do: 'drop' | 'error' }
  | { do: 'delay'; ms: number }
  | { do: 'refuse'; errno: number }
  | { do: 'damage'; offset: number }
  | { do: 'disconnect'; bytes: number };

export interface LineFault {
  of: Kind;
  isReply: boolean;
  /** So many of them pass before. */
  skip: number;
  action: FaultAction;
}

export type OtherAct = 'save' | 'save and die' | 'transition' | 'reset';

export type Step = { then: Pause } & (
  | { do: 'open' | 'close' | 'cut' | 'restart'; where: Place }
  | { do: 'reset'; where: Place }
  | {
      do: 'save';
      preCopy: boolean;
      chunkBytes: number;
      end: StreamEnd;
      after: number;
      isAbortable: boolean;
    }
  | {
      do: 'restore';
      stream: 'whole' | 'cut' | 'garbage';
      chunkBytes: number;
      end: StreamEnd;
      after: number;
      isAbortable: boolean;
      run: boolean;
    }
  | { do: 'migrate'; preCopy: boolean; rounds: number; isAbortable: boolean }
  | { do: 'transition'; where: Place; to: MigrationState }
  | { do: 'other'; act: OtherAct; to: MigrationState }
  /** Another client restores so many bytes and dies; once that is over, a whole restore. */
  | { do: 'restore after one that died'; bytes: number }
  /** What was written is asked for, the answer does not arrive as it should, and it is asked for again. */
  | { do: 'report that fails'; block: number; at: number; unplugs: boolean; action: FaultAction }
  | { do: 'release' }
  | { do: 'watch' | 'unwatch' | 'plug' }
  | { do: 'report'; timeoutMs: number | undefined; isAbortable: boolean; abortsAfter: Pause | undefined }
  | { do: 'dma'; block: number; at: number; length: number; isPosted: boolean; isByMessage: boolean }
  | { do: 'unplug'; which: number }
  | { do: 'poke' | 'abort'; which: number }
  | { do: 'fault'; where: Place; fault: LineFault }
);

/** What the world is like. */
export interface Nature {
  reconnects: boolean;
  secureDma: boolean;
  dirtyPages: 'logging' | 'legacy';
  timeoutMs: number;
  maxDataXferSize: number;
}

/** With whom it ends: before the last check the connection is closed, or lost, in the middle of what there is. */
export type End = 'quiet' | 'close' | 'cut';

const { STOP, RUNNING, STOP_COPY, RESUMING, PRE_COPY } = MigrationState;
const which = fc.nat(20);
const where = fc.constantFrom<Place[]>('source', 'source', 'destination');
const chunkBytes = fc.constantFrom(3_000, 16_384, 1 << 20);
const after = fc.nat(6);
const streamEnd = fc.oneof(
  { weight: 4, arbitrary: fc.constant<StreamEnd>('all') },
  { weight: 5, arbitrary: fc.constantFrom<StreamEnd[]>('break', 'destroy', 'fail', 'hold', 'hold') },
);

const pause: fc.Arbitrary<Pause> = fc.oneof(
  { weight: 4, arbitrary: fc.constant<Pause>('nothing') },
  { weight: 1, arbitrary: fc.constant<Pause>('microtasks') },
  { weight: 3, arbitrary: fc.constant<Pause>('a turn') },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 15 }) },
  { weight: 3, arbitrary: fc.constant<Pause>('quiet') },
);

/** Where a reply of each kind can be damaged so that it shows: not its data, and not the size that frames it. */
const OFFSETS: Readonly<Record<Kind, readonly number[]>> = {
  state: [0, 16, 20, 24],
  report: [0, 16, 20, 24, 32, 40],
  // A smaller size is a short read, which libvfio-user pads: it does not show.
  read: [0, 23],
  write: [0],
  unmap: [0, 24, 32],
  map: [0],
  reset: [0],
  region: [0],
  dma: [0],
  any: [0],
};
/** A refusal to probe means that there is nothing, so only reports are refused for good. */
const ERRNOS: Partial<Record<Kind, readonly number[]>> = { report: [5, 22], unmap: [5, 16], dma: [5] };

function actionOf(of: Kind, isReply: boolean): fc.Arbitrary<FaultAction> {
  const both: fc.WeightedArbitrary<FaultAction>[] = [
    { weight: 4, arbitrary: fc.constant({ do: 'drop' }) },
    {
      weight: 2,
      arbitrary: fc.record({ do: fc.constant('delay' as const), ms: fc.constantFrom(5, 40, 300) }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('disconnect' as const), bytes: fc.constantFrom(0, 9, 20) }),
    },
  ];
  const offset = fc.constantFrom(...OFFSETS[of]);
  const damage = fc.record({ do: fc.constant('damage' as const), offset });
  const errno = fc.constantFrom(...(ERRNOS[of] ?? [5, 16]));
  const refuse = fc.record({ do: fc.constant('refuse' as const), errno });
  if (!isReply) return fc.oneof(...both, { weight: 4, arbitrary: refuse });
  return fc.oneof(
    ...both,
    { weight: 4, arbitrary: damage },
    { weight: 2, arbitrary: fc.constant({ do: 'error' }) },
  );
}

const kind = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom<Kind[]>('state', 'report', 'report', 'read', 'write') },
  { weight: 2, arbitrary: fc.constantFrom<Kind[]>('unmap', 'map', 'reset', 'region', 'dma', 'any') },
);
const fault: fc.Arbitrary<LineFault> = fc.tuple(kind, fc.boolean()).chain(([of, isReply]) =>
  fc.record({
    of: fc.constant(of),
    isReply: fc.constant(isReply),
    skip: fc.oneof(fc.constant(0), fc.nat(5)),
    action: actionOf(of, isReply),
  }),
);

/** The length of a state, a part of one, and nearly all of one. */
const diedAfter = fc.constantFrom(4, 3_000, 20_000, 36_000);

const transfers: fc.WeightedArbitrary<object>[] = [
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('save'),
      preCopy: fc.boolean(),
      chunkBytes,
      end: streamEnd,
      after,
      isAbortable: fc.boolean(),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('restore'),
      stream: fc.constantFrom('whole', 'whole', 'whole', 'cut', 'garbage'),
      chunkBytes,
      end: streamEnd,
      after,
      isAbortable: fc.boolean(),
      run: fc.boolean(),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('migrate'),
      preCopy: fc.boolean(),
      rounds: fc.nat(3),
      isAbortable: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('transition'),
      where,
      to: fc.constantFrom(RUNNING, RUNNING, RUNNING, STOP, STOP_COPY, RESUMING, PRE_COPY),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('restore after one that died'), bytes: diedAfter }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('other'),
      act: fc.constantFrom('save', 'save and die', 'transition', 'reset'),
      to: fc.constantFrom(RUNNING, STOP, PRE_COPY),
    }),
  },
];
const memory: fc.WeightedArbitrary<object>[] = [
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('report that fails'),
      block: fc.nat(5),
      at: fc.nat(64 * 4096),
      unplugs: fc.boolean(),
      action: actionOf('report', true),
    }),
  },
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant('dma'),
      block: fc.nat(5),
      at: fc.nat(64 * 4096),
      length: fc.oneof(fc.integer({ min: 1, max: 9_000 }), fc.integer({ min: 1, max: 100_000 })),
      isPosted: fc.boolean(),
      isByMessage: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: fc.constant({ do: 'watch' }) },
  { weight: 1, arbitrary: fc.constantFrom({ do: 'unwatch' }, { do: 'release' }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('report'),
      timeoutMs: fc.constantFrom(undefined, undefined, undefined, 60),
      isAbortable: fc.boolean(),
      abortsAfter: fc.constantFrom<(Pause | undefined)[]>(
        undefined,
        undefined,
        undefined,
        'nothing',
        'microtasks',
        'a turn',
        1,
      ),
    }),
  },
  { weight: 2, arbitrary: fc.constant({ do: 'plug' }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom('unplug', 'poke', 'poke', 'abort'), which }) },
];
const trouble: fc.WeightedArbitrary<object>[] = [
  { weight: 9, arbitrary: fc.record({ do: fc.constant('fault'), where, fault }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom('cut', 'cut', 'restart', 'close', 'reset'), where }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('open'), where }) },
];

export const anyStep = fc
  .tuple(fc.oneof(...transfers, ...memory, ...trouble), pause)
  .map(([step, then]) => ({ ...step, then }) as Step);

export const anyNature: fc.Arbitrary<Nature> = fc.record({
  reconnects: fc.boolean(),
  secureDma: fc.oneof(
    { weight: 5, arbitrary: fc.constant(false) },
    { weight: 1, arbitrary: fc.constant(true) },
  ),
  dirtyPages: fc.constantFrom('logging', 'logging', 'legacy'),
  timeoutMs: fc.constantFrom(150, 250),
  // With 4 KiB a bitmap of more than 128 MiB would not fit, and a state takes many messages.
  maxDataXferSize: fc.constantFrom(4_096, 32_768, 1 << 20),
});

export const anyEnd = fc.oneof(
  { weight: 3, arbitrary: fc.constant<End>('quiet') },
  { weight: 2, arbitrary: fc.constantFrom<End[]>('close', 'cut') },
);
