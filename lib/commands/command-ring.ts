/** What `CommandQueue` sends commands through: rings in memory that the device reads and writes, with slots. */
import type { CommandSlots } from './command-slots.js';

/** A command in flight, told from earlier and later ones in its slot. */
export interface OutstandingCommand {
  readonly queueId: number;
  readonly commandId: number;
  /** Whether it is still in flight. */
  isOut(): boolean;
}

export interface CommandRing {
  readonly id: number;
  readonly slots: CommandSlots;
  readonly isOpen: boolean;
  /** The epoch in which the device last completed a command that somebody waited for. */
  answered: number;
  /** Commands that are not completed, or not reported yet. */
  readonly inFlight: number;
  /** Takes the completion of an owned slot, which is free by then. What both numbers are is the ring's. */
  onCompletion: (slot: number, status: number, result: number) => void;
  /** Shows all commands since the last time to the device, and tells it of them. */
  ring(): void;
  /** Consumes completions of owned slots, and keeps those of tagged ones. Returns how many came. */
  pollOwned(): number;
  /** Nothing is claimed until it is resumed. */
  pause(): void;
  /** Nothing is claimed and the device told of nothing from here on. What completes is still reported. */
  close(): void;
  /** The queue is gone, and the rings' memory somebody else's. */
  end(): void;
  /** The device has let go of all commands: frees the owned slots and gives their numbers. */
  abandon(): number[];
  /** The command that is in that slot now. */
  outstanding(slot: number): OutstandingCommand;
}
