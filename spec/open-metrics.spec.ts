import { describe, expect, test } from '@jest/globals';
import { DurationTable, MetricsWriter } from '../lib/open-metrics.js';
import { HAS_PROMETHEUS, parsedByPrometheus } from './support/open-metrics.js';

const HOSTILE = 'a"b\\c\nd\u{d800} é';

function everyKind(): string {
  const table = new DurationTable();
  for (const milliseconds of [0, 0.001, 0.002, 0.0021, 7, 1e9]) table.record('READ', milliseconds);
  return new MetricsWriter({ device: HOSTILE })
    .counter({ name: 'vfio_user_a', help: 'Of "quotes", \\ and\nlines.' }, 3)
    .gauge({ name: 'vfio_user_b', help: 'B.' }, [[{ way: 'in' }, 1.5]])
    .durations({ name: 'vfio_user_c_seconds', help: 'C.' }, 'command', table.durations)
    .end();
}

describe('OpenMetrics text', () => {
  test('has a line for each sample, and ends with # EOF', () => {
    const text = new MetricsWriter({ device: '/run/x' })
      .counter({ name: 'vfio_user_a', help: 'A.' }, [[{ way: 'in' }, 1]])
      .end();
    expect(text).toBe(
      '# TYPE vfio_user_a counter\n# HELP vfio_user_a A.\nvfio_user_a_total{device="/run/x",way="in"} 1\n# EOF\n',
    );
  });

  test("a histogram's buckets are cumulative, and the last has all", () => {
    const table = new DurationTable();
    for (const milliseconds of [0.002, 0.0021, 1e9]) table.record('READ', milliseconds);
    const lines = new MetricsWriter({})
      .durations({ name: 'd_seconds', help: 'D.' }, 'command', table.durations)
      .end()
      .split('\n');
    expect(lines).toContain('d_seconds_bucket{command="READ",le="0.000002"} 1');
    expect(lines).toContain('d_seconds_bucket{command="READ",le="0.000005"} 2');
    expect(lines).toContain('d_seconds_bucket{command="READ",le="10.0"} 2');
    expect(lines).toContain('d_seconds_bucket{command="READ",le="+Inf"} 3');
    expect(lines).toContain('d_seconds_count{command="READ"} 3');
  });

  (HAS_PROMETHEUS ? test : test.skip)("Prometheus' own parser takes it, whatever the labels are", () => {
    const samples = parsedByPrometheus(everyKind());
    expect(samples[0]).toEqual({
      name: 'vfio_user_a_total',
      labels: { device: HOSTILE.replace('\u{d800}', '\u{fffd}') },
      value: 3,
    });
    const buckets = samples.filter(({ name }) => name === 'vfio_user_c_seconds_bucket');
    expect(buckets.at(-1)?.value).toBe(6);
    expect(samples.find(({ name }) => name === 'vfio_user_c_seconds_count')?.value).toBe(6);
  });
});
