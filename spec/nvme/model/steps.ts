/** What can be done in the model, and in which order. */
import fc from 'fast-check';

/** What passes between a step and the next one; a number is milliseconds. */
export type Pause = 'nothing' | 'microtasks' | 'a turn' | number;

export type IoKind =
  | 'read'
  | 'read into'
  | 'write'
  | 'compare'
  | 'write zeroes'
  | 'deallocate'
  | 'flush'
  | 'smart log'
  | 'refresh';

export interface IoStep {
  do: 'call';
  what: IoKind;
  queue: number;
  lba: number;
  blocks: number;
  /** Data in memory that the device reaches. */
  isDirect: boolean;
  /** A deadline of its own, milliseconds. */
  timeoutMs: number | undefined;
  /** It has a signal. */
  isAbortable: boolean;
}

export interface SubmitStep {
  do: 'submit';
  what: 'read' | 'write' | 'compare' | 'write zeroes' | 'flush';
  queue: number;
  lba: number;
  blocks: number;
}

/**
 * What happens to a command: as NvmeDevice.intercept has it, and completions that are wrong: `stranger` has another's
 * identifier, `twice` comes again, `bad status` says that what was done was not.
 */
export type Fault =
  'lose' | 'hold' | 'stranger' | 'twice' | 'bad status' | { status: number } | { delayMs: number };

/** Another disk, in what it differs from the first; `larger` is one without an identifier, which may not have grown. */
export type Exchange =
  'same' | 'grown' | 'serial' | 'model' | 'subsystem' | 'identifier' | 'format' | 'smaller' | 'larger';

/** Buffers of the submit/poll calls. */
export interface Buffers {
  pages: number;
  pageOffset: number;
}

export type Step = { then: Pause } & (
  | IoStep
  | SubmitStep
  | { do: 'open' }
  | {
      do: 'create queue';
      entries: number;
      completion: 'poll' | 'interrupt';
      buffers: Buffers | undefined;
      timeoutMs: number | undefined;
    }
  | { do: 'ring' | 'poll' | 'close queue'; queue: number }
  | { do: 'fault'; of: 'io' | 'admin'; fault: Fault; times: number }
  | { do: 'slow disk'; delayMs: number; times: number }
  | { do: 'abort' | 'transfer array' | 'free buffer'; which: number }
  | { do: 'reset' | 'close controller' | 'close device' | 'unmap all' | 'stall' | 'fail' | 'settle' }
  /** The namespace of the controller, as it runs. */
  | { do: 'grow' | 'replace' }
  | { do: 'stick'; forMs: number }
  /** The connection ends, and after that time a server is there again. */
  | { do: 'exchange'; to: Exchange; afterMs: number }
);

/** What the world is like. */
export interface Nature {
  reconnects: boolean;
  blockSize: number;
  /** `large`: more than 65,536 blocks, and commands that may have as many; `vast`: more than 2^32 blocks. */
  size: 'small' | 'large' | 'vast';
  /** What a disk is known by. */
  identifier: 'eui64' | 'nguid' | 'none';
  /** MDTS. */
  mdts: number;
  sgls: boolean;
  shadowDoorbells: boolean;
  mapDoorbells: boolean;
  timeoutMs: number;
  retries: number;
}

export type End = 'quiet' | 'close controller' | 'close device' | 'cut' | 'unmap all';

const queue = fc.nat(3);
const which = fc.nat(20);
/** A disk that is smaller has the rest of it. */
const lba = fc.oneof(
  { weight: 3, arbitrary: fc.nat(8) },
  { weight: 3, arbitrary: fc.nat(1 << 20) },
  { weight: 1, arbitrary: fc.nat(12).map((at) => 2 ** 32 - 4 + at) },
);
const blocks = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 4 }) },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 64 }) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 1 << 20 }) },
);
const delayMs = fc.constantFrom(1, 5, 30, 400);
const pageOffset = fc.constantFrom(0, 0, 512, 4092);
/** Long enough for each way to name data, as far as a command may have as much. */
const buffers = fc.oneof(
  { weight: 2, arbitrary: fc.constant(undefined) },
  {
    weight: 3,
    arbitrary: fc.record({ pages: fc.oneof(fc.constant(2), fc.integer({ min: 1, max: 9 })), pageOffset }),
  },
  { weight: 1, arbitrary: fc.record({ pages: fc.integer({ min: 512, max: 1100 }), pageOffset }) },
);

const pause: fc.Arbitrary<Pause> = fc.oneof(
  { weight: 4, arbitrary: fc.constant<Pause>('nothing') },
  { weight: 1, arbitrary: fc.constant<Pause>('microtasks') },
  { weight: 3, arbitrary: fc.constant<Pause>('a turn') },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 12 }) },
  { weight: 1, arbitrary: fc.integer({ min: 12, max: 250 }) },
);

const io = fc.record({
  do: fc.constant('call' as const),
  what: fc.oneof(
    {
      weight: 8,
      arbitrary: fc.constantFrom<IoKind[]>('read', 'read into', 'write', 'write'),
    },
    { weight: 3, arbitrary: fc.constantFrom<IoKind[]>('compare', 'write zeroes', 'deallocate', 'flush') },
    { weight: 1, arbitrary: fc.constantFrom<IoKind[]>('smart log', 'refresh') },
  ),
  queue,
  lba,
  blocks,
  isDirect: fc.boolean(),
  timeoutMs: fc.oneof(
    { weight: 4, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.constantFrom(1, 10, 60, 3_000) },
  ),
  isAbortable: fc.boolean(),
});

const submission = fc.record({
  do: fc.constant('submit' as const),
  what: fc.constantFrom('read' as const, 'write', 'write', 'compare', 'write zeroes', 'flush'),
  queue,
  lba,
  blocks,
});

const ioFault: fc.Arbitrary<Fault> = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom<Fault[]>('lose', 'hold') },
  { weight: 3, arbitrary: fc.record({ delayMs }) },
  { weight: 1, arbitrary: fc.record({ status: fc.constantFrom(0x281, 0x280, 0x4006) }) },
  { weight: 1, arbitrary: fc.constantFrom<Fault[]>('bad status', 'twice', 'stranger') },
);
const adminFault: fc.Arbitrary<Fault> = fc.oneof(
  { weight: 2, arbitrary: fc.constantFrom<Fault[]>('lose', 'hold') },
  { weight: 3, arbitrary: fc.record({ delayMs: fc.constantFrom(1, 5, 30, 120, 250) }) },
  { weight: 1, arbitrary: fc.constant<Fault>('stranger') },
);
const times = fc.integer({ min: 1, max: 4 });

const bare: fc.Arbitrary<object> = fc.oneof(
  { weight: 20, arbitrary: io },
  { weight: 6, arbitrary: submission },
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom('ring', 'poll'), queue }) },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant('fault'), of: fc.constant('io'), fault: ioFault, times }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('fault'), of: fc.constant('admin'), fault: adminFault, times }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('slow disk'), delayMs, times }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('create queue'),
      entries: fc.oneof(fc.integer({ min: 2, max: 9 }), fc.constant(32)),
      completion: fc.constantFrom('poll', 'interrupt'),
      buffers,
      timeoutMs: fc.constantFrom(undefined, undefined, 120),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('close queue'), queue }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom('abort', 'abort', 'transfer array', 'free buffer'), which }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('reset', 'reset', 'grow', 'replace', 'stall', 'fail', 'settle'),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('exchange'),
      to: fc.constantFrom(
        ...([
          'same',
          'same',
          'serial',
          'model',
          'subsystem',
          'identifier',
          'format',
          'smaller',
          'grown',
          'larger',
        ] as const),
      ),
      afterMs: fc.constantFrom(0, 0, 5, 60),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constantFrom('close controller', 'close device', 'unmap all') }),
  },
  { weight: 2, arbitrary: fc.constant({ do: 'open' }) },
);
const rare: fc.Arbitrary<object> = fc.record({ do: fc.constant('stick'), forMs: fc.constantFrom(50, 700) });

export const anyStep = fc
  .tuple(fc.oneof({ weight: 80, arbitrary: bare }, { weight: 1, arbitrary: rare }), pause)
  .map(([step, then]) => ({ ...step, then }) as Step);

export const anyNature: fc.Arbitrary<Nature> = fc
  .record({
    reconnects: fc.boolean(),
    blockSize: fc.constantFrom(512, 4096),
    size: fc.oneof(
      { weight: 6, arbitrary: fc.constant<Nature['size']>('small') },
      { weight: 1, arbitrary: fc.constant<Nature['size']>('large') },
      { weight: 1, arbitrary: fc.constant<Nature['size']>('vast') },
    ),
    identifier: fc.constantFrom('eui64', 'nguid', 'none'),
    mdts: fc.constantFrom(1, 2, 5, 0),
    sgls: fc.boolean(),
    shadowDoorbells: fc.boolean(),
    mapDoorbells: fc.boolean(),
    timeoutMs: fc.constantFrom(100, 150, 300),
    retries: fc.constantFrom(0, 1, 1, 3),
  })
  // A command has more than 65,536 blocks only where they are small, and transfers have no limit.
  .map((nature) => (nature.size === 'large' ? { ...nature, mdts: 0, blockSize: 512 } : nature));

export const anyEnd = fc.oneof(
  { weight: 3, arbitrary: fc.constant<End>('quiet') },
  { weight: 2, arbitrary: fc.constantFrom<End[]>('close controller', 'close device', 'cut', 'unmap all') },
);
