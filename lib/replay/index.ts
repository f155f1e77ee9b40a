/**
 * A capture of a real device as a server, for tests that run without the device.
 *
 * ```ts
 * await using server = await replay('fixtures/boot.pcapng');
 * await using device = await connect(server.path);
 * ```
 * @packageDocumentation
 */
export { VfioUserError } from '../errors.js';
export { CaptureError } from '../trace/index.js';
export {
  formatDifference,
  type DataDifference,
  type Difference,
  type DifferenceKind,
  type FieldDifference,
} from './difference.js';
export { ReplayError } from './replay-error.js';
export { formatReport, type ReplayReport } from './report.js';
export { ReplayServer, replay } from './server.js';
export type { MappingPolicy } from './placeholder-fds.js';
export { RECORDABLE, type ReplayOptions } from './replay-options.js';
