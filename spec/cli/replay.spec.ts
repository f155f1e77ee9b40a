import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { connect } from '../../lib/index.js';
import { outcomeOf, Scratch, start, vfioUser, type Outcome } from './cli.js';

const GPIO = fileURLToPath(new URL('../fixtures/gpio.pcapng', import.meta.url));

let scratch: Scratch;
let socket: string;

beforeEach(() => {
  scratch = new Scratch();
  socket = scratch.path('gpio.sock');
});

afterEach(() => scratch.remove());

/** Replays the fixture to a client that reads `width` bytes of BAR2. */
async function outcome(width: 1 | 2, ...args: string[]): Promise<Outcome> {
  const name = 'its INTx eventfd fires at every third read';
  const child = start(['replay', GPIO, '--connection', name, '--socket', socket, ...args]);
  const ended = outcomeOf(child);
  await once(child.stdout!, 'data');
  const device = await connect(socket, { timeoutMs: 20_000 });
  await device.irqs.intx.enable(1);
  const bar = device.bar(2);
  await (width === 1 ? bar.readUInt8(0) : bar.readUInt16(0)).catch(() => undefined);
  await device.close();
  return ended;
}

describe('vfio-user replay', () => {
  test('serves a capture to one client, and says how it went', async () => {
    const { status, stdout, stderr } = await outcome(1);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(
      /^listening on .*\nincomplete: \d+ of \d+ recorded requests were played\n\d+ are left, the next is message \d+: REGION_READ offset=0x0 region=2 count=1\n$/,
    );
    expect(existsSync(socket)).toBe(false);
  });

  test('fails where all of it was wanted', async () => {
    const { status, stderr } = await outcome(1, '--complete');
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /^vfio-user: the client did \d+ of \d+ recorded requests \[ERR_VFIO_USER_REPLAY\]\n$/,
    );
  });

  test('fails where the client does something else, and prints the fields', async () => {
    const { status, stdout, stderr } = await outcome(2);
    expect(status).toBe(1);
    expect(stdout).toContain('\n  count: recorded 1, received 2\n');
    expect(stderr).toMatch(
      /^vfio-user: the client left the recording at message \d+ \[ERR_VFIO_USER_REPLAY\]\n$/,
    );
  });

  test('prints JSON', async () => {
    const { stdout } = await outcome(2, '--json');
    expect(JSON.parse(stdout.split('\n')[1]!)).toMatchObject({
      outcome: 'different',
      differences: [{ kind: 'changed', fields: [{ field: 'count', expected: '1', received: '2' }] }],
    });
  });

  test('refuses what it cannot play', async () => {
    const wrong: [string[], number, string][] = [
      [[GPIO], 2, "required option '--socket"],
      [[GPIO, '--socket', socket, '--connection', '99'], 2, 'the capture has no connection 99'],
      [[GPIO, '--socket', socket, '--ignore', 'nothing'], 2, "'nothing' names no field"],
      [[GPIO, '--socket', socket, '--errno', 'EWHAT'], 2, 'the name of an errno'],
      [[GPIO, '--socket', socket, '--repeat-last'], 2, "mode 'matching'"],
      [[fileURLToPath(import.meta.url), '--socket', socket], 1, 'not a pcapng file'],
      [[scratch.path('none'), '--socket', socket], 1, 'ENOENT'],
    ];
    for (const [args, wanted, words] of wrong) {
      const { status, stderr } = await vfioUser('replay', ...args);
      expect([status, stderr]).toEqual([wanted, expect.stringContaining(words)]);
    }
  });
});
