/** More than one client, and clients that go. */
import { Command } from '../../protocol/constants.js';
import { versionPayload } from '../raw-messages.js';
import { OUR_CAPABILITIES, type Probe } from '../probe.js';
import { inWords, isGood } from '../raw-connection.js';

const SOUND = `{"capabilities":{${OUR_CAPABILITIES}}}\0`;

/** A second client while the first is served. What it waits for is not what it is owed: one client is all that is promised. */
const second: Probe = {
  name: 'second-client',
  harm: 'server',
  rules: [],
  survival: 'robust.second-client',
  async run(examination) {
    const first = await examination.session();
    const connection = await examination.open();
    const answer = await connection.ask(Command.VERSION, versionPayload(0, 2, SOUND), {
      waitMs: examination.timeoutMs / 4,
    });
    const stillServed = await examination.isInStep(first);
    const outcome = answer.kind === 'silence' ? 'connects, and VERSION is not answered' : inWords(answer);
    const value = `${isGood(answer) ? 'served as well' : outcome}; the first one is ${stillServed ? 'still served' : 'lost'}`;
    examination.trait(
      'clients.second',
      'A second client while the first is served',
      value,
      connection.since(0),
    );
    connection.close();
    first.close();
  },
};

const connectAndGo: Probe = {
  name: 'connect-close',
  harm: 'server',
  rules: [],
  survival: 'robust.connect-close',
  async run(examination) {
    const connection = await examination.open();
    connection.event('the connection is closed without a word');
    connection.close();
  },
};

export const clientProbes: readonly Probe[] = [connectAndGo, second];
