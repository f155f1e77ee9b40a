/** What a verb could not show beside what it has shown. */
import { VfioUserError } from '../../../index.js';

/** Of what failed. */
const MOST_TOLD = 4;

export interface Missing {
  /** What is not shown: `namespace 2`. */
  what: string;
  /** Why. */
  error: string;
}

/** The rest has been shown. */
export function incompleteError(missing: readonly Missing[]): Error {
  const some = missing
    .slice(0, MOST_TOLD)
    .map(({ what, error }) => (error.startsWith(what) ? error : `${what}: ${error}`));
  const more = missing.length - some.length;
  const text = [...some, ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
  return new VfioUserError('ERR_VFIO_USER_INCOMPLETE', text);
}
