/** The JSON schema of register maps (draft 7): `RegisterMap.from` checks the same, and that names are unique. */
import { ACCESS_WORDS, READ_EFFECTS, WRITE_EFFECTS } from './access.js';
import { REGISTER_MAP_FORMAT } from './data.js';
import { LIMITS } from './map.js';

type Schema = Readonly<Record<string, unknown>>;

const NAME = { type: 'string', pattern: '^[A-Za-z0-9_-]+$', maxLength: LIMITS.nameLength };
const TEXT = { type: 'string', maxLength: LIMITS.descriptionLength };
const OFFSET = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER };
const INTEGER = { anyOf: [OFFSET, { type: 'string', pattern: '^0[xX][0-9A-Fa-f]{1,16}$' }] };
const FLAG = { type: 'boolean' };
const ARRAY = { count: { type: 'integer', minimum: 0, maximum: LIMITS.registers }, stride: OFFSET };
const ACCESS = {
  access: { enum: Object.keys(ACCESS_WORDS) },
  onRead: { enum: READ_EFFECTS },
  onWrite: { enum: WRITE_EFFECTS },
  once: FLAG,
  selfClearing: FLAG,
  volatile: FLAG,
  noTest: FLAG,
};
const CHILDREN = {
  type: 'array',
  maxItems: LIMITS.registers,
  items: {
    if: { type: 'object', required: ['children'] },
    then: { $ref: '#/definitions/group' },
    else: { $ref: '#/definitions/register' },
  },
};

function object(required: readonly string[], properties: Schema, more: Schema = {}): Schema {
  return { type: 'object', required, properties, additionalProperties: false, ...more };
}

/** What repeats says how far its elements are from each other. */
const WITH_STRIDE = { dependencies: { count: ['stride'] } };

function values(): Schema {
  return { type: 'array', maxItems: LIMITS.values, items: { $ref: '#/definitions/value' } };
}

/** The JSON schema of a `RegisterMapData` (draft 7). */
export const REGISTER_MAP_SCHEMA: Readonly<Record<string, unknown>> = {
  $schema: 'http://json-schema.org/draft-07/schema#',
  title: 'A register map of vfio-user',
  ...object(['format', 'name', 'blocks'], {
    format: { const: REGISTER_MAP_FORMAT },
    name: TEXT,
    description: TEXT,
    blocks: { type: 'array', maxItems: LIMITS.blocks, items: { $ref: '#/definitions/block' } },
  }),
  definitions: {
    block: object(['name', 'children'], { name: NAME, description: TEXT, base: INTEGER, children: CHILDREN }),
    group: object(
      ['name', 'offset', 'children'],
      { name: NAME, description: TEXT, offset: OFFSET, children: CHILDREN, ...ARRAY },
      WITH_STRIDE,
    ),
    register: object(
      ['name', 'offset'],
      {
        ...{ name: NAME, description: TEXT, offset: OFFSET, bits: { enum: [8, 16, 32, 64] } },
        ...{ reset: INTEGER, resetMask: INTEGER },
        fields: { type: 'array', maxItems: LIMITS.fields, items: { $ref: '#/definitions/field' } },
        ...ARRAY,
        ...ACCESS,
      },
      WITH_STRIDE,
    ),
    field: object(['name', 'lsb'], {
      ...{ name: NAME, description: TEXT, lsb: { type: 'integer', minimum: 0, maximum: 63 } },
      ...{ bits: { type: 'integer', minimum: 1, maximum: 64 }, values: values(), writeValues: values() },
      ...ACCESS,
    }),
    value: object(['name', 'value'], { name: NAME, description: TEXT, value: INTEGER }),
  },
};
