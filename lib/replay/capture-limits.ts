/** What happened beside the messages, and so is not in the recording. */
import {
  Command,
  HEADER_FLAG_ERROR,
  HEADER_SIZE,
  IRQ_SET_ACTION_TRIGGER,
  IRQ_SET_DATA_EVENTFD,
} from '../protocol/constants.js';
import { headerCommand, headerFlags } from '../protocol/header.js';
import type { Exchange } from './exchange.js';

const FLAGS_AT = HEADER_SIZE + 4;
const INTERRUPT_FLAGS = IRQ_SET_DATA_EVENTFD | IRQ_SET_ACTION_TRIGGER;

/** One sentence for each. */
export function captureLimits(exchanges: readonly Exchange[]): string[] {
  const limits: string[] = [];
  const shared = exchanges.find((exchange) => isDone(exchange, Command.DMA_MAP) && exchange.request.fds > 0);
  if (shared !== undefined) {
    limits.push(
      `memory was shared by fd (message ${shared.request.number}): what the device read and wrote there is not in the ` +
        'recording. Record with secureDma',
    );
  }
  const armed = exchanges.find(givesEventfds);
  const hasInterrupts = exchanges.some(({ steps }) => steps.some(({ kind }) => kind === 'interrupt'));
  if (armed !== undefined && !hasInterrupts) {
    limits.push(
      `eventfds were given (message ${armed.request.number}) and no interrupt is in the recording: if one came, ` +
        'whoever captured did not see it',
    );
  }
  return limits;
}

function givesEventfds(exchange: Exchange): boolean {
  const { bytes, fds } = exchange.request;
  if (fds === 0 || bytes.length < FLAGS_AT + 4 || !isDone(exchange, Command.DEVICE_SET_IRQS)) return false;
  return (bytes.readUInt32LE(FLAGS_AT) & INTERRUPT_FLAGS) === INTERRUPT_FLAGS;
}

/** Whether it is `command`, and the server did not refuse it. */
export function isDone({ request, steps }: Exchange, command: number): boolean {
  if (headerCommand(request.bytes, 0) !== command) return false;
  const reply = steps.find((step) => step.kind === 'reply');
  return reply === undefined || (headerFlags(reply.message.bytes, 0) & HEADER_FLAG_ERROR) === 0;
}
