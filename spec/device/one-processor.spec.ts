/** A client that shares one processor with its server: each look at the socket would be time that the server needs. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { canPreload, compilePreload } from '../support/preload.js';
import { built, outcomeOf, runScript, startScript } from '../lifecycle/child.js';

/** Processors that this process may run on, as taskset names them. */
const allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))![1]!;
const here = /(\d+)$/.exec(allowed)![1]!;
const elsewhere = /^(\d+)/.exec(allowed)![1]!;
const canBind = spawnSync('taskset', ['-c', here, 'true']).status === 0;

/** The script's thread runs there alone. */
const bindTo = (processors: string) => `
  execFileSync('taskset', ['-p', '-c', '${processors}', String(process.pid)]);
`;
const BIND = `
  import { execFileSync } from 'node:child_process';
  ${bindTo(here)}
`;
const SERVER = `${BIND}
  import { serve } from '${built('emulator/index.js')}';
  await serve(new RamDevice(), { path: process.argv[1] });
  process.stdout.write('listening');
`;
const READS = 10_000;
const client = (bind: string, thenBind = '') => `${bind}
  const device = await connect(process.argv[1], JSON.parse(process.argv[2]));
  ${thenBind}
  const region = device.bar(0);
  const looks = () => Number(fs.readFileSync(process.env.VFIO_USER_LOOKS).readBigUInt64LE());
  const read = () => {
    const before = looks();
    for (let i = 0; i < ${READS}; i++) if (region.readUInt32Sync(8) !== 4) throw new Error('wrong');
    return looks() - before;
  };
  // What waits cost is learned first.
  read();
  report(read());
  await device.close();
  process.exit(0);
`;

let scratch: string;
let preload = '';
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  if (canPreload) preload = compilePreload('looks', scratch);
});
afterEach(() => rmSync(scratch, { recursive: true }));

/** What the script reports that runs while the server does. */
async function run(script: string, options: object): Promise<unknown[]> {
  const socket = join(scratch, 's');
  const server = startScript(SERVER, { args: [socket] });
  const ended = outcomeOf(server);
  await once(server.stdout!, 'data');
  try {
    const { status, reports, stderr } = await runScript(script, {
      args: [socket, JSON.stringify(options)],
      preload,
      env: { VFIO_USER_LOOKS: join(scratch, 'looks') },
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    return reports;
  } finally {
    server.kill();
    await ended;
  }
}

(canBind && canPreload ? test : test.skip).each([
  ['both on one processor', client(BIND), {}, true],
  ['told to spin', client(BIND), { spinUs: 50 }, true],
  ['on one processor only later', client('', BIND), {}, false],
])(
  'does not look while the server answers: %s (needs a C compiler, taskset, no sanitizer)',
  async (_, script, options, isKnown) => {
    const [looks] = await run(script, options);
    if (isKnown) expect(looks).toBe(0);
    // Now and then it is tried whether looking pays.
    else expect(looks).toBeLessThan(READS);
  },
  60_000,
);

(canBind && here !== elsewhere ? test : test.skip)(
  'a socket knows of it (needs taskset and two processors)',
  async () => {
    const script = `
      import { execFileSync } from 'node:child_process';
      const socket = new (native().Socket)(native().connectUnix(process.argv[1]), () => {});
      const shares = [socket.sharesProcessor()];
      ${bindTo(elsewhere)}
      shares.push(socket.sharesProcessor());
      ${bindTo(here)}
      shares.push(socket.sharesProcessor());
      socket.close();
      shares.push(socket.sharesProcessor());
      report(shares);
      process.exit(0);
    `;
    expect(await run(script, {})).toEqual([[false, false, true, false]]);
  },
  60_000,
);
