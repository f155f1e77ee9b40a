/** Options by name: what an error says, and what passes. */
import { describe, expect, test } from '@jest/globals';
import * as option from '../lib/options.js';

interface Nested {
  timeoutMs?: number;
}
interface Options {
  secureDma?: boolean;
  timeoutMs?: number;
  inFlight?: number;
  mode?: 'fast' | 'recorded';
  reconnect?: boolean | Nested;
  names?: string[];
  signal?: AbortSignal;
  path?: string;
  iova?: bigint;
}

const NESTED = new option.OptionTable<Nested>({ timeoutMs: option.timeout });
const TABLE = new option.OptionTable<Options>({
  secureDma: option.boolean,
  timeoutMs: option.timeout,
  inFlight: option.wholeNumber(1, 8),
  mode: option.oneOf('fast', 'recorded'),
  reconnect: option.byType('true, false or { timeoutMs }', {
    boolean: option.boolean,
    object: option.options(NESTED),
  }),
  names: option.listOf('names', option.string),
  signal: option.signal,
  path: option.path,
  iova: option.bigInteger(0n, 7n),
});
const REQUIRED = new option.OptionTable<{ fd: number; size?: number }>(
  { fd: option.wholeNumber(), size: option.wholeNumber() },
  ['fd'],
);

const check = (options: unknown) => () => TABLE.check('connect', options as Options);

describe('names', () => {
  test.each([
    ['secureDMA', 'secureDma'],
    ['securedma', 'secureDma'],
    ['timeout', 'timeoutMs'],
    ['timoeutMs', 'timeoutMs'],
    ['infligth', 'inFlight'],
    ['Path', 'path'],
  ])('%s is taken for %s', (name, meant) => {
    const error = TABLE.problem('connect', { [name]: true });
    expect(error).toBeInstanceOf(TypeError);
    expect(error).toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
      message: `connect: unknown option ${name}; did you mean ${meant}?`,
    });
  });

  test.each([
    'entirelyElse',
    'x',
    '',
    'constructor',
    'toString',
    '__proto__x',
    '0',
    'a\nb',
    'ä'.repeat(10_000),
  ])('where nothing is like it, all are named (%#)', (name) => {
    const { message } = TABLE.problem('connect', { [name]: undefined })!;
    expect(message).toMatch(
      /^connect: unknown option .* \(the options are secureDma, timeoutMs, inFlight, .*\)$/,
    );
    expect(message.length).toBeLessThan(250);
  });

  test('what is inherited is an option, what is not enumerable and symbols are not', () => {
    expect(check(Object.create({ secureDMA: true }))).toThrow(TypeError);
    expect(check(Object.create({ secureDma: true }))).not.toThrow();
    expect(check({ [Symbol('own')]: 1 })).not.toThrow();
    expect(check(Object.defineProperty({}, 'hidden', { value: 1 }))).not.toThrow();
    expect(check(Object.assign(Object.create(null), { inFlight: 1 }))).not.toThrow();
  });

  test('of options within an option', () => {
    expect(check({ reconnect: { timeout: 5 } })).toThrow(
      'connect: unknown option reconnect.timeout; did you mean reconnect.timeoutMs?',
    );
    expect(check({ reconnect: { timeoutMs: NaN } })).toThrow(
      new RangeError('connect: reconnect.timeoutMs must be greater than 0, in milliseconds, got NaN'),
    );
    expect(check({ reconnect: { timeoutMs: 5 } })).not.toThrow();
    expect(check({ reconnect: null })).toThrow(
      'connect: reconnect must be true, false or { timeoutMs }, got null',
    );
  });

  test('that are required', () => {
    expect(REQUIRED.problem('map', undefined as never)).toMatchObject({
      message: 'map: options must be an object, got undefined',
    });
    expect(REQUIRED.problem('map', {} as never)).toMatchObject({
      message: 'map: fd must be a number, got undefined',
    });
    expect(REQUIRED.problem('map', { fd: 0 })).toBeUndefined();
  });
});

describe('values', () => {
  test.each<[unknown, string]>([
    [5, 'options must be an object, got 5'],
    [null, 'options must be an object, got null'],
    ['timeoutMs', 'options must be an object, got "timeoutMs"'],
    [[], 'options must be an object, got an instance of Array'],
    [{ secureDma: 'false' }, 'secureDma must be true or false, got "false"'],
    [{ secureDma: null }, 'secureDma must be true or false, got null'],
    [{ timeoutMs: '5' }, 'timeoutMs must be a number of milliseconds, got "5"'],
    [{ timeoutMs: 5n }, 'timeoutMs must be a number of milliseconds, got 5n'],
    [{ inFlight: '1' }, 'inFlight must be a number, got "1"'],
    [{ mode: 'slow' }, `mode must be 'fast' or 'recorded', got "slow"`],
    [{ reconnect: 1 }, 'reconnect must be true, false or { timeoutMs }, got 1'],
    [{ names: 'a' }, 'names must be a list of names, got "a"'],
    [{ names: ['a', 5] }, 'names[1] must be a string, got 5'],
    [{ signal: {} }, 'signal must be an AbortSignal, got an instance of Object'],
    [{ signal: new AbortController() }, 'signal must be an AbortSignal, got an instance of AbortController'],
    [{ path: '' }, 'path must be the path of a file, got ""'],
    [{ iova: 1 }, 'iova must be a bigint, got 1'],
  ])('%p is a TypeError', (options, message) => {
    expect(check(options)).toThrow(new TypeError(`connect: ${message}`));
    expect(TABLE.problem('connect', options as Options)).toMatchObject({
      name: 'TypeError',
      code: 'ERR_INVALID_ARG_TYPE',
    });
  });

  test.each<[Options, string]>([
    [{ timeoutMs: NaN }, 'timeoutMs must be greater than 0, in milliseconds, got NaN'],
    [{ timeoutMs: 0 }, 'timeoutMs must be greater than 0, in milliseconds, got 0'],
    [{ timeoutMs: -Infinity }, 'timeoutMs must be greater than 0, in milliseconds, got -Infinity'],
    [{ inFlight: 1.5 }, 'inFlight must be an integer from 1 to 8, got 1.5'],
    [{ inFlight: 9 }, 'inFlight must be an integer from 1 to 8, got 9'],
    [{ inFlight: NaN }, 'inFlight must be an integer from 1 to 8, got NaN'],
    [{ iova: 8n }, 'iova must be a bigint from 0 to 7, got 8'],
  ])('%p is a RangeError', (options, message) => {
    expect(check(options)).toThrow(new RangeError(`connect: ${message}`));
    expect(TABLE.problem('connect', options)).toMatchObject({ name: 'RangeError', code: 'ERR_OUT_OF_RANGE' });
  });

  test('what is taken', () => {
    expect(TABLE.problem('connect', undefined)).toBeUndefined();
    for (const options of [
      {},
      { secureDma: undefined, timeoutMs: undefined, reconnect: undefined },
      { timeoutMs: Infinity, inFlight: 8, mode: 'fast', names: [], iova: 0n, path: 'x' },
      { timeoutMs: 0.5, signal: AbortSignal.timeout(5), reconnect: false },
      // A signal of a library's own.
      { signal: { aborted: false, addEventListener: () => undefined } },
    ]) {
      expect(TABLE.problem('connect', options as Options)).toBeUndefined();
    }
  });

  test('a getter that throws is told, and not thrown, by `problem`', () => {
    const own = new Error('own');
    const options = {
      get timeoutMs(): number {
        throw own;
      },
    };
    expect(TABLE.problem('connect', options)).toBe(own);
    expect(check(options)).toThrow(own);
  });
});
