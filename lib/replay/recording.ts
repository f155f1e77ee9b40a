/** Captures as recordings: all their messages, sorted by the connections that they went over. */
import { Command, HEADER_FLAG_REPLY, HEADER_FLAG_TYPE_MASK, HEADER_SIZE } from '../protocol/constants.js';
import { headerCommand, headerFlags } from '../protocol/header.js';
import { CaptureError, CaptureReader, isMessage } from '../trace/index.js';
import { exchangesOf, type Exchange, type NumberedEvent } from './exchange.js';
import { captureLimits } from './capture-limits.js';

/** A connection of a recording. */
export interface Recording {
  /** The name of its socket in the capture. */
  name: string;
  exchanges: readonly Exchange[];
  /** What a capture cannot hold and this connection had: shared memory, interrupts that nobody wrote down. */
  limits: readonly string[];
}

/** What is held in memory; longer recordings are no tests. */
const MAX_BYTES = 1 << 30;
/** How the library and the proxy name the second socket of a connection. */
const TWIN = ' (twin)';

/** The events of one connection, in order. */
interface Lane {
  name: string;
  events: NumberedEvent[];
}

/**
 * Reads the capture `files`, parts of one recording in their order, and picks a connection: by its number, from 1, or
 * by the name of its socket.
 * @throws CaptureError for what is no capture, was cut, or makes no sense; RangeError for a connection that it does not
 * have; what reading files throws.
 */
export async function readRecording(
  files: readonly string[],
  connection: number | string,
): Promise<Recording> {
  const lanes = lanesOf(await readEvents(files));
  if (lanes.length === 0) throw new CaptureError('there are no messages in the capture');
  const lane =
    typeof connection === 'number' ? lanes[connection - 1] : lanes.find(({ name }) => name === connection);
  if (lane === undefined) {
    const names = lanes.map(({ name }, i) => `${i + 1} ${name}`).join(', ');
    throw new RangeError(`the capture has no connection ${connection}; it has ${names}`);
  }
  checkBeginning(lane);
  const exchanges = exchangesOf(lane.events);
  return { name: lane.name, exchanges, limits: captureLimits(exchanges) };
}

async function readEvents(files: readonly string[]): Promise<NumberedEvent[]> {
  const events: NumberedEvent[] = [];
  let bytes = 0;
  for (const file of files) {
    const reader = new CaptureReader(file);
    for await (const event of reader.events()) {
      bytes += isMessage(event) ? event.bytes.length : 0;
      if (bytes > MAX_BYTES) {
        throw new CaptureError(`the messages of the capture have more than ${MAX_BYTES} bytes`);
      }
      events.push({ number: events.length + 1, event, isTwin: event.socket.endsWith(TWIN) });
    }
    if (reader.cutBytes > 0) {
      throw new CaptureError(`${file} was cut: its last ${reader.cutBytes} bytes are not a whole block`);
    }
  }
  return events;
}

/** A VERSION begins a connection on its socket; a twin socket belongs to the one that it is named after. */
function lanesOf(events: readonly NumberedEvent[]): Lane[] {
  const lanes: Lane[] = [];
  const current = new Map<string, Lane>();
  for (const numbered of events) {
    const { socket } = numbered.event;
    const name = numbered.isTwin ? socket.slice(0, -TWIN.length) : socket;
    let lane = current.get(name);
    if (lane === undefined || isBeginning(numbered)) {
      lane = { name, events: [] };
      lanes.push(lane);
      current.set(name, lane);
    }
    lane.events.push(numbered);
  }
  return lanes;
}

function isBeginning({ event, isTwin }: NumberedEvent): boolean {
  if (!isMessage(event) || isTwin || event.bytes.length < HEADER_SIZE) return false;
  const isReply = (headerFlags(event.bytes, 0) & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_REPLY;
  return headerCommand(event.bytes, 0) === Command.VERSION && !isReply;
}

function checkBeginning({ name, events }: Lane): void {
  const [first] = events;
  if (isBeginning(first!)) return;
  throw new CaptureError(
    `the connection on ${name} begins with message ${first!.number}, which is no VERSION request: the capture begins ` +
      'in its middle. Of a capture that was rotated all files are needed, the oldest first',
  );
}
