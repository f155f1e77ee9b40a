/**
 * The codec: an encoder and a decoder for every message, without any I/O.
 *
 * A payload is what follows the 16-byte header. Decoders take a buffer and the payload's place in it, check every field
 * before they use it, and throw a `ProtocolError` that names the message, the field and the rule; what they return holds no
 * reference to that buffer. Encoders return a new Buffer with the payload alone; a wrong argument is a TypeError or
 * RangeError. All integers are little-endian.
 * @packageDocumentation
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
