/**
 * Reads OpenMetrics text: with the parser of Prometheus' own client library for Python where there is one, which refuses
 * what the specification does not allow.
 */
import { spawnSync } from 'node:child_process';

const PYTHON = process.env['VFIO_USER_PYTHON'] ?? 'python3';
const PROGRAM = `
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = text_string_to_metric_families(sys.stdin.read())
print(json.dumps([[f.name, f.type, [[s.name, s.labels, s.value] for s in f.samples]] for f in families]))`;

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export const HAS_PROMETHEUS =
  spawnSync(PYTHON, ['-c', 'import prometheus_client.openmetrics.parser'], { stdio: 'ignore' }).status === 0;

/** By the Python library. @throws what it says of text that is no OpenMetrics. */
export function parsedByPrometheus(text: string): Sample[] {
  const { status, stdout, stderr } = spawnSync(PYTHON, ['-c', PROGRAM], { input: text, encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  const families = JSON.parse(stdout) as [string, string, [string, Record<string, string>, number][]][];
  return families.flatMap(([, , samples]) =>
    samples.map(([name, labels, value]) => ({ name, labels, value })),
  );
}

/** The sample of that name whose labels have at least these. */
export function sampleOf(
  text: string,
  name: string,
  labels: Record<string, string> = {},
): number | undefined {
  for (const line of text.split('\n')) {
    const match = /^(?<name>\w+)(?:\{(?<labels>.*)\})? (?<value>\S+)$/.exec(line)?.groups;
    if (match?.['name'] !== name) continue;
    const has = (label: string, value: string): boolean =>
      (match['labels'] ?? '').includes(`${label}="${value}"`);
    if (Object.entries(labels).every(([label, value]) => has(label, value))) return Number(match['value']);
  }
  return undefined;
}
