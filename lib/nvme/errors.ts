/**
 * What goes wrong beyond a command's own status (`NvmeStatusError`): a TimeoutError where no completion comes, a
 * ClosedError where the controller or the connection is closed, and these.
 */
import { brand } from '../brand.js';
import { VfioUserError } from '../index.js';

/**
 * The controller has failed and could not be brought back, or does not come up: CSTS.CFS, a CSTS.RDY that does not
 * follow CC.EN. `code` is `ERR_NVME_CONTROLLER`.
 * @example
 * ```ts
 * if (error.code === 'ERR_NVME_CONTROLLER') console.error('the controller is lost:', error.message);
 * ```
 */
export class NvmeControllerError extends VfioUserError {
  /** @param message - for people */
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_NVME_CONTROLLER', message, options);
  }

  static {
    brand(this, 'NvmeControllerError');
  }
}

/**
 * What a namespace number stands for is not what it was when the queue or namespace object was made: nothing is sent to
 * it. Ask for the namespace again, and make a new queue. `code` is `ERR_NVME_NAMESPACE`.
 * @example
 * ```ts
 * if (error.code === 'ERR_NVME_NAMESPACE') queue = await controller.createQueue({ namespace: error.namespace });
 * ```
 */
export class NvmeNamespaceError extends VfioUserError {
  /** NSID. */
  readonly namespace: number;

  /**
   * @param namespace - NSID
   * @param change - what has changed, for people
   */
  constructor(namespace: number, change: string, options?: ErrorOptions) {
    super('ERR_NVME_NAMESPACE', `namespace ${namespace} has changed: ${change}`, options);
    this.namespace = namespace;
  }

  static {
    brand(this, 'NvmeNamespaceError');
  }
}

/**
 * The command was in flight when the controller was reset, and its `retries` are used up: it may have been carried out.
 * `code` is `ERR_NVME_RESET`.
 * @example
 * ```ts
 * if (error.code === 'ERR_NVME_RESET') await queue.write(lba, data);
 * ```
 */
export class NvmeResetError extends VfioUserError {
  /** @param command - its name, for people */
  constructor(command: string, options?: ErrorOptions) {
    super('ERR_NVME_RESET', `${command}: the controller was reset`, options);
  }

  static {
    brand(this, 'NvmeResetError');
  }
}
