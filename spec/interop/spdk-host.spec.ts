/**
 * SPDK's own host on the emulated NVMe controller. VFIO_USER_SPDK_IDENTIFY names the program spdk_nvme_identify,
 * VFIO_USER_SPDK_PERF the program spdk_nvme_perf. No target is needed.
 */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { outcomeOf, Scratch, start, type Outcome } from '../cli/cli.js';

jest.setTimeout(120_000);

const identify = process.env['VFIO_USER_SPDK_IDENTIFY'] ?? '';
const perf = process.env['VFIO_USER_SPDK_PERF'] ?? '';
const given = (program: string) => (program === '' ? describe.skip : describe);

/** What an SPDK program that goes wrong says, one way or another. */
const TROUBLE = /error|fail|warn|timed? ?out|invalid/i;

let scratch: Scratch;
let emulator: ChildProcess;
/** What the emulator ends with. */
let ended: Promise<Outcome>;

/** The emulator is a process of its own, as a user has it. */
beforeEach(async () => {
  if (identify === '' && perf === '') return;
  scratch = new Scratch();
  const socket = path.join(scratch.directory, 'cntrl');
  emulator = start(['--verbose', 'emulate', 'nvme', '--socket', socket, '--size', '64M']);
  ended = outcomeOf(emulator);
  await once(emulator.stdout!, 'data');
});

afterEach(() => {
  emulator?.kill('SIGKILL');
  scratch?.remove();
});

/** Runs a program on the emulator, with a little memory that is no huge page. */
function run(program: string, ...args: string[]): Promise<Outcome> {
  const target = `trtype:VFIOUSER traddr:${scratch.directory} subnqn:nqn.2014-08.org.nvmexpress:any`;
  const env = { ...process.env, LD_PRELOAD: '' };
  return outcomeOf(
    spawn(program, [...args, '--no-huge', '-s', '256', '-r', target], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    }),
  );
}

async function emulatorHasNoComplaint(): Promise<void> {
  emulator.kill('SIGINT');
  const { status, stderr } = await ended;
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
}

given(identify)('spdk_nvme_identify (VFIO_USER_SPDK_IDENTIFY)', () => {
  test('prints the controller and its namespace, time and again, and has no error to print', async () => {
    for (let i = 0; i < 2; i++) {
      const { status, stdout, stderr } = await run(identify);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(stdout).toMatch(/^Vendor ID: +1234$/m);
      expect(stdout).toMatch(/^Model Number: +vfio-user emulated NVMe controller$/m);
      expect(stdout).toMatch(/^Namespace ID:1$/m);
      expect(stdout).toMatch(/^Size \(in LBAs\): +131072 /m);
      // No command of its was refused.
      expect(stdout).toMatch(/^Lifetime Error Log Entries: +0$/m);
      expect(stdout).not.toMatch(/Error Count/);
    }
    await emulatorHasNoComplaint();
  });
});

given(perf)('spdk_nvme_perf (VFIO_USER_SPDK_PERF)', () => {
  test.each([
    ['randread, 4 KiB, 32 at a time', '-w randread -o 4096 -q 32'],
    ['randwrite, 512 bytes, one at a time', '-w randwrite -o 512 -q 1'],
    ['half of each, 64 KiB', '-w randrw -M 50 -o 65536 -q 8'],
    ['write, 256 KiB, which are two commands each', '-w write -o 262144 -q 4'],
    ['two queues', '-w randrw -M 70 -o 4096 -q 16 -P 2'],
  ])('%s', async (_what, load) => {
    const { status, stdout, stderr } = await run(perf, ...load.split(' '), '-t', '1', '-c', '0x1');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).not.toMatch(TROUBLE);
    expect(Number(/^Total +: +([\d.]+)/m.exec(stdout)?.[1])).toBeGreaterThan(0);
    await emulatorHasNoComplaint();
  });
});
