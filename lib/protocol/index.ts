/**
 * The codec, `vfio-user/protocol`: bytes to messages and back, one pair of functions for each command, without any
 * I/O. Where to start: `header.ts` is what every message begins with, `constants.ts` has the numbers.
 *
 * A payload is the bytes after the 16 of the header. Decoders take a buffer and where the payload lies in it, check
 * every field before they use it, and throw a `ProtocolError` that names the message, the field and the rule; what
 * they return holds no reference to that buffer. Encoders return a new Buffer with the payload alone; what a caller
 * got wrong is a TypeError or RangeError. All integers are little-endian.
 */
export * from './constants.js';
export * from './device-feature.js';
export * from './device-info.js';
export { dirtyBitmapSize, dirtyPages, isPageDirty } from './dirty-bitmap.js';
export * from './dirty-pages.js';
export * from './dma-access.js';
export * from './dma-logging.js';
export * from './dma-map.js';
export * from './header.js';
export * from './irq-info.js';
export * from './migration.js';
export * from './region-access.js';
export * from './region-info.js';
export * from './region-io-fds.js';
export * from './region-write-multi.js';
export * from './set-irqs.js';
export * from './version.js';
