/**
 * What goes wrong beyond a command's own status (`NvmeStatusError`): a TimeoutError where no completion comes, a
 * ClosedError where the controller or the connection is closed, and these.
 */
import { VfioUserError } from '../index.js';

/**
 * The controller has failed and could not be brought back, or does not come up: CSTS.CFS, a CSTS.RDY that does not
 * follow CC.EN. `code` is `ERR_NVME_CONTROLLER`.
 */
export class NvmeControllerError extends VfioUserError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_NVME_CONTROLLER', message, options);
  }

  static {
    this.prototype.name = 'NvmeControllerError';
  }
}

/**
 * What a namespace number stands for is not what it was when the queue or namespace object was made: nothing is sent to
 * it. Ask for the namespace again, and make a new queue. `code` is `ERR_NVME_NAMESPACE`.
 */
export class NvmeNamespaceError extends VfioUserError {
  /** NSID. */
  readonly namespace: number;

  constructor(namespace: number, change: string, options?: ErrorOptions) {
    super('ERR_NVME_NAMESPACE', `namespace ${namespace} has changed: ${change}`, options);
    this.namespace = namespace;
  }

  static {
    this.prototype.name = 'NvmeNamespaceError';
  }
}

/** The command was in flight when the controller was reset, and is not to be tried again. `code` is `ERR_NVME_RESET`. */
export class NvmeResetError extends VfioUserError {
  constructor(command: string, options?: ErrorOptions) {
    super('ERR_NVME_RESET', `${command}: the controller was reset`, options);
  }

  static {
    this.prototype.name = 'NvmeResetError';
  }
}
