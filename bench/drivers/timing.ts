/** What all drivers print of the part that they time. */

export interface Timing {
  opsPerSecond: number;
  seconds: number;
  count: number;
  userSeconds: number;
  systemSeconds: number;
}

/** Times `work`, which does `count` of something. */
export async function timed(count: number, work: () => void | Promise<void>): Promise<Timing> {
  const cpu = process.cpuUsage();
  const begin = performance.now();
  await work();
  const seconds = (performance.now() - begin) / 1e3;
  const { user, system } = process.cpuUsage(cpu);
  return {
    opsPerSecond: count / seconds,
    seconds,
    count,
    userSeconds: user / 1e6,
    systemSeconds: system / 1e6,
  };
}
