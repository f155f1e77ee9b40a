/** What can be wrong with the file of a register map. */
import { brand } from '../brand.js';
import { VfioUserError } from '../errors.js';

/** A register map makes no sense, or asks for more than is allowed. `code` is `ERR_VFIO_USER_REGISTER_MAP`. */
export class RegisterMapError extends VfioUserError {
  /** The line of the file, from 1; undefined where it has none. */
  readonly line: number | undefined;

  /** @param line - from 1 */
  constructor(message: string, line?: number, options?: ErrorOptions) {
    super('ERR_VFIO_USER_REGISTER_MAP', line === undefined ? message : `line ${line}: ${message}`, options);
    this.line = line;
  }

  static {
    brand(this, 'RegisterMapError');
  }
}

/** Something of a file that its map does not say, or says otherwise. */
export interface ImportWarning {
  /** What, in words. */
  readonly message: string;
  /** The line of the file, from 1; undefined in JSON, where the message says the path. */
  readonly line: number | undefined;
}
