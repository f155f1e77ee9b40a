/**
 * Every pair of transitions of a controller, in both orders, on SPDK's target (../nvme/transitions/table.ts).
 * VFIO_USER_SPDK names the directory of a running target, with `malloc/cntrl` in it, whose namespace is overwritten.
 *
 * DMA memory is in huge pages, of which the machine needs some (`sysctl vm.nr_hugepages=64`). The target (3230130) takes
 * note of memory only where Linux has mapped it, for the target, at a multiple of 2 MiB: huge pages always, other memory by
 * chance. Of queues in other memory it does not notice that the memory is gone with the connection, and ends with SIGSEGV
 * at the next doorbell, which a client rings before it knows (lib/nvmf/vfio_user.c: memory_region_remove_cb, MASK_2MB).
 */
import { describe, expect, jest, test } from '@jest/globals';
import { join } from 'node:path';
import { openFds } from '../support/fds.js';
import { freeHugePages } from '../support/huge-pages.js';
import { runPair } from '../nvme/transitions/pair.js';
import { until } from '../nvme/transitions/rig.js';
import { MOMENTS, PAIRS } from '../nvme/transitions/table.js';

jest.setTimeout(300_000);

/** Two connections at a time, with an arena or two each. */
const HUGE_PAGES = 16;

const directory = process.env['VFIO_USER_SPDK'] ?? '';
const withSpdk = directory === '' || freeHugePages() < HUGE_PAGES ? describe.skip : describe;

let stamp = 0;

withSpdk("SPDK's target (VFIO_USER_SPDK names its directory), with huge pages", () => {
  test.each(PAIRS)('%s, and %s', async (first, second) => {
    const fds = openFds();
    const ground = { server: join(directory, 'malloc', 'cntrl'), hugePages: true };
    // One after the other: it takes one client at a time.
    for (const moment of MOMENTS) await runPair(ground, { first, second, moment }, stamp++);
    await until(() => openFds() <= fds, 'all fds are given back');
    expect(openFds()).toBeLessThanOrEqual(fds);
  });
});
