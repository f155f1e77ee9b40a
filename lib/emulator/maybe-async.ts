/** Handlers may be asynchronous; those that are not must not cost a turn of the loop. */
import { types } from 'node:util';

/** Not `instanceof`: the promise may come from another realm. */
export function isPromise<T>(value: T | Promise<T>): value is Promise<T> {
  return types.isPromise(value);
}

/** `then(value)`, at once where `value` is no promise. */
export function andThen<T, R>(value: T | Promise<T>, then: (value: T) => R | Promise<R>): R | Promise<R> {
  return isPromise(value) ? value.then(then) : then(value);
}
