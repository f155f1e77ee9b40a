/** VERSION in all its shapes. */
import { Command } from '../../protocol/constants.js';
import { GET_INFO, versionPayload } from '../raw-messages.js';
import { OUR_CAPABILITIES, type Probe } from '../probe.js';
import { inWords, isError, isGood, type Answer } from '../raw-connection.js';

const SOUND = `{"capabilities":{${OUR_CAPABILITIES}}}\0`;

/** Each proposal needs a connection of its own, so each is a probe. */
function proposesMinor(minor: number): Probe {
  return {
    name: `minor-${minor}`,
    harm: 'none',
    rules: ['version.minor'],
    async run(examination) {
      const connection = await examination.open();
      const { payload } = await examination.greet(connection, SOUND, minor);
      const answered = payload.readUInt16LE(2);
      const evidence = connection.since(0);
      examination.check(
        'version.minor',
        answered <= minor,
        `0.${minor} was proposed, 0.${answered} answered`,
        evidence,
      );
    },
  };
}

const unknownCapability: Probe = {
  name: 'unknown-capability',
  harm: 'none',
  rules: ['version.unknown-capability'],
  async run(examination) {
    const connection = await examination.open();
    const text = `{"doctor":[1,null],"capabilities":{${OUR_CAPABILITIES},"x_doctor":{"a":[true]}}}\0`;
    const answer = await connection.ask(Command.VERSION, versionPayload(0, 2, text));
    const isKept = isGood(answer) && !answer.payload.includes('x_doctor');
    examination.check(
      'version.unknown-capability',
      isKept,
      isKept ? 'it is ignored' : inWords(answer),
      connection.since(0),
    );
  },
};

const withoutData: Probe = {
  name: 'no-version-data',
  harm: 'server',
  rules: ['version.optional-data'],
  survival: 'robust.no-version-data',
  async run(examination) {
    const connection = await examination.open();
    const answer = await connection.ask(Command.VERSION, versionPayload(0, 1, ''));
    examination.check('version.optional-data', isGood(answer), inWords(answer), connection.since(0));
  },
};

const badJson: Probe = {
  name: 'bad-json',
  harm: 'server',
  rules: [],
  survival: 'robust.bad-json',
  async run(examination) {
    const connection = await examination.open();
    const answer = await connection.ask(Command.VERSION, versionPayload(0, 1, '{"capabilities":[\0'));
    examination.trait(
      'version.bad-json',
      'Version data that is no JSON',
      inWords(answer),
      connection.since(0),
    );
  },
};

const manyFds: Probe = {
  name: 'many-fds',
  harm: 'server',
  rules: [],
  survival: 'robust.many-fds',
  async run(examination) {
    const connection = await examination.open();
    const answer = await connection.ask(
      Command.VERSION,
      versionPayload(0, 1, '{"capabilities":{"max_msg_fds":2000}}\0'),
    );
    examination.trait('version.max-msg-fds', 'A max_msg_fds of 2,000', outcome(answer), connection.since(0));
  },
};

const withoutNul: Probe = {
  name: 'no-nul',
  harm: 'server',
  rules: [],
  async run(examination) {
    const connection = await examination.open();
    const answer = await connection.ask(Command.VERSION, versionPayload(0, 1, SOUND.slice(0, -1)));
    examination.trait('version.no-nul', 'Version data without its NUL', outcome(answer), connection.since(0));
  },
};

const badMajor: Probe = {
  name: 'bad-major',
  harm: 'server',
  rules: ['version.bad-major'],
  survival: 'robust.bad-major',
  async run(examination) {
    const connection = await examination.open();
    const answer = await connection.ask(Command.VERSION, versionPayload(0x7fff, 0, SOUND));
    const evidence = connection.since(0);
    if (isGood(answer)) {
      const major = answer.payload.length >= 2 ? answer.payload.readUInt16LE(0) : undefined;
      const detail = `32767 was proposed, ${major ?? 'nothing'} answered`;
      examination.judge('version.bad-major', 'broken', detail, evidence);
    } else if (answer.kind === 'silence')
      examination.judge('version.bad-major', 'broken', inWords(answer), evidence);
    else {
      const after = isError(answer) ? await connection.answer(undefined, examination.timeoutMs / 4) : answer;
      const detail = `${inWords(answer)}${after.kind === 'ended' && after !== answer ? ', then the end' : ''}`;
      examination.judge('version.bad-major', 'kept', detail, connection.since(0));
    }
  },
};

const noVersion: Probe = {
  name: 'no-version',
  harm: 'server',
  rules: ['version.first'],
  survival: 'robust.no-version',
  async run(examination) {
    const connection = await examination.open();
    const answer = await connection.ask(Command.DEVICE_GET_INFO, GET_INFO);
    examination.check('version.first', !isGood(answer), inWords(answer), connection.since(0));
  },
};

const twice: Probe = {
  name: 'version-twice',
  harm: 'server',
  rules: ['version.once'],
  survival: 'robust.version-twice',
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const answer = await connection.ask(Command.VERSION, versionPayload(0, 2, SOUND));
    const isKept = await examination.isInStep(connection);
    examination.check(
      'version.once',
      isKept,
      `${inWords(answer)}; then ${isKept ? 'in step' : 'lost'}`,
      connection.since(mark),
    );
  },
};

function outcome(answer: Answer): string {
  return isGood(answer) ? 'accepted' : inWords(answer);
}

export const handshakeProbes: readonly Probe[] = [
  proposesMinor(2),
  proposesMinor(1),
  proposesMinor(0),
  unknownCapability,
  twice,
  withoutNul,
  manyFds,
  withoutData,
  badJson,
  noVersion,
  badMajor,
];
