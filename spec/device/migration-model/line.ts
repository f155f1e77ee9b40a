/** What lies between a client and its server: a proxy, which is told while it runs what to do to which message. */
import { openTap } from '../../../lib/trace/index.js';
import { openListener } from '../../../lib/proxy/listener.js';
import {
  FaultPlan,
  Random,
  type CheckedMessageFault,
  type Firing,
  type Selectable,
} from '../../../lib/faults/index.js';
import { ProxyServer } from '../../../lib/proxy/proxy.js';
import { settingsOf } from '../../../lib/proxy/proxy-options.js';
import { Command } from '../../../lib/protocol/constants.js';
import type { Kind, LineFault } from './steps.js';

/** How long what a fault has held back may still be on its way. */
const AFTERMATH_MS = 400;
const HEADER_ERROR_FLAG = 0x20;

const COMMANDS: Partial<Record<number, Kind>> = {
  [Command.DIRTY_PAGES]: 'report',
  [Command.MIG_DATA_READ]: 'read',
  [Command.MIG_DATA_WRITE]: 'write',
  [Command.DMA_UNMAP]: 'unmap',
  [Command.DMA_MAP]: 'map',
  [Command.DEVICE_RESET]: 'reset',
  [Command.REGION_WRITE]: 'region',
  [Command.DMA_READ]: 'dma',
  [Command.DMA_WRITE]: 'dma',
};
/** Of DEVICE_FEATURE: what is of states and probes is shorter than what is of dirty logs. */
const MOST_STATE_BYTES = 32;

export class Line {
  readonly path: string;
  readonly #plan: LivePlan;
  readonly #proxy: ProxyServer;
  #isOver = false;

  private constructor(path: string, plan: LivePlan, server: ProxyServer) {
    this.path = path;
    this.#plan = plan;
    this.#proxy = server;
  }

  static async open(path: string, connect: string): Promise<Line> {
    const plan = new LivePlan();
    const settings = { ...settingsOf({ listen: path, connect, spinUs: 0 }), plan };
    const holder: { server?: ProxyServer } = {};
    const listener = await openListener(path, {
      hasRoom: () => true,
      onArrival: (arrival) => holder.server!.admit(arrival),
      onTrouble: () => undefined,
    });
    holder.server = new ProxyServer({ listener, tap: await openTap({}), settings, connect, name: connect });
    listener.resume();
    return new Line(path, plan, holder.server);
  }

  arm(fault: LineFault): void {
    if (!this.#isOver) this.#plan.armed.push({ ...fault });
  }

  /** Nothing more goes wrong from now on. */
  disarm(): void {
    this.#isOver = true;
    this.#plan.armed.length = 0;
  }

  /** Faults that have happened. */
  get fired(): number {
    return this.#plan.count;
  }

  /** What a fault has done may not be over yet. */
  get isTroubled(): boolean {
    return performance.now() - this.#plan.last < AFTERMATH_MS;
  }

  close(): Promise<void> {
    return this.#proxy.close();
  }
}

class LivePlan extends FaultPlan {
  readonly armed: LineFault[] = [];
  count = 0;
  last = -Infinity;
  readonly #random = new Random(1);

  constructor() {
    super([]);
  }

  override firings(message: Selectable): Firing<CheckedMessageFault>[] {
    for (const [i, planned] of this.armed.entries()) {
      if (!isOf(planned, message) || planned.skip-- > 0) continue;
      this.armed.splice(i, 1);
      this.count++;
      this.last = performance.now();
      return [{ number: this.count, fault: faultOf(planned, message), random: this.#random }];
    }
    return [];
  }
}

function isOf({ of, isReply }: LineFault, message: Selectable): boolean {
  // Opening has errors of its own, which are no part of this model.
  if (message.isReply !== isReply || message.command < Command.DMA_MAP) return false;
  return of === 'any' || of === kindOf(message);
}

function kindOf({ command, size }: Selectable): Kind | undefined {
  if (command !== Command.DEVICE_FEATURE) return COMMANDS[command];
  return size <= MOST_STATE_BYTES ? 'state' : 'report';
}

function faultOf({ action }: LineFault, { isReply, size }: Selectable): CheckedMessageFault {
  switch (action.do) {
    case 'drop':
      return { fault: 'drop' };
    case 'delay':
      return { fault: 'delay', ms: action.ms };
    case 'refuse':
      return isReply ? { fault: 'drop' } : { fault: 'errno', errno: action.errno };
    case 'error':
      return { fault: 'corrupt', offset: 8, xor: HEADER_ERROR_FLAG };
    case 'damage':
      return { fault: 'corrupt', offset: action.offset < size ? action.offset : 0, xor: 0xff };
    case 'disconnect':
      return { fault: 'disconnect', bytes: action.bytes };
  }
}
