/** `vfio-user rpc`: a device for programs in other languages, as JSON lines on stdin and stdout. */
import type { Command } from 'commander';
import { openDevice } from '../global-options.js';
import { print } from '../output.js';
import { loadPlacement, MAP_DESCRIPTION, MAP_FLAGS, mapOption, type MapOption } from '../register-map.js';
import { boundedLines } from '../rpc/lines.js';
import { MOST_PENDING, RpcSession } from '../rpc/session.js';
import { onStop } from '../stop-signals.js';

interface RpcOptions {
  map?: MapOption;
}

const HELP = `
Each line of stdin is a request, { "id": 1, "method": "read", "params": { "region": "bar0", "offset": 0 } }; each line of stdout is the
answer to one, { "id": 1, "result": 16777453 } or { "id": 1, "error": { "code": "ETIMEDOUT", "message": "…" } }. docs/rpc.md has the
methods, and a file for Python with a fixture for pytest.

Ends when stdin has ended and all is answered, or after close.

Examples:
  $ vfio-user rpc /run/dev.sock --map dma.svd
  {"id":1,"method":"open"}
  {"id":2,"method":"write","params":{"register":"CTRL.START","value":1}}
  {"id":3,"method":"irqWait","params":{"type":"msix","vector":0,"timeoutMs":100}}`;

export function registerRpc(program: Command): void {
  program
    .command('rpc')
    .description('drive a device from another language: JSON lines on stdin and stdout')
    .argument('<SOCKET>', 'where the server listens')
    .option(MAP_FLAGS, MAP_DESCRIPTION, mapOption)
    .addHelpText('after', HELP)
    .action(async (socket: string, { map }: RpcOptions, command: Command) => {
      const placement = map === undefined ? undefined : await loadPlacement(map);
      await talk(new RpcSession(() => openDevice(command, socket), placement));
    });
}

async function talk(session: RpcSession): Promise<void> {
  const pending = new Set<Promise<void>>();
  let stop = (): void => undefined;
  const stopped = new Promise<void>((resolve) => {
    stop = () => {
      resolve();
      process.stdin.destroy();
    };
  });
  const forget = onStop(() => stop());
  try {
    for await (const line of boundedLines(process.stdin)) {
      const done = session.answer(line).then(async (answer) => {
        await print(`${JSON.stringify(answer)}\n`);
        if (session.isClosed) process.stdin.destroy();
      });
      const tracked = done.finally(() => pending.delete(tracked));
      // Said where it is waited for; a reader that has gone ends the loop.
      tracked.catch(() => stop());
      pending.add(tracked);
      if (pending.size >= MOST_PENDING) await Promise.race(pending);
    }
  } catch (error) {
    // A stdin that was ended by a signal, or by whoever read stdout.
    if ((error as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
  } finally {
    // What was asked before the end is answered, within its own deadlines.
    await Promise.race([Promise.allSettled(pending), stopped]);
    forget();
    await session.close();
    await Promise.allSettled(pending);
    process.stdin.destroy();
  }
}
