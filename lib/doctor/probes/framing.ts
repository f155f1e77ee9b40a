/** Messages in pieces, in batches, and with invalid headers. */
import {
  Command,
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
  HEADER_SIZE,
  PciRegion,
} from '../../protocol/constants.js';
import { GET_INFO, message, regionAccess, words } from '../raw-messages.js';
import type { Probe } from '../probe.js';
import type { RuleId } from '../rules.js';
import { describeAnswer, isError, isGood, type Answer, type RawConnection } from '../raw-connection.js';

/** Commands sent at once: servers stall at some 350 unread replies. */
const BURST = 64;
const UNREAD = 1000;
/** Between the pieces of a message: longer than a server needs to read the first. */
const GAP_MS = 60;
const HOSTILE_ID = 0x7777;
/** Sockets that take nothing for so long take nothing more. */
const STALLED_MS = 250;
const INFO = Command.DEVICE_GET_INFO;

const pipelined: Probe = {
  name: 'pipelined',
  harm: 'none',
  rules: ['order.pipelined'],
  async run(context, connection) {
    const burst = Array.from({ length: BURST }, () => connection.compose(INFO, GET_INFO));
    for (const { bytes } of burst) if (!(await connection.send(bytes))) break;
    const received: number[] = [];
    for (let i = 0; i < BURST; i++) {
      const answer = await connection.answer();
      if (answer.kind !== 'reply') break;
      received.push(answer.id);
    }
    const isComplete = received.length === BURST;
    const isKept = isComplete && received.every((id, i) => id === burst[i]?.id);
    if (!isComplete) context.facts.inFlight = 1;
    const detail = isKept
      ? `${BURST} commands at once, answered in their order`
      : isComplete
        ? 'all were answered, in another order'
        : `${received.length} of ${BURST} were answered`;
    context.check('order.pipelined', isKept, detail);
  },
};

/** How many commands a server takes while no reply is read. */
const unread: Probe = {
  name: 'unread',
  harm: 'connection',
  rules: [],
  async run(context, connection) {
    connection.setReading(false);
    let sent = 0;
    let stalledSince = performance.now();
    while (sent < UNREAD && performance.now() - stalledSince < STALLED_MS && connection.leftMs > STALLED_MS) {
      const bytes = message({ id: sent, command: INFO }, GET_INFO);
      connection.expect(sent, INFO);
      if (connection.sendNow(bytes) === bytes.byteLength) {
        sent++;
        stalledSince = performance.now();
      } else await new Promise((resolve) => setTimeout(resolve, 5));
    }
    connection.event(`${sent} commands were sent before any reply was read`);
    connection.setReading(true);
    let received = 0;
    while (received < sent && (await connection.answer(undefined, STALLED_MS)).kind === 'reply') received++;
    if (sent < UNREAD) context.facts.unreadLimit = sent;
    const taken = sent < UNREAD ? `stalls after ${sent}` : `takes ${sent}`;
    context.trait(
      'flow.unread',
      'Commands sent without reading replies',
      `${taken}; ${received} were answered once replies were read`,
      connection.evidence(3),
    );
  },
};

const sameId: Probe = {
  name: 'same-id',
  harm: 'none',
  rules: ['header.id-reuse'],
  async run(context, connection) {
    const { id, bytes } = connection.compose(INFO, GET_INFO);
    await connection.send(bytes);
    await connection.send(bytes);
    const answers = [await connection.answer(id), await connection.answer(id, context.timeoutMs / 2)];
    context.check('header.id-reuse', answers.every(isGood), answers.map(describeAnswer).join('; '));
  },
};

const glued: Probe = {
  name: 'glued',
  harm: 'none',
  rules: ['stream.glued'],
  async run(context, connection) {
    const both = [connection.compose(INFO, GET_INFO), connection.compose(INFO, GET_INFO)];
    await connection.send(Buffer.concat(both.map(({ bytes }) => bytes)));
    const answers: Answer[] = [];
    for (const { id } of both) answers.push(await connection.answer(id));
    context.check('stream.glued', answers.every(isGood), answers.map(describeAnswer).join('; '));
  },
};

/** A command that wants no reply, then one that does: only the second may be answered. */
function posted(name: string, rule: RuleId, command: number, payload: Buffer): Probe {
  return {
    name,
    harm: 'connection',
    rules: [rule],
    async run(context, connection) {
      const { id, bytes } = connection.compose(command, payload, { flags: HEADER_FLAG_NO_REPLY });
      await connection.send(bytes);
      const next = await connection.ask(INFO, GET_INFO);
      const reply = await connection.answer(id, 1);
      const isKept = isGood(next) && reply.kind !== 'reply';
      const detail = !isGood(next)
        ? `the command after it: ${describeAnswer(next)}`
        : isKept
          ? 'only the command after it was answered'
          : `a reply came: ${describeAnswer(reply)}`;
      context.check(rule, isKept, detail);
    },
  };
}

/** Sends the first `cut` bytes of a valid command, and waits until the server has read them. */
async function sendPart(connection: RawConnection, cut: number): Promise<{ id: number; rest: Buffer }> {
  const { id, bytes } = connection.compose(INFO, GET_INFO);
  await connection.send(bytes.subarray(0, cut));
  await connection.sleep(GAP_MS);
  return { id, rest: bytes.subarray(cut) };
}

/** One valid command in two pieces, cut at `cut`. */
function split(name: string, rule: RuleId, cut: number): Probe {
  return {
    name,
    harm: 'connection',
    rules: [rule],
    async run(context, connection) {
      const { id, rest } = await sendPart(connection, cut);
      await connection.send(rest);
      const answer = await connection.answer(id, context.timeoutMs / 2);
      const isKept = isGood(answer) && (await context.isInSync(connection));
      const seen = isKept ? ', and answered' : `: ${describeAnswer(answer)}`;
      context.check(rule, isKept, `cut after ${cut} bytes${seen}`);
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
    async run(_context, connection) {
      await sendPart(connection, cut);
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
    async run(context, connection) {
      connection.expect(HOSTILE_ID, INFO);
      await connection.send(bytes());
      const answer = await connection.answer(undefined, context.timeoutMs / 3);
      const { detail } = await context.followUp(connection, answer);
      context.trait(`hostile.${name}`, title, detail);
    },
  };
}

const oddFlags: Probe = {
  name: 'odd-flags',
  harm: 'connection',
  rules: [],
  async run(context, connection) {
    const answer = await connection.ask(INFO, GET_INFO, { flags: 0x8000_0040, errno: 7 });
    context.trait('header.odd-flags', 'Undefined flags and an errno in a command', describeAnswer(answer));
  },
};

const reserved: Probe = {
  name: 'reserved-fields',
  harm: 'connection',
  rules: [],
  async run(context, connection) {
    const payload = words(4096, 0xffff_ffff, PciRegion.CONFIG, 0xffff_ffff, 0xffff_ffff_ffff_ffffn, 1n);
    const answer = await connection.ask(Command.DEVICE_GET_REGION_INFO, payload);
    const title = 'Fields of GET_REGION_INFO that must be zero, and are not';
    context.trait('request.reserved', title, isGood(answer) ? 'ignored' : describeAnswer(answer));
  },
};

/** A command whose payload has another size than its structure. */
function wrongSize(name: string, rule: RuleId, payload: Buffer, isRight: (answer: Answer) => boolean): Probe {
  return {
    name,
    harm: 'connection',
    rules: [rule],
    async run(context, connection) {
      const answer = await connection.ask(INFO, payload);
      const { isInSync, detail } = await context.followUp(connection, answer);
      context.check(rule, isRight(answer) && isInSync, detail);
    },
  };
}

export const framingProbes: readonly Probe[] = [
  pipelined,
  sameId,
  glued,
  posted('no-reply', 'header.no-reply', INFO, GET_INFO),
  // A region that no device has.
  posted('no-reply-error', 'header.no-reply-error', Command.REGION_READ, regionAccess(0xffff, 0, 4)),
  unread,
  oddFlags,
  reserved,
  wrongSize('short-body', 'size.short', GET_INFO.subarray(0, 8), isError),
  wrongSize(
    'long-body',
    'size.long',
    Buffer.concat([GET_INFO, Buffer.alloc(8, 0xa5)]),
    (answer) => answer.kind === 'reply',
  ),
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
  hostile('undersized', 'robust.undersized', 'A header with a size of 3 bytes', () =>
    message({ id: HOSTILE_ID, command: INFO, size: 3 }),
  ),
  hostile('oversized', 'robust.oversized', 'A header with a size of 4 GiB', () =>
    message({ id: HOSTILE_ID, command: INFO, size: 0xffff_fff0 }, GET_INFO),
  ),
];
