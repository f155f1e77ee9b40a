/** Files that are written as a whole or not at all. Where to start: `replacement-file.ts`. */
export { ReplacementFile, targetOf, type ReplacementOptions, type Target } from './replacement-file.js';
