/** Messages in pieces, in bunches, and with headers that nobody should send. */
import {
  Command,
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
  HEADER_SIZE,
  PciRegion,
} from '../../protocol/constants.js';
import { GET_INFO, message, regionAccess, words } from '../raw-messages.js';
import type { Examination, Probe } from '../probe.js';
import type { RuleId } from '../rules.js';
import { inWords, isGood, type Answer, type RawConnection } from '../raw-connection.js';

/** Commands sent at once: servers stall at some 350 that nobody reads the replies of. */
const BURST = 64;
const UNREAD = 1000;
/** Between the pieces of a message: longer than a server needs to read the first. */
const GAP_MS = 60;
const HOSTILE_ID = 0x7777;
/** Sockets that take nothing for so long take nothing more. */
const STALLED_MS = 250;

const pipelined: Probe = {
  name: 'pipelined',
  harm: 'none',
  rules: ['order.pipelined'],
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const ids = Array.from({ length: BURST }, () => connection.nextId());
    for (const id of ids) connection.expect(id, Command.DEVICE_GET_INFO);
    const burst = ids.map((id) => message({ id, command: Command.DEVICE_GET_INFO }, GET_INFO));
    for (const bytes of burst) if (!(await connection.send(bytes))) break;
    const came: number[] = [];
    for (let i = 0; i < BURST; i++) {
      const answer = await connection.answer();
      if (answer.kind !== 'reply') break;
      came.push(answer.id);
    }
    const isKept = came.length === BURST && came.every((id, i) => id === ids[i]);
    if (came.length < BURST) examination.facts.inFlight = 1;
    const order =
      came.length === BURST
        ? 'all were answered, in another order'
        : `${came.length} of ${BURST} were answered`;
    const detail = isKept ? `${BURST} commands at once, answered in their order` : order;
    examination.check('order.pipelined', isKept, detail, connection.since(mark));
  },
};

/** How many commands a server takes whose replies nobody reads. */
const unread: Probe = {
  name: 'unread',
  harm: 'connection',
  rules: [],
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    connection.setReading(false);
    let sent = 0;
    let quietSince = performance.now();
    while (sent < UNREAD && performance.now() - quietSince < STALLED_MS && connection.leftMs > STALLED_MS) {
      const bytes = message({ id: sent, command: Command.DEVICE_GET_INFO }, GET_INFO);
      connection.expect(sent, Command.DEVICE_GET_INFO);
      if (connection.sendNow(bytes) === bytes.byteLength) {
        sent++;
        quietSince = performance.now();
      } else await new Promise((resolve) => setTimeout(resolve, 5));
    }
    connection.event(`${sent} commands were sent before any reply was read`);
    connection.setReading(true);
    let came = 0;
    while (came < sent && (await connection.answer(undefined, STALLED_MS)).kind === 'reply') came++;
    if (sent < UNREAD) examination.facts.unreadLimit = sent;
    const value = `${sent < UNREAD ? `stalls after ${sent}` : `takes ${sent}`}; ${came} were answered once replies were read`;
    examination.trait(
      'flow.unread',
      'Commands sent without reading replies',
      value,
      connection.since(mark, 3),
    );
  },
};

const sameId: Probe = {
  name: 'same-id',
  harm: 'none',
  rules: ['header.id-reuse'],
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const id = connection.nextId();
    connection.expect(id, Command.DEVICE_GET_INFO);
    const bytes = message({ id, command: Command.DEVICE_GET_INFO }, GET_INFO);
    await connection.send(bytes);
    await connection.send(bytes);
    const answers = [await connection.answer(id), await connection.answer(id, examination.timeoutMs / 2)];
    const isKept = answers.every(isGood);
    examination.check('header.id-reuse', isKept, answers.map(inWords).join('; '), connection.since(mark));
  },
};

const glued: Probe = {
  name: 'glued',
  harm: 'none',
  rules: ['stream.glued'],
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const ids = [connection.nextId(), connection.nextId()];
    for (const id of ids) connection.expect(id, Command.DEVICE_GET_INFO);
    const both = ids.map((id) => message({ id, command: Command.DEVICE_GET_INFO }, GET_INFO));
    await connection.send(Buffer.concat(both));
    const answers: Answer[] = [];
    for (const id of ids) answers.push(await connection.answer(id));
    examination.check(
      'stream.glued',
      answers.every(isGood),
      answers.map(inWords).join('; '),
      connection.since(mark),
    );
  },
};

/** A command that wants no reply, then one that does: only the second may be answered. */
function posted(name: string, rule: RuleId, command: number, payload: Buffer): Probe {
  return {
    name,
    harm: 'connection',
    rules: [rule],
    async run(examination) {
      const connection = await examination.session();
      const mark = connection.mark();
      const id = connection.nextId();
      connection.expect(id, command);
      await connection.send(message({ id, command, flags: HEADER_FLAG_NO_REPLY }, payload));
      const next = await connection.ask(Command.DEVICE_GET_INFO, GET_INFO);
      const extra = await connection.answer(id, 1);
      const said =
        extra.kind === 'reply' ? `a reply came: ${inWords(extra)}` : 'only the command after it was answered';
      const detail = isGood(next) ? said : `the command after it: ${inWords(next)}`;
      examination.check(rule, isGood(next) && extra.kind !== 'reply', detail, connection.since(mark));
    },
  };
}

/** One sound command in two pieces, cut at `cut`. */
function split(name: string, rule: RuleId, cut: number): Probe {
  return {
    name,
    harm: 'connection',
    rules: [rule],
    async run(examination) {
      const connection = await examination.session();
      const mark = connection.mark();
      const id = connection.nextId();
      connection.expect(id, Command.DEVICE_GET_INFO);
      const bytes = message({ id, command: Command.DEVICE_GET_INFO }, GET_INFO);
      await connection.send(bytes.subarray(0, cut));
      await connection.sleep(GAP_MS);
      await connection.send(bytes.subarray(cut));
      const answer = await connection.answer(id, examination.timeoutMs / 2);
      const isKept = isGood(answer) && (await examination.isInStep(connection));
      const detail = isKept
        ? `cut after ${cut} bytes, and answered`
        : `cut after ${cut} bytes: ${inWords(answer)}`;
      examination.check(rule, isKept, detail, connection.since(mark));
    },
  };
}

/** The connection is closed in the middle of a message. */
function cutOff(name: string, survival: RuleId, cut: number): Probe {
  return {
    name,
    harm: 'server',
    rules: [],
    survival,
    async run(examination) {
      const connection = await examination.session();
      const id = connection.nextId();
      connection.expect(id, Command.DEVICE_GET_INFO);
      const bytes = message({ id, command: Command.DEVICE_GET_INFO }, GET_INFO);
      await connection.send(bytes.subarray(0, cut));
      await connection.sleep(GAP_MS);
      connection.event('the connection is closed');
      connection.close();
    },
  };
}

/** Bytes that no client should send, on a negotiated connection. */
function hostile(name: string, survival: RuleId, title: string, bytes: () => Buffer): Probe {
  return {
    name,
    harm: 'server',
    rules: [],
    survival,
    async run(examination) {
      const connection = await examination.session();
      const mark = connection.mark();
      connection.expect(HOSTILE_ID, Command.DEVICE_GET_INFO);
      await connection.send(bytes());
      const answer = await connection.answer(undefined, examination.timeoutMs / 3);
      const inStep = await examination.isInStep(connection);
      const after = inStep ? 'then in step' : 'then no longer in step';
      examination.trait(`hostile.${name}`, title, `${inWords(answer)}; ${after}`, connection.since(mark));
    },
  };
}

const oddFlags: Probe = {
  name: 'odd-flags',
  harm: 'connection',
  rules: [],
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const flags = 0x8000_0040;
    const answer = await connection.ask(Command.DEVICE_GET_INFO, GET_INFO, { flags, errno: 7 });
    examination.trait(
      'header.odd-flags',
      'Undefined flags and an errno in a command',
      inWords(answer),
      connection.since(mark),
    );
  },
};

const reserved: Probe = {
  name: 'reserved-fields',
  harm: 'connection',
  rules: [],
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const payload = words(4096, 0xffff_ffff, PciRegion.CONFIG, 0xffff_ffff, 0xffff_ffff_ffff_ffffn, 1n);
    const answer = await connection.ask(Command.DEVICE_GET_REGION_INFO, payload);
    const title = 'Fields of GET_REGION_INFO that must be zero, and are not';
    examination.trait(
      'request.reserved',
      title,
      isGood(answer) ? 'ignored' : inWords(answer),
      connection.since(mark),
    );
  },
};

const shortBody: Probe = {
  name: 'short-body',
  harm: 'connection',
  rules: ['size.short'],
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const answer = await connection.ask(Command.DEVICE_GET_INFO, GET_INFO.subarray(0, 8));
    await judgeStep(
      examination,
      connection,
      'size.short',
      answer,
      !isGood(answer) && answer.kind === 'reply',
      mark,
    );
  },
};

const longBody: Probe = {
  name: 'long-body',
  harm: 'connection',
  rules: ['size.long'],
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const answer = await connection.ask(
      Command.DEVICE_GET_INFO,
      Buffer.concat([GET_INFO, Buffer.alloc(8, 0xa5)]),
    );
    await judgeStep(examination, connection, 'size.long', answer, answer.kind === 'reply', mark);
  },
};

/** Kept where the answer is as it should be and the next command is understood. */
async function judgeStep(
  examination: Examination,
  connection: RawConnection,
  rule: RuleId,
  answer: Answer,
  isRight: boolean,
  mark: number,
): Promise<void> {
  const inStep = await examination.isInStep(connection);
  const detail = `${inWords(answer)}; ${inStep ? 'then in step' : 'then no longer in step'}`;
  examination.check(rule, isRight && inStep, detail, connection.since(mark));
}

const INFO = Command.DEVICE_GET_INFO;

export const framingProbes: readonly Probe[] = [
  pipelined,
  sameId,
  glued,
  posted('no-reply', 'header.no-reply', Command.DEVICE_GET_INFO, GET_INFO),
  // A region that no device has.
  posted('no-reply-error', 'header.no-reply-error', Command.REGION_READ, regionAccess(0xffff, 0, 4)),
  unread,
  oddFlags,
  reserved,
  shortBody,
  longBody,
  split('split-body', 'stream.split-body', HEADER_SIZE + 6),
  split('split-header', 'stream.split-header', 7),
  cutOff('eof-in-header', 'robust.eof-in-header', 7),
  cutOff('eof-in-body', 'robust.eof-in-body', HEADER_SIZE + 6),
  hostile('stray-reply', 'robust.stray-reply', 'A reply that the server did not wait for', () =>
    message({ id: HOSTILE_ID, command: INFO, flags: HEADER_FLAG_REPLY }, GET_INFO),
  ),
  hostile('bad-type', 'robust.bad-type', 'A message of type 7', () =>
    message({ id: HOSTILE_ID, command: INFO, flags: 7 }, GET_INFO),
  ),
  hostile('undersized', 'robust.undersized', 'A header that says 3 bytes', () =>
    message({ id: HOSTILE_ID, command: INFO, size: 3 }),
  ),
  hostile('oversized', 'robust.oversized', 'A header that says 4 GiB', () =>
    message({ id: HOSTILE_ID, command: INFO, size: 0xffff_fff0 }, GET_INFO),
  ),
];
