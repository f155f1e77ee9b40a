/** Clients that have shut their reading down, shutdown(SHUT_RD), and go on sending. Needs perl: Node has no such call. */
import { describe, expect, jest, test } from '@jest/globals';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { performance } from 'node:perf_hooks';
import * as w from '../../support/wire.js';
import { LONG_READ } from './recording.js';
import {
  ALL_SERVERS,
  cleanup,
  expectNeighboursServed,
  keepPromises,
  pathOf,
  turn,
  whyItEnded,
  type Where,
} from './session.js';

jest.setTimeout(60_000);
keepPromises();

const hasPerl = spawnSync('perl', ['-MSocket', '-e', '1']).status === 0;
const CLIENT = `
  socket(S, AF_UNIX, SOCK_STREAM, 0) && connect(S, sockaddr_un($ARGV[0])) && shutdown(S, 0) or die $!;
  $| = 1;
  $SIG{PIPE} = 'IGNORE';
  print 'connected';
  while (sysread(STDIN, $bytes, 65536)) { syswrite(S, $bytes) or last }
  print 'ended';
`;

/** Sends what is written to its stdin. */
async function deaf(where: Where): Promise<ChildProcess> {
  const child = spawn('perl', ['-MSocket', '-e', CLIENT, pathOf(where)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.on('error', () => undefined);
  cleanup(async () => {
    const isGone = child.exitCode !== null || child.signalCode !== null;
    const gone = isGone ? undefined : once(child, 'exit');
    child.kill();
    await gone;
  });
  await once(child.stdout, 'data');
  return child;
}

(hasPerl ? describe : describe.skip).each(ALL_SERVERS)('at the %s (needs perl)', (where) => {
  test('one that waits for nothing does not keep the event loop busy', async () => {
    const { stdin } = await deaf(where);
    stdin!.write(Buffer.concat([w.versionRequest(), LONG_READ, LONG_READ, LONG_READ]));
    // Over what it takes to answer them.
    await turn(100);
    const before = performance.eventLoopUtilization();
    await turn(500);
    // A loop that turns without a pause is at 1.
    expect(performance.eventLoopUtilization(before).utilization).toBeLessThan(0.7);
    await expectNeighboursServed();
  });

  const endsIt = where === 'proxy' ? 'is read, and the server does not hear of it' : 'is ended';
  test(`one that asks without end ${endsIt}`, async () => {
    const child = await deaf(where);
    const said = once(child.stdout!, 'data');
    child.stdin!.write(w.versionRequest());
    const some = Buffer.concat(Array<Buffer>(100).fill(LONG_READ));
    for (let i = 0; i < 100; i++) {
      if (child.stdin!.writable) child.stdin!.write(some);
      await turn(1);
    }
    await expectNeighboursServed();
    if (where === 'proxy') child.stdin!.end();
    else await whyItEnded();
    child.stdin!.end(LONG_READ);
    expect(String(await said)).toBe('ended');
  });
});
