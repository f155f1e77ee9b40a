/** Servers by what they do: each sign is something that this implementation does and that was seen, or was not. */
import type { ServerFacts } from './server-facts.js';
import type { RuleResult, Recognised } from './report.js';

interface Sign {
  readonly text: string;
  readonly weight: number;
  /** Undefined where it could not be looked for. */
  readonly seen: (knowledge: Knowledge) => boolean | undefined;
}

interface Knowledge {
  facts: ServerFacts;
  verdictOf: (rule: string) => string | undefined;
  traitOf: (id: string) => string | undefined;
}

interface Implementation {
  readonly name: string;
  readonly signs: readonly Sign[];
}

/** Less is a guess. */
const LEAST_CONFIDENCE = 0.6;

const migrationPgsize: Sign = {
  text: 'names a migration page size that was not proposed',
  weight: 3,
  seen: ({ facts }) => 'migration' in facts.capabilities,
};
const errorsCarryData: Sign = {
  text: 'sends data after the header of an error',
  weight: 2,
  seen: broken('error.bare-header'),
};
const splitHeaderIsLost: Sign = {
  text: 'reads a header in one piece only',
  weight: 2,
  seen: broken('stream.split-header'),
};

const IMPLEMENTATIONS: readonly Implementation[] = [
  {
    name: 'SPDK',
    signs: [
      { text: 'is 4e58:0001', weight: 5, seen: isDevice(0x4e58, 0x0001) },
      migrationPgsize,
      { text: 'answers minor 1 or 2', weight: 1, seen: minorIs(1, 2) },
      splitHeaderIsLost,
      { text: 'has nine regions', weight: 1, seen: hasRegions(9) },
    ],
  },
  {
    name: 'QEMU',
    signs: [
      { text: 'answers minor 1', weight: 2, seen: minorIs(1) },
      { text: 'has ten regions, the old migration region among them', weight: 4, seen: hasRegions(10) },
      splitHeaderIsLost,
      { text: 'refuses every access of a BAR that is not assigned', weight: 2, seen: refusesBars },
      { text: 'does not know DEVICE_FEATURE', weight: 1, seen: unsupported('DEVICE_FEATURE') },
    ],
  },
  {
    name: 'libvfio-user',
    signs: [
      { text: 'answers minor 2 to a proposal of 2', weight: 1, seen: minorIs(2) },
      migrationPgsize,
      splitHeaderIsLost,
      errorsCarryData,
      { text: 'has nine regions and five interrupt types', weight: 1, seen: hasRegions(9) },
      {
        text: 'does not know REGION_WRITE_MULTI',
        weight: 1,
        seen: unsupported('REGION_WRITE_MULTI'),
      },
      {
        text: 'does not offer write_multiple',
        weight: 1,
        seen: ({ facts }) => !('write_multiple' in facts.capabilities),
      },
    ],
  },
  {
    name: 'rust-vmm vfio_user',
    signs: [
      { text: 'answers minor 0', weight: 3, seen: minorIs(0) },
      { text: 'has nine regions and five interrupt types', weight: 1, seen: hasRegions(9) },
      {
        text: 'leaves the body of an unknown command in the stream',
        weight: 3,
        seen: broken('command.unknown-body'),
      },
      { text: 'does not survive a VERSION without data', weight: 2, seen: broken('robust.no-version-data') },
    ],
  },
  {
    name: 'vfio-user emulate',
    signs: [
      {
        text: 'answers ENOSYS to an unknown command',
        weight: 3,
        seen: ({ traitOf }) => is(traitOf('errno.unknown-command'), 'ENOSYS'),
      },
      { text: 'sends bare errors', weight: 1, seen: kept('error.bare-header') },
      { text: 'takes messages that arrive in pieces', weight: 2, seen: kept('stream.split-header') },
      { text: 'answers minor 2 to a proposal of 2', weight: 1, seen: minorIs(2) },
      { text: 'survives a header with a size of 4 GiB', weight: 1, seen: kept('robust.oversized') },
    ],
  },
];

/** The implementation whose signs were seen most, `unknown` where none is likely. */
export function recognise(
  facts: ServerFacts,
  rules: readonly RuleResult[],
  traits: readonly { id: string; value: string }[],
): Recognised {
  const knowledge: Knowledge = {
    facts,
    verdictOf: (id) => rules.find((one) => one.id === id)?.verdict,
    traitOf: (id) => traits.find((one) => one.id === id)?.value,
  };
  if (facts.version === undefined) return { name: 'unknown', confidence: 0, signs: [], missing: [] };
  const candidates = IMPLEMENTATIONS.map((one) => weigh(one, knowledge));
  // The first of equals: what is named first is the more special one.
  const best = candidates.reduce((most, one) => (one.confidence > most.confidence ? one : most));
  return best.confidence >= LEAST_CONFIDENCE ? best : { ...best, name: 'unknown' };
}

function weigh({ name, signs }: Implementation, knowledge: Knowledge): Recognised {
  let found = 0;
  let looked = 0;
  const seen: string[] = [];
  const missing: string[] = [];
  for (const sign of signs) {
    const isSeen = sign.seen(knowledge);
    if (isSeen === undefined) continue;
    looked += sign.weight;
    if (isSeen) found += sign.weight;
    (isSeen ? seen : missing).push(sign.text);
  }
  const confidence = looked === 0 ? 0 : Math.round((100 * found) / looked) / 100;
  return { name, confidence, signs: seen, missing };
}

function broken(rule: string): Sign['seen'] {
  return ({ verdictOf }) => decided(verdictOf(rule), 'broken');
}

function kept(rule: string): Sign['seen'] {
  return ({ verdictOf }) => decided(verdictOf(rule), 'kept');
}

/** Only a verdict is a sign. */
function decided(verdict: string | undefined, wanted: string): boolean | undefined {
  return verdict === 'kept' || verdict === 'broken' ? verdict === wanted : undefined;
}

function is(value: string | undefined, wanted: string): boolean | undefined {
  return value === undefined ? undefined : value === wanted;
}

function minorIs(...minors: readonly number[]): Sign['seen'] {
  return ({ facts: { version } }) => version !== undefined && minors.includes(version.minor);
}

function hasRegions(count: number): Sign['seen'] {
  return ({ facts }) => (facts.info === undefined ? undefined : facts.info.numRegions === count);
}

function isDevice(vendorId: number, deviceId: number): Sign['seen'] {
  return ({ facts }) =>
    facts.ids === undefined ? undefined : facts.ids.vendorId === vendorId && facts.ids.deviceId === deviceId;
}

function unsupported(command: string): Sign['seen'] {
  return ({ facts, traitOf }) =>
    traitOf('errno.unknown-command') === undefined ? undefined : facts.unsupported.has(command);
}

function refusesBars({ facts, traitOf }: Knowledge): boolean | undefined {
  const tried = facts.regions.filter(
    (region) => region !== undefined && region.info.index < 6 && region.info.size > 0,
  );
  if (tried.length === 0) return undefined;
  const values = tried.map(({ info }) => traitOf(`region.${info.index}.widths`));
  if (values.includes(undefined)) return undefined;
  return values.every((value) => value?.startsWith('none') === true);
}
