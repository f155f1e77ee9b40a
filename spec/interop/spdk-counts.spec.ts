/**
 * What `nvme bench` counts is what SPDK's target has served. VFIO_USER_SPDK names the directory with `malloc/cntrl` of a
 * running target, whose namespace is overwritten; VFIO_USER_SPDK_RPC its RPC socket, VFIO_USER_SPDK_BDEV the block
 * device behind the namespace, where that is not malloc0. Nobody else may use it meanwhile (`--runInBand`).
 */
import { describe, expect, jest, test } from '@jest/globals';
import { join } from 'node:path';
import { ioCounts } from '../../bench/spdk-rpc.js';
import { vfioUser } from '../cli/cli.js';

jest.setTimeout(60_000);

const directory = process.env['VFIO_USER_SPDK'] ?? '';
const rpc = process.env['VFIO_USER_SPDK_RPC'] ?? '';
const bdev = process.env['VFIO_USER_SPDK_BDEV'] ?? 'malloc0';
const withRpc = directory === '' || rpc === '' ? describe.skip : describe;

withRpc('the target of VFIO_USER_SPDK, by its own count (VFIO_USER_SPDK_RPC names its RPC socket)', () => {
  test.each([
    [['--rw', 'randread', '--qd', '32']],
    [['--rw', 'randread', '--qd', '128', '--api', 'promise']],
    [['--rw', 'randwrite', '--qd', '7']],
    [['--rw', 'read', '--qd', '1', '--size', '16K', '--api', 'promise']],
    // Stamped before and read back after, in transfers that the controller's limit splits.
    [['--rw', 'write', '--qd', '4', '--size', '128K', '--verify']],
    [['--rw', 'randread', '--verify', '--api', 'promise', '--completion', 'interrupt']],
  ])('%j', async (options) => {
    const before = await ioCounts(rpc, bdev);
    const socket = join(directory, 'malloc', 'cntrl');
    const args = ['--wait', 'nvme', 'bench', socket, '--seconds', '0.5', '--json', ...options];
    const { status, stdout, stderr } = await vfioUser(...args);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const after = await ioCounts(rpc, bdev);
    const report = JSON.parse(stdout) as Record<'count' | 'totalIos' | 'totalReads' | 'totalWrites', number>;
    const { totalIos, totalReads, totalWrites } = report;
    expect({ totalReads, totalWrites }).toEqual({
      totalReads: after.reads - before.reads,
      totalWrites: after.writes - before.writes,
    });
    expect(totalIos).toBe(totalReads + totalWrites);
    expect(totalIos).toBeGreaterThan(report.count);
  });
});
