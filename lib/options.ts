/**
 * Options by name. What a function takes is a table of its options and what each may be; whatever else is in the caller's
 * object is a mistake, and a misspelt option that was ignored would be one that nobody hears of.
 *
 * The errors are TypeError and RangeError with the codes of Node's own functions, and name the function, the option, what it
 * must be and what it was: `connect: inFlight must be an integer from 1 to 1024, got NaN`.
 */
import leven from 'leven';
import { notBigInteger, notInteger, outOfRange, wrongType } from './fields.js';

/** Why `value` cannot be the option `name` of `caller`; undefined where it can. It is not asked of undefined. */
export type Check = (value: unknown, caller: string, name: string) => Error | undefined;

/** A check for each option of `T`, and none beside. */
export type Checks<T> = { readonly [Name in keyof Required<T>]: Check };

/** The options of a function. */
export class OptionTable<T extends object> {
  readonly #checks: ReadonlyMap<string, Check>;
  readonly #required: readonly string[];

  constructor(checks: Checks<T>, required: readonly (keyof T & string)[] = []) {
    this.#checks = new Map(Object.entries<Check>(checks));
    this.#required = required;
  }

  /** What is wrong with the options, for functions that return a promise; undefined where nothing is. */
  problem(caller: string, options: T | undefined): Error | undefined {
    return options === undefined && this.#required.length === 0 ? undefined : this.find(caller, '', options);
  }

  /** @throws TypeError and RangeError for what is wrong with the options. */
  check(caller: string, options: T | undefined): void {
    const problem = this.problem(caller, options);
    if (problem !== undefined) throw problem;
  }

  /** `problem` of options that are the value of another option, whose name and a dot are `path`. */
  find(caller: string, path: string, options: unknown): Error | undefined {
    if (typeof options !== 'object' || options === null || Array.isArray(options)) {
      return wrongType(`${caller}: ${path === '' ? 'options' : path.slice(0, -1)}`, 'an object', options);
    }
    try {
      for (const name in options) {
        const check = this.#checks.get(name);
        if (check === undefined) return this.#unknown(caller, path, name);
        const value = (options as Record<string, unknown>)[name];
        const problem = value === undefined ? undefined : check(value, caller, path + name);
        if (problem !== undefined) return problem;
      }
      for (const name of this.#required) {
        const value = (options as Record<string, unknown>)[name];
        if (value === undefined) return this.#checks.get(name)?.(value, caller, path + name);
      }
    } catch (error) {
      // A getter's own.
      return error as Error;
    }
    return undefined;
  }

  #unknown(caller: string, path: string, name: string): TypeError {
    const names = [...this.#checks.keys()];
    const meant = closest(name, names);
    const hint =
      meant === undefined ? ` (the options are ${names.join(', ')})` : `; did you mean ${path}${meant}?`;
    const shown = /^[\w$]{1,40}$/.test(name) ? name : JSON.stringify(name.slice(0, MOST_COMPARED));
    return Object.assign(new TypeError(`${caller}: unknown option ${path}${shown}${hint}`), {
      code: 'ERR_INVALID_ARG_VALUE',
    });
  }
}

const MOST_COMPARED = 40;
const MOST_TYPOS = 3;

/** The name that was probably meant. Upper and lower case do not count. */
function closest(name: string, names: readonly string[]): string | undefined {
  const wanted = name.slice(0, MOST_COMPARED).toLowerCase();
  let best: string | undefined;
  let least = MOST_TYPOS + 1;
  for (const other of names) {
    const distance = leven(wanted, other.toLowerCase());
    if (distance >= least || distance * 2 > Math.max(wanted.length, other.length)) continue;
    best = other;
    least = distance;
  }
  return best;
}

/** True or false: what is merely truthy may be a mistake. */
export const boolean: Check = (value, caller, name) =>
  typeof value === 'boolean' ? undefined : wrongType(`${caller}: ${name}`, 'true or false', value);

export const string: Check = (value, caller, name) =>
  typeof value === 'string' ? undefined : wrongType(`${caller}: ${name}`, 'a string', value);

/** The path of a file. */
export const path: Check = (value, caller, name) =>
  typeof value === 'string' && value !== ''
    ? undefined
    : wrongType(`${caller}: ${name}`, 'the path of a file', value);

export const callback: Check = (value, caller, name) =>
  typeof value === 'function' ? undefined : wrongType(`${caller}: ${name}`, 'a function', value);

export const bytes: Check = (value, caller, name) =>
  value instanceof Uint8Array ? undefined : wrongType(`${caller}: ${name}`, 'a Uint8Array or Buffer', value);

/** How long something may take, in milliseconds. */
export const timeout: Check = (value, caller, name) => {
  if (typeof value === 'number' && value > 0) return undefined;
  if (typeof value !== 'number') return wrongType(`${caller}: ${name}`, 'a number of milliseconds', value);
  return outOfRange(`${caller}: ${name} must be greater than 0, in milliseconds, got ${value}`);
};

/** A pause, in milliseconds, which may be none. */
export const pause: Check = (value, caller, name) => {
  if (typeof value === 'number' && value >= 0) return undefined;
  if (typeof value !== 'number') return wrongType(`${caller}: ${name}`, 'a number of milliseconds', value);
  return outOfRange(`${caller}: ${name} must be 0 or more, in milliseconds, got ${value}`);
};

/** How many of something at most: `Infinity` for all. */
export const limit: Check = (value, caller, name) =>
  value === Infinity ? undefined : wholeNumber(0)(value, caller, name);

/** By what it can do: there are signals of other realms, and of libraries. */
export const signal: Check = (value, caller, name) => {
  const { aborted, addEventListener } = (typeof value === 'object' && value !== null ? value : {}) as {
    aborted?: unknown;
    addEventListener?: unknown;
  };
  if (typeof aborted === 'boolean' && typeof addEventListener === 'function') return undefined;
  return wrongType(`${caller}: ${name}`, 'an AbortSignal', value);
};

/** A whole number, which is within bounds. */
export function wholeNumber(least = 0, most = Number.MAX_SAFE_INTEGER): Check {
  return (value, caller, name) =>
    Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most
      ? undefined
      : notInteger(`${caller}: ${name}`, value, least, most);
}

/** A bigint, which is within bounds. */
export function bigInteger(least: bigint, most: bigint): Check {
  return (value, caller, name) =>
    typeof value === 'bigint' && value >= least && value <= most
      ? undefined
      : notBigInteger(`${caller}: ${name}`, value, least, most);
}

/** One of a few values. */
export function oneOf(...values: readonly (string | number)[]): Check {
  const names = values.map((value) => (typeof value === 'string' ? `'${value}'` : String(value)));
  const what = `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
  return (value, caller, name) =>
    values.includes(value as string | number) ? undefined : wrongType(`${caller}: ${name}`, what, value);
}

/** Options within options. */
export function options<T extends object>(table: OptionTable<T>): Check {
  return (value, caller, name) => table.find(caller, `${name}.`, value);
}

/** A list, each of whose items is checked. */
export function listOf(what: string, item: Check): Check {
  return (value, caller, name) => {
    if (!Array.isArray(value)) return wrongType(`${caller}: ${name}`, `a list of ${what}`, value);
    for (const [i, one] of value.entries()) {
      const problem = item(one, caller, `${name}[${i}]`);
      if (problem !== undefined) return problem;
    }
    return undefined;
  };
}

/** Of several types, by what `typeof` says. */
export function byType(what: string, checks: { readonly [type: string]: Check }): Check {
  return (value, caller, name) => {
    const check = Object.hasOwn(checks, typeof value) ? checks[typeof value] : undefined;
    if (check === undefined || value === null) return wrongType(`${caller}: ${name}`, what, value);
    return check(value, caller, name);
  };
}

/** What is checked where it is used. */
export const unchecked: Check = () => undefined;

/** What carries bytes both ways. By what it can do, as `signal`. */
export const duplex: Check = (value, caller, name) => {
  const { on, write, read } = (typeof value === 'object' && value !== null ? value : {}) as Record<
    string,
    unknown
  >;
  const isDuplex = [on, write, read].every((method) => typeof method === 'function');
  return isDuplex ? undefined : wrongType(`${caller}: ${name}`, 'a Duplex', value);
};

/** The options of a call that waits for an answer, and of one that blocks meanwhile. */
export const CALL_CHECKS = { timeoutMs: timeout, signal } as const;
export const CALL_OPTIONS = new OptionTable<{
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
}>(CALL_CHECKS);
export const SYNC_CALL_OPTIONS = new OptionTable<{ timeoutMs?: number | undefined }>({ timeoutMs: timeout });
