/**
 * Answers callers. A transfer is answered when none of its commands is out any more: with an error when one of them
 * failed, and then no further one is sent.
 */
import type { CallLimits } from './call-limits.js';
import { Command, RESULT } from './command.js';
import type { PendingCall } from './pending-call.js';
import { Transfer } from './transfer.js';

export class Answers {
  readonly #limits: CallLimits;

  constructor(limits: CallLimits) {
    this.#limits = limits;
  }

  /** The controller has completed the command. `result` is dword 0 of the completion. */
  fulfil(command: Command, result: number): void {
    command.isSettled = true;
    if (command.transfer !== undefined) {
      this.commandEnded(command);
      return;
    }
    this.#limits.remove(command);
    command.resolve((command.answer === RESULT ? result : command.answer) as never);
  }

  /** The caller gets that error: now, or for a command of a transfer when the others are done. */
  fail(call: PendingCall, error: unknown): void {
    if (call instanceof Transfer) {
      this.#failTransfer(call, error);
      return;
    }
    call.isSettled = true;
    if (call instanceof Command && call.transfer !== undefined) {
      this.#failTransfer(call.transfer, error);
      if (call.slot < 0) this.commandEnded(call);
      return;
    }
    this.#limits.remove(call);
    call.reject(error);
  }

  /** The caller does not wait any more for a command that is in flight. */
  abandon(command: Command): void {
    if (command.transfer === undefined) {
      this.fail(command, command.failure);
      return;
    }
    command.isSettled = true;
    this.commandEnded(command);
    command.transfer = undefined;
  }

  /** A command of a transfer is out of its slot, or is not sent again. Nothing is done for other commands. */
  commandEnded({ transfer }: Command): void {
    if (transfer === undefined) return;
    transfer.outCount--;
    if (transfer.outCount === 0 && (transfer.isDone || transfer.failure !== undefined)) this.#end(transfer);
  }

  #failTransfer(transfer: Transfer, error: unknown): void {
    transfer.failure ??= error;
    if (transfer.list !== undefined) transfer.list.remove(transfer);
    if (transfer.outCount === 0) this.#end(transfer);
  }

  #end(transfer: Transfer): void {
    if (transfer.isSettled) return;
    transfer.isSettled = true;
    this.#limits.remove(transfer);
    if (transfer.failure === undefined) transfer.resolve(transfer.answer as never);
    else transfer.reject(transfer.failure);
  }
}
