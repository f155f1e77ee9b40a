import { brand } from '../brand.js';
import { VfioUserError } from '../errors.js';
import type { ReplayReport } from './report.js';

/**
 * A client did not do what is recorded. `code` is `ERR_VFIO_USER_REPLAY`.
 *
 * @example
 * ```ts
 * try {
 *   await server.assertComplete();
 * } catch (error) {
 *   if (!(error instanceof ReplayError)) throw error;
 *   console.error(error.report.differences);
 * }
 * ```
 */
export class ReplayError extends VfioUserError {
  /** How its session went. */
  readonly report: ReplayReport;

  constructor(message: string, report: ReplayReport) {
    super('ERR_VFIO_USER_REPLAY', message);
    this.report = report;
  }

  static {
    brand(this, 'ReplayError');
  }
}
