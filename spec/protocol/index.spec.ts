import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import * as protocol from '../../lib/protocol/index.js';

test('the functions of the public entry', () => {
  const names = Object.keys(protocol).filter((name) => /^(?:encode|decode|check|write)/.test(name));
  expect(names.sort()).toMatchInlineSnapshot(`
   [
     "checkDmaLoggingStopReply",
     "checkDmaReadReply",
     "checkDmaWriteReply",
     "checkRegionReadReply",
     "checkRegionWriteReply",
     "decodeDeviceFeature",
     "decodeDeviceFeatureReply",
     "decodeDeviceInfo",
     "decodeDirtyPages",
     "decodeDirtyPagesReply",
     "decodeDmaAccess",
     "decodeDmaLogging",
     "decodeDmaLoggingReport",
     "decodeDmaLoggingReportReply",
     "decodeDmaLoggingStartReply",
     "decodeDmaMap",
     "decodeDmaRead",
     "decodeDmaUnmap",
     "decodeDmaUnmapReply",
     "decodeDmaWrite",
     "decodeGetInfo",
     "decodeGetIrqInfo",
     "decodeGetRegionInfo",
     "decodeGetRegionIoFds",
     "decodeHeader",
     "decodeIrqInfo",
     "decodeMigDataRead",
     "decodeMigDataReadReply",
     "decodeMigDataWrite",
     "decodeMigState",
     "decodeMigStateReply",
     "decodeMigrationReply",
     "decodeRegionAccess",
     "decodeRegionInfo",
     "decodeRegionIoFds",
     "decodeRegionRead",
     "decodeRegionWrite",
     "decodeRegionWriteMulti",
     "decodeRegionWriteMultiReply",
     "decodeSetIrqs",
     "decodeVersion",
     "encodeDeviceFeature",
     "encodeDeviceFeatureReply",
     "encodeDeviceInfo",
     "encodeDirtyPages",
     "encodeDirtyPagesReply",
     "encodeDmaLoggingReport",
     "encodeDmaLoggingReportReply",
     "encodeDmaLoggingStart",
     "encodeDmaLoggingStartReply",
     "encodeDmaLoggingStop",
     "encodeDmaMap",
     "encodeDmaUnmap",
     "encodeDmaUnmapReply",
     "encodeGetInfo",
     "encodeGetIrqInfo",
     "encodeGetMigState",
     "encodeGetMigration",
     "encodeGetRegionInfo",
     "encodeGetRegionIoFds",
     "encodeIrqInfo",
     "encodeMigDataRead",
     "encodeMigDataReadReply",
     "encodeMigDataWrite",
     "encodeMigStateReply",
     "encodeMigrationReply",
     "encodeProbe",
     "encodeRegionInfo",
     "encodeRegionIoFds",
     "encodeRegionWriteMulti",
     "encodeRegionWriteMultiReply",
     "encodeSetIrqs",
     "encodeSetMigState",
     "encodeVersion",
     "writeDmaAccess",
     "writeHeader",
     "writeHeaderId",
     "writeMigData",
     "writeRegionAccess",
   ]
  `);
});

test('what only the codec itself needs stays inside', () => {
  for (const name of ['atLeast', 'readSize', 'parseJson', 'decodeCapabilities', 'hasBitsBeyond']) {
    expect(protocol).not.toHaveProperty(name);
  }
});

test('the codec imports errors.ts, fields.ts and itself, and nothing that does I/O', () => {
  const folder = new URL('../../lib/protocol/', import.meta.url);
  const imported = readdirSync(folder).flatMap((file) => {
    const text = readFileSync(new URL(file, folder), 'utf8');
    return [...text.matchAll(/\bfrom '([^']+)'/g)].map((match) => match[1]);
  });
  const outside = new Set(imported.filter((name) => !name?.startsWith('./')));
  expect([...outside].sort()).toEqual(['../errors.js', '../fields.js', 'node:buffer']);
});
