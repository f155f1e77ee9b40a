/**
 * Checks, rule by rule, whether a server keeps the specification, and derives the `quirks` that a client needs to work with
 * it.
 *
 * ```ts
 * const report = await diagnose('/run/dev.sock');
 * const device = await connect('/run/dev.sock', { quirks: report.quirks });
 * ```
 * @packageDocumentation
 */
export type { Endpoint, Quirks } from '../index.js';
export { diagnose, type DiagnoseOptions, type Progress } from './diagnose.js';
export { toMarkdown } from './markdown.js';
export {
  VERDICTS,
  type DoctorReport,
  type Evidence,
  type Identity,
  type Recognised,
  type RuleResult,
  type Trait,
  type Verdict,
} from './report.js';
export { RULES, type Rule, type RuleId } from './rules.js';
export type { StartedServer, StartServer, Subject } from './server-source.js';
export { spawner } from './spawn.js';
