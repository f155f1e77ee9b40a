/** VERSION, as it should be and as it should not. */
import { Command } from '../../protocol/constants.js';
import { GET_INFO, versionPayload } from '../raw-messages.js';
import { OUR_CAPABILITIES, VERSION_DATA, type Probe } from '../probe.js';
import type { RuleId } from '../rules.js';
import { describeAnswer, isError, isGood, type Answer } from '../raw-connection.js';

/** Each proposal needs a connection of its own, so each is a probe. */
function proposesMinor(minor: number): Probe {
  return {
    name: `minor-${minor}`,
    harm: 'none',
    rules: ['version.minor'],
    beforeVersion: true,
    async run(context, connection) {
      const { payload } = await context.negotiate(connection, VERSION_DATA, minor);
      const answered = payload.readUInt16LE(2);
      const detail = `0.${minor} was proposed, 0.${answered} answered`;
      context.check('version.minor', answered <= minor, detail);
    },
  };
}

const unknownCapability: Probe = {
  name: 'unknown-capability',
  harm: 'none',
  rules: ['version.unknown-capability'],
  beforeVersion: true,
  async run(context, connection) {
    const data = `{"doctor":[1,null],"capabilities":{${OUR_CAPABILITIES},"x_doctor":{"a":[true]}}}\0`;
    const answer = await connection.ask(Command.VERSION, versionPayload(0, 2, data));
    const isKept = isGood(answer) && !answer.payload.includes('x_doctor');
    context.check('version.unknown-capability', isKept, isKept ? 'it is ignored' : describeAnswer(answer));
  },
};

const withoutData: Probe = {
  name: 'no-version-data',
  harm: 'server',
  rules: ['version.optional-data'],
  survival: 'robust.no-version-data',
  beforeVersion: true,
  async run(context, connection) {
    const answer = await connection.ask(Command.VERSION, versionPayload(0, 1, ''));
    context.check('version.optional-data', isGood(answer), describeAnswer(answer));
  },
};

/** Version data that a client should not send; the specification does not say what the answer is. */
function oddData(name: string, trait: string, title: string, data: string, survival?: RuleId): Probe {
  return {
    name,
    harm: 'server',
    rules: [],
    ...(survival !== undefined && { survival }),
    beforeVersion: true,
    async run(context, connection) {
      const answer = await connection.ask(Command.VERSION, versionPayload(0, 1, data));
      context.trait(trait, title, isGood(answer) ? 'accepted' : describeAnswer(answer));
    },
  };
}

const badMajor: Probe = {
  name: 'bad-major',
  harm: 'server',
  rules: ['version.bad-major'],
  survival: 'robust.bad-major',
  beforeVersion: true,
  async run(context, connection) {
    const answer = await connection.ask(Command.VERSION, versionPayload(0x7fff, 0, VERSION_DATA));
    if (isGood(answer)) {
      const major = answer.payload.length >= 2 ? answer.payload.readUInt16LE(0) : 'nothing';
      context.judge('version.bad-major', 'broken', `32767 was proposed, ${major} answered`);
    } else if (answer.kind === 'silence') {
      context.judge('version.bad-major', 'broken', describeAnswer(answer));
    } else {
      let detail = describeAnswer(answer);
      if (isError(answer)) {
        const next = await connection.answer(undefined, context.timeoutMs / 4);
        if (next.kind === 'ended') detail += ', then the connection ended';
      }
      context.judge('version.bad-major', 'kept', detail);
    }
  },
};

const noVersion: Probe = {
  name: 'no-version',
  harm: 'server',
  rules: ['version.first'],
  survival: 'robust.no-version',
  beforeVersion: true,
  async run(context, connection) {
    const answer: Answer = await connection.ask(Command.DEVICE_GET_INFO, GET_INFO);
    context.check('version.first', !isGood(answer), describeAnswer(answer));
  },
};

const twice: Probe = {
  name: 'version-twice',
  harm: 'server',
  rules: ['version.once'],
  survival: 'robust.version-twice',
  async run(context, connection) {
    const answer = await connection.ask(Command.VERSION, versionPayload(0, 2, VERSION_DATA));
    const { isInSync, detail } = await context.followUp(connection, answer);
    context.check('version.once', isInSync, detail);
  },
};

export const handshakeProbes: readonly Probe[] = [
  proposesMinor(2),
  proposesMinor(1),
  proposesMinor(0),
  unknownCapability,
  twice,
  oddData('no-nul', 'version.no-nul', 'Version data without its NUL', VERSION_DATA.slice(0, -1)),
  oddData(
    'many-fds',
    'version.max-msg-fds',
    'A max_msg_fds of 2,000',
    '{"capabilities":{"max_msg_fds":2000}}\0',
    'robust.many-fds',
  ),
  withoutData,
  oddData(
    'bad-json',
    'version.bad-json',
    'Version data that is not JSON',
    '{"capabilities":[\0',
    'robust.bad-json',
  ),
  noVersion,
  badMajor,
];
