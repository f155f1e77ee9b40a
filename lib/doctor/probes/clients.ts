/** More than one client, and clients that disconnect. */
import { Command } from '../../protocol/constants.js';
import { versionPayload } from '../raw-messages.js';
import { VERSION_DATA, type Probe } from '../probe.js';
import { describeAnswer, isGood } from '../raw-connection.js';

/** A second client while the first is served. It may have to wait: servers promise to serve one client. */
const second: Probe = {
  name: 'second-client',
  harm: 'server',
  rules: [],
  survival: 'robust.second-client',
  async run(context, first) {
    const connection = await context.open();
    const payload = versionPayload(0, 2, VERSION_DATA);
    const waitMs = context.timeoutMs / 4;
    const answer = await connection.ask(Command.VERSION, payload, { waitMs });
    const isServed = await context.isInSync(first);
    const outcome = isGood(answer)
      ? 'served as well'
      : answer.kind === 'silence'
        ? 'connects, and VERSION is not answered'
        : describeAnswer(answer);
    const value = `${outcome}; the first one is ${isServed ? 'still served' : 'lost'}`;
    context.trait('clients.second', 'A second client while the first is served', value);
    connection.close();
    first.close();
  },
};

const connectAndClose: Probe = {
  name: 'connect-close',
  harm: 'server',
  rules: [],
  survival: 'robust.connect-close',
  beforeVersion: true,
  async run(_context, connection) {
    connection.event('the connection is closed, nothing was sent');
    connection.close();
  },
};

export const clientProbes: readonly Probe[] = [connectAndClose, second];
