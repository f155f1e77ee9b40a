/** What can go wrong with a rig, and what a test expected in vain. */
import { brand } from '../brand.js';
import { VfioUserError } from '../errors.js';

/** A rig could not be set up, or its server ended by itself. `code` is `ERR_VFIO_USER_RIG`. */
export class RigError extends VfioUserError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_VFIO_USER_RIG', message, options);
  }

  static {
    brand(this, 'RigError');
  }
}

/** The device did not do what a test expects. `code` is `ERR_VFIO_USER_EXPECTATION`. */
export class ExpectationError extends VfioUserError {
  /** What was there; test frameworks show the difference. */
  readonly actual: unknown;
  /** What should have been there. */
  readonly expected: unknown;

  constructor(message: string, actual: unknown, expected: unknown, options?: ErrorOptions) {
    super('ERR_VFIO_USER_EXPECTATION', message, options);
    this.actual = actual;
    this.expected = expected;
  }

  static {
    brand(this, 'ExpectationError');
  }
}
