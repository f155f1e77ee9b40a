/**
 * Every pair of transitions of a controller, in both orders, on SPDK's target (../nvme/transitions/table.ts).
 * VFIO_USER_SPDK names the directory of a running target, with `malloc/cntrl` in it, whose namespace is overwritten.
 */
import { describe, expect, jest, test } from '@jest/globals';
import { join } from 'node:path';
import { openFds } from '../support/fds.js';
import { runPair } from '../nvme/transitions/pair.js';
import { until } from '../nvme/transitions/rig.js';
import { MOMENTS, PAIRS } from '../nvme/transitions/table.js';

jest.setTimeout(300_000);

const directory = process.env['VFIO_USER_SPDK'] ?? '';
const withSpdk = directory === '' ? describe.skip : describe;

let stamp = 0;

withSpdk("SPDK's target (VFIO_USER_SPDK names its directory)", () => {
  test.each(PAIRS)('%s, and %s', async (first, second) => {
    const fds = openFds();
    const ground = { server: join(directory, 'malloc', 'cntrl') };
    // One after the other: it takes one client at a time.
    for (const moment of MOMENTS) await runPair(ground, { first, second, moment }, stamp++);
    await until(() => openFds() <= fds, 'all fds are given back');
    expect(openFds()).toBeLessThanOrEqual(fds);
  });
});
