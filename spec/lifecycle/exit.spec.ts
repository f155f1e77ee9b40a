/** A process that ends while devices are open, and what its children inherit of it. */
import { once } from 'node:events';
import { describe, expect, test } from '@jest/globals';
import { outcomeOf, runScript, startScript } from './child.js';

/** Devices with all that they can have: a twin, mappings, memory, vectors, calls that wait. */
const EVERYTHING = `
  const all = [];
  for (let i = 0; i < 3; i++) {
    const one = await open({ timeoutMs: 60_000 });
    all.push(one);
    const { device, server } = one;
    one.area = device.bar(1).map();
    one.bytes = one.area.bytes;
    one.buffer = await device.dma.alloc(8192);
    one.vectors = await device.irqs.msix.enable(2);
    one.vectors[0].onInterrupt(() => {});
    one.mapping = await device.dma.map({ fd: native().memfd('spec', 4096, false), size: 4096 });
    one.late = device.bar(2).read(0, 60_000);
    one.late.catch(() => {});
  }
`;

describe('with devices open a process ends', () => {
  test.each([
    ['by process.exit', 'process.exit(7);', 7],
    ['by process.exit in a callback of a device', `all[0].late.then(() => process.exit(7));`, 7],
    [
      'by process.exit while a synchronous call waits',
      `setImmediate(() => { setTimeout(() => process.exit(7), 5); try { all[0].device.bar(0).readUInt32Sync(0, { timeoutMs: 60 }); } catch {} });`,
      7,
    ],
    [
      'by itself once they are unreferenced',
      `await Promise.all(all.map(({ late }) => late)); for (const { device, server } of all) { device.unref(); server.unref?.(); } setTimeout(() => process.exit(3), 20_000).unref();`,
      0,
    ],
    ['by an error that nobody caught', `setTimeout(() => { throw new Error('nobody'); }, 1);`, 1],
    [
      'by an error in a listener of an interrupt',
      `all[1].vectors[1].onInterrupt(() => { throw new Error('nobody'); }); await all[1].device.bar(0).writeUInt32(0x0c, (2 << 16) | 1);`,
      1,
    ],
    ['by a rejection that nobody caught', `void Promise.reject(new Error('nobody'));`, 1],
  ])('%s', async (_, end, status) => {
    const outcome = await runScript(`${EVERYTHING} ${end}`);
    expect({ ...outcome, stderr: status === 1 ? '' : outcome.stderr }).toEqual({
      status,
      signal: null,
      reports: [],
      stderr: '',
    });
    if (status === 1) expect(outcome.stderr).toContain('nobody');
  });

  test.each(['SIGTERM', 'SIGINT', 'SIGKILL'] as const)('by %s', async (signal) => {
    const child = startScript(`${EVERYTHING} report('ready'); setInterval(() => {}, 1000);`);
    const ended = outcomeOf(child);
    await Promise.race([once(child.stdout!, 'data'), ended]);
    child.kill(signal);
    expect(await ended).toMatchObject({ status: null, signal, stderr: '' });
  });
});

test('a child inherits none of the fds that devices have', async () => {
  const { reports, status, stderr } = await runScript(`
    import { spawnSync } from 'node:child_process';
    const inherited = () => {
      const text = spawnSync(process.execPath, ['-p', 'JSON.stringify(fs.readdirSync("/proc/self/fd").map((fd) => { try { return fs.readlinkSync("/proc/self/fd/" + fd); } catch { return ""; } }))'], { encoding: 'utf8' }).stdout;
      return JSON.parse(text).filter((name) => /memfd|vfio/.test(name)).length;
    };
    const count = () => Number(spawnSync(process.execPath, ['-p', 'fs.readdirSync("/proc/self/fd").length'], { encoding: 'utf8' }).stdout);
    const before = count();
    ${EVERYTHING}
    const listening = native().listenUnix('\\0vfio-user-spec-' + process.pid, 1, 0o600);
    const ours = countFds();
    report({ more: count() - before, memory: inherited(), ours });
    process.exit(0);
  `);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const [report] = reports as [{ more: number; memory: number; ours: number }];
  expect(report).toMatchObject({ more: 0, memory: 0 });
  expect(report.ours).toBeGreaterThan(30);
});
