/** More than one client, and clients that go. */
import { Command } from '../../protocol/constants.js';
import { versionPayload } from '../bytes.js';
import { OUR_CAPABILITIES, type Probe } from '../probe.js';
import { inWords, isGood } from '../wire.js';

const SOUND = `{"capabilities":{${OUR_CAPABILITIES}}}\0`;

/** A second client while the first is served. What it waits for is not what it is owed: one client is all that is promised. */
const second: Probe = {
  name: 'second-client',
  harm: 'server',
  rules: [],
  survival: 'robust.second-client',
  async run(examination) {
    const first = await examination.session();
    const wire = await examination.open();
    const answer = await wire.ask(Command.VERSION, versionPayload(0, 2, SOUND), {
      waitMs: examination.timeoutMs / 4,
    });
    const stillServed = await examination.isInStep(first);
    const outcome = answer.kind === 'silence' ? 'connects, and VERSION is not answered' : inWords(answer);
    const value = `${isGood(answer) ? 'served as well' : outcome}; the first one is ${stillServed ? 'still served' : 'lost'}`;
    examination.trait('clients.second', 'A second client while the first is served', value, wire.since(0));
    wire.close();
    first.close();
  },
};

const connectAndGo: Probe = {
  name: 'connect-close',
  harm: 'server',
  rules: [],
  survival: 'robust.connect-close',
  async run(examination) {
    const wire = await examination.open();
    wire.event('the connection is closed without a word');
    wire.close();
  },
};

export const clientProbes: readonly Probe[] = [connectAndGo, second];
