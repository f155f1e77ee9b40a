/** What a run leaves behind: JSON for programs, and a page with plots for people. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { htmlReport } from './html-report.js';
import type { Report } from './report-data.js';

/** Writes report.json and report.html. Returns the page's path. */
export async function writeReport(report: Report, directory: string): Promise<string> {
  mkdirSync(directory, { recursive: true });
  writeFileSync(path.join(directory, 'report.json'), `${JSON.stringify(report, null, 2)}\n`);
  const file = path.join(directory, 'report.html');
  writeFileSync(file, await htmlReport(report));
  return file;
}

export function readReport(directory: string): Report {
  return JSON.parse(readFileSync(path.join(directory, 'report.json'), 'utf8')) as Report;
}
