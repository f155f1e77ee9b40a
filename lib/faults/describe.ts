/** Faults in words. */
import { errnoName } from '../errors.js';
import { wrongType } from '../fields.js';
import { commandName } from '../protocol/constants.js';
import { irqWord } from './checks.js';
import type { Fault, Place } from './check-plan.js';

/** What a fault does, for people: `delay 50 ms`, `errno EIO`, `stuck-bits STATUS.READY=0x0`. */
export function describeFault(fault: Fault): string {
  switch (fault.fault) {
    case 'delay':
      return `delay ${fault.ms} ms`;
    case 'errno':
      return `errno ${errnoName(fault.errno)}`;
    case 'withhold-fd':
      return `withhold-fd ${fault.fd ?? 0}`;
    case 'disconnect':
      return fault.bytes === undefined ? 'disconnect' : `disconnect after ${fault.bytes} bytes`;
    case 'stuck-bits':
      return `stuck-bits ${fault.place.name}=${valueIn(fault.place, fault.value)}`;
    case 'wrong-value':
      return fault.value === undefined
        ? `wrong-value ${fault.place.name}, ${fault.bits} bits`
        : `wrong-value ${fault.place.name}=${valueIn(fault.place, fault.value)}`;
    case 'lost-write':
      return `lost-write ${fault.place.name}`;
    case 'late-interrupt':
      return `late-interrupt ${fault.ms} ms`;
    case 'spurious-interrupt':
      return `spurious-interrupt ${irqWord(fault.irq)} ${fault.vector ?? 0}`;
    case 'interrupt-storm':
      return `interrupt-storm ${irqWord(fault.irq)} ${fault.vector ?? 0}`;
    case 'dma-delayed':
      return `dma-delayed ${fault.ms} ms`;
    case 'all-ones':
    case 'server-stalled':
    case 'server-restarted':
      return fault.ms === undefined ? fault.fault : `${fault.fault} ${fault.ms} ms`;
    case 'drop':
    case 'split':
    case 'duplicate':
    case 'corrupt':
    case 'lost-interrupt':
    case 'doubled-interrupt':
    case 'dma-corrupted':
    case 'dma-refused':
    case 'dma-out-of-range':
    case 'surprise-removal':
    case 'server-killed':
      return fault.fault;
  }
}

/** As people say it: of a field, its own value. */
function valueIn({ mask }: Place, value: bigint): string {
  let lsb = 0n;
  while (mask !== 0n && ((mask >> lsb) & 1n) === 0n) lsb++;
  return `0x${(value >> lsb).toString(16)}`;
}

/** A command's name and kind: `REGION_READ reply`. */
export function describeMessage(command: number, isReply: boolean): string {
  return isReply ? `${commandName(command)} reply` : commandName(command);
}

/** A number of the command line: decimal or 0x hexadecimal, a fraction too. */
const NUMBER = /^(?:0x[\da-f]+|\d+(?:\.\d+)?|\.\d+)$/i;
/** More would not be exact in a number. */
const LONG_HEX = /^0x[\da-f]{13,16}$/i;

/**
 * A fault as people type it: `drop`, `delay:ms=50,command=REGION_READ,kind=reply,nth=3`, `split:at=8+16`,
 * `stuck-bits:register=STATUS.READY,value=0`.
 * @throws TypeError for what is no list of names and values; what they mean is checked with the plan.
 */
export function parseFault(text: string): Record<string, unknown> {
  if (typeof text !== 'string') throw wrongType('parseFault: text', 'a string', text);
  const colon = text.indexOf(':');
  const fault = colon === -1 ? text : text.slice(0, colon);
  const spec: Record<string, unknown> = { fault };
  if (colon === -1) return spec;
  for (const part of text.slice(colon + 1).split(',')) {
    const equals = part.indexOf('=');
    const name = part.slice(0, equals).trim();
    if (equals < 1 || Object.hasOwn(spec, name)) {
      throw new TypeError(
        `'${part}' in '${text}': ${equals < 1 ? 'name=value is wanted' : `${name} is there twice`}`,
      );
    }
    spec[name] =
      name === 'at'
        ? part
            .slice(equals + 1)
            .split('+')
            .map(typed)
        : typed(part.slice(equals + 1));
  }
  return spec;
}

function typed(text: string): string | number {
  const trimmed = text.trim();
  return NUMBER.test(trimmed) && !LONG_HEX.test(trimmed) ? Number(trimmed) : trimmed;
}
