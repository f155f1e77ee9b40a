/**
 * Objects that are more than their fields: sockets, mappings and file descriptors belong to the thread that opened them.
 * `structuredClone` and `postMessage` would copy the public fields, and give an object without methods instead of an error.
 */

/**
 * From now on cloning `object` throws a DataCloneError that has these words. (`markAsUncloneable` of
 * node:worker_threads does this without a field, from Node 22.10 on.)
 */
export function forbidCloning(object: object, name: string): void {
  // A symbol cannot be cloned, and only fields that are enumerable are looked at.
  const value = Symbol.for(`${name} cannot be cloned: it belongs to its thread`);
  Object.defineProperty(object, 'cloning', { value, enumerable: true });
}
