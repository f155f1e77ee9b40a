/** `vfio-user migrate`: a device moved to another server; its state, saved and restored. */
import { Option, type Command } from 'commander';
import { withDevice } from '../global-options.js';
import { describeState, moveDevice, restoreState, saveState, type Move, type Save } from '../migrate.js';
import { print } from '../output.js';

const MOVE_HELP = `
SOURCE runs, and is stopped at the end; DESTINATION, the same kind of device, goes on in its place. Where it fails SOURCE
runs on, unless DESTINATION may run. The state is read while SOURCE still runs, where both can do so (pre-copy); a
destination that offers that and refuses it all the same (libvfio-user's sample server does) wants --no-precopy. Memory that
SOURCE writes by DMA is its driver's to move: migrate() of the library does it. A socket called save, restore or state is
meant by its directory: ./save.

Examples:
  $ vfio-user migrate /run/a.sock /run/b.sock
  $ vfio-user migrate /run/a.sock tcp:host:4420 --json`;

const SAVE_HELP = `
The file is opened first. Then the state is read while the device still runs, where it can do so (pre-copy), and the rest
when it is stopped. It stays stopped afterwards: --resume lets it run again. The bytes are the device's own, as they come;
a destination that does not know pre-copy refuses them (libvfio-user's sample server does), and wants --no-precopy. After
a failure the device is where it was, and what was there under the name of FILE, too.

Examples:
  $ vfio-user migrate save /run/a.sock state.bin
  $ vfio-user migrate save /run/a.sock - --resume | zstd > state.zst
  $ set -o pipefail; vfio-user migrate save /run/a.sock - | vfio-user migrate restore /run/b.sock -`;

const RESTORE_HELP = `
The device is stopped meanwhile and runs at the end, unless it is to stay stopped. A state that it rejects leaves it in
STOP or ERROR, as is told then; reset recovers both.

Examples:
  $ vfio-user migrate restore /run/b.sock state.bin
  $ zstd -dc state.zst | vfio-user migrate restore /run/b.sock - --stay-stopped`;

const STATE_HELP = `
Examples:
  $ vfio-user migrate state /run/a.sock`;

interface RestoreOptions {
  stayStopped?: boolean;
}

export function registerMigrate(program: Command): void {
  const migrate = program
    .command('migrate')
    .description('move a running device to another server; save and restore its state');
  migrate
    .command('move', { isDefault: true })
    .description('move a running device to another server; the word may be left out')
    .argument('<SOURCE>', 'where the server of the device listens')
    .argument('<DESTINATION>', 'where the server listens that it goes to')
    .option('--no-precopy', 'do not read state while the device still runs')
    .option('--stay-stopped', 'leave the device stopped at the destination')
    .option('--json', 'print what it took as JSON')
    .addHelpText('after', MOVE_HELP)
    .action(move);
  migrate
    .command('save')
    .description('read the state of a device into a file')
    .argument('<SOCKET>', 'where the server listens')
    .argument('<FILE>', 'where to; - is stdout')
    .option('--no-precopy', 'do not read while the device still runs')
    .option('--resume', 'let the device run again afterwards')
    .addOption(stayStopped('leave the device stopped afterwards, as where nothing is said'))
    .option('--keep-partial', 'after a failure, keep what was read', false)
    .addHelpText('after', SAVE_HELP)
    .action(async (socket: string, file: string, options: Save, command: Command) => {
      await withDevice(command, socket, (device) => saveState(device, file, options));
    });
  migrate
    .command('restore')
    .description('give a device the state that a file has')
    .argument('<SOCKET>', 'where the server listens')
    .argument('<FILE>', 'where from; - is stdin')
    .option('--resume', 'let the device run afterwards, as where nothing is said')
    .addOption(stayStopped('leave the device stopped afterwards'))
    .addHelpText('after', RESTORE_HELP)
    .action(async (socket: string, file: string, options: RestoreOptions, command: Command) => {
      const run = options.stayStopped !== true;
      await withDevice(command, socket, (device) => restoreState(device, file, run));
    });
  migrate
    .command('state')
    .description('say what a device can do, and the state that it is in')
    .argument('<SOCKET>', 'where the server listens')
    .addHelpText('after', STATE_HELP)
    .action(async (socket: string, _options: object, command: Command) => {
      await withDevice(command, socket, async (device) => print(`${await describeState(device)}\n`));
    });
}

async function move(source: string, destination: string, options: Move, command: Command): Promise<void> {
  await withDevice(command, source, (from) =>
    withDevice(command, destination, (to) => moveDevice(from, to, options)),
  );
}

function stayStopped(description: string): Option {
  return new Option('--stay-stopped', description).conflicts('resume');
}
