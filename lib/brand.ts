/**
 * A program may have this package twice, and errors come from other realms (`vm`, test runners): so `instanceof` looks for a
 * brand, a registered symbol on the prototype, and not for one of the classes in memory.
 */

/** @internal Names the class, and has `instanceof` recognise what another copy of it has made. */
export function brand(errorClass: { readonly prototype: Error }, name: string): void {
  const symbol = Symbol.for(`vfio-user.error.${name}`);
  errorClass.prototype.name = name;
  Object.defineProperty(errorClass.prototype, symbol, { value: true });
  Object.defineProperty(errorClass, Symbol.hasInstance, {
    // A class of a user's that extends one of these has no brand of its own.
    value(this: { readonly prototype: object }, value: unknown): boolean {
      if (typeof value !== 'object' || value === null) return false;
      if (!Object.hasOwn(this.prototype, symbol)) return isInPrototypes(this.prototype, value);
      return (value as Record<symbol, unknown>)[symbol] === true;
    },
  });
}

function isInPrototypes(prototype: object, value: object): boolean {
  return Object.prototype.isPrototypeOf.call(prototype, value);
}
