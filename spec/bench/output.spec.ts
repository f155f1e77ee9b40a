/** What trials print, and what of them is believed. */
import { describe, expect, test } from '@jest/globals';
import { parsePerf } from '../../bench/perf-output.js';
import { childrenTime, parseChildrenTime } from '../../bench/processor-time.js';
import { capture, lastJson, parseLast, runTrial } from '../../bench/trial.js';

function script(source: string) {
  return { command: process.execPath, args: ['-e', source] };
}

describe('a line of JSON', () => {
  test.each([
    ['{"opsPerSecond":5}', 5],
    ['{"opsPerSecond":5}\n', 5],
    ['said before\n{"opsPerSecond":6}\n', 6],
    ['{\n  "opsPerSecond": 7\n}\n', 7],
    ['{"opsPerSecond":1}\n{"opsPerSecond":8}\n', undefined],
  ])('%j', (output, expected) => {
    if (expected === undefined) expect(() => lastJson(output)).toThrow(SyntaxError);
    else expect(lastJson(output).opsPerSecond).toBe(expected);
  });

  test.each([[''], ['nothing'], ['{"cut'], ['text {"a":1}']])('%j is none', (output) => {
    expect(() => parseLast(output)).toThrow();
  });
});

const TABLE = `
Initialization complete. Launching workers.
========================================================
                                                                     Latency(us)
Device Information               :       IOPS      MiB/s    Average        min        max
VFIOUSER (/run/m) NSID 1 from core  0:   84097.34     328.51     382.36       3.74  114487.89
========================================================
Total                            :   84097.34     328.51     382.36       3.74  114487.89
`;

const SUMMARY = `
Summary latency data for VFIOUSER (/run/m) NSID 1       from core 0:
=================================================================================
  1.00000% :    19.130us
 50.00000% :    25.441us
 99.00000% : 10652.976us
 99.90000% : 76337.916us
100.00000% : 114708.826us

Latency histogram for VFIOUSER (/run/m) NSID 1       from core 0:
       Range in us     Cumulative    IO count
`;

describe("spdk_nvme_perf's table", () => {
  test('totals, and the mean and longest latency', () => {
    expect(parsePerf(TABLE)).toEqual({
      opsPerSecond: 84_097.34,
      latencyUs: { mean: 382.36, max: 114_487.89 },
    });
  });

  test('with the summary of -L', () => {
    expect(parsePerf(TABLE + SUMMARY).latencyUs).toEqual({
      ...{ mean: 382.36, max: 114_487.89, p50: 25.441, p99: 10_652.976, p999: 76_337.916 },
      curve: [
        [1, 19.13],
        [50, 25.441],
        [99, 10_652.976],
        [99.9, 76_337.916],
      ],
    });
  });

  test.each([[''], ['Total:'], [TABLE.replace(/^Total.*$/m, '')]])('%j has none', (output) => {
    expect(() => parsePerf(output)).toThrow('no total');
  });
});

describe('the processor time of children', () => {
  test('is fields 16 and 17, whatever the process is called', () => {
    const stat = '12 (a) b) c) S 1 12 12 0 -1 4194304 100 200 0 0 11 22 333 444 20 0 7 0 1 1 1';
    expect(parseChildrenTime(stat)).toEqual({ userSeconds: 3.33, systemSeconds: 4.44 });
    expect(() => parseChildrenTime('12 (short) S 1')).toThrow('proc(5)');
  });

  test('is that of a trial that has ended', async () => {
    const before = childrenTime();
    const burn = 'const c = process.cpuUsage(); while (process.cpuUsage(c).user < 200_000);';
    const { process: used } = await capture(script(`${burn} console.log('{"opsPerSecond":1}')`));
    expect(used.userSeconds).toBeGreaterThanOrEqual(0.19);
    expect(used.userSeconds + used.systemSeconds).toBeLessThan(used.seconds * 8);
    const after = childrenTime();
    expect(after.userSeconds - before.userSeconds).toBeGreaterThanOrEqual(0.19);
  });
});

describe('a trial that goes wrong', () => {
  test('is an error with what it said', async () => {
    const failing = runTrial(script("console.error('wrong answer'); process.exit(3)"));
    await expect(failing).rejects.toThrow(/ended with 3: wrong answer/);
  });

  test.each([["console.log('{}')"], ['console.log(\'{"opsPerSecond":0}\')'], ["console.log('no figure')"]])(
    '%s has measured nothing',
    async (source) => {
      await expect(runTrial(script(source))).rejects.toThrow(/measured nothing|no JSON/);
    },
  );

  test('a program that is not there', async () => {
    await expect(runTrial({ command: '/nonexistent/rival', args: [] })).rejects.toThrow('ENOENT');
  });
});
