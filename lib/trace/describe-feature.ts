/** DEVICE_FEATURE, each feature with its data, and the stream of migration data. */
import { UINT32_MAX } from '../fields.js';
import { ProtocolError } from '../errors.js';
import {
  DEVICE_FEATURE_GET,
  DEVICE_FEATURE_PROBE,
  DEVICE_FEATURE_SET,
  Feature,
  deviceFeatureFlagNames,
  featureName,
  migrationFlagNames,
  migrationStateName,
} from '../protocol/constants.js';
import { DEVICE_FEATURE_SIZE, decodeDeviceFeature, type DeviceFeature } from '../protocol/device-feature.js';
import {
  decodeDmaLogging,
  decodeDmaLoggingReport,
  decodeDmaLoggingReportReply,
} from '../protocol/dma-logging.js';
import {
  MIG_DATA_SIZE,
  decodeMigDataRead,
  decodeMigDataReadReply,
  decodeMigDataWrite,
  decodeMigState,
  decodeMigrationReply,
} from '../protocol/migration.js';
import { argszAt, dataAt, type Fields, type Payload } from './payload-fields.js';

const LOGGING_REPORT_SIZE = 24;

/** A DEVICE_FEATURE message, and where its payload lies. */
interface FeatureMessage extends DeviceFeature {
  isReply: boolean;
  bytes: Buffer;
  start: number;
  end: number;
}

/** Request and reply have one layout, but GET brings the feature's data in the reply only. */
export function deviceFeature(bytes: Buffer, start: number, end: number, isReply: boolean): Payload {
  const feature = decodeDeviceFeature(bytes, start, end);
  const fields = {
    argsz: feature.argsz,
    feature: featureName(feature.feature),
    flags: deviceFeatureFlagNames(feature.flags),
  };
  const known = featureData({ ...feature, isReply, bytes, start, end });
  if (known === undefined) return { fields, ...dataAt(start + DEVICE_FEATURE_SIZE, end) };
  return { ...known, fields: { ...fields, ...known.fields } };
}

/** The data of the features that have some, where they have it; undefined for all else, a probe among it. */
function featureData(message: FeatureMessage): Payload | undefined {
  const { feature, flags, data, isReply, bytes, start, end } = message;
  if ((flags & DEVICE_FEATURE_PROBE) !== 0) return undefined;
  const isSet = (flags & DEVICE_FEATURE_SET) !== 0;
  const isGot = isReply && (flags & DEVICE_FEATURE_GET) !== 0;
  const name = `DEVICE_FEATURE ${featureName(feature)}${isReply ? ' reply' : ''}`;
  switch (feature) {
    case Feature.MIGRATION:
      if (!isGot) return undefined;
      return { fields: { migration: { flags: migrationFlags(decodeMigrationReply(bytes, start, end)) } } };
    case Feature.MIG_DEVICE_STATE: {
      if (!isGot && !isSet) return undefined;
      const state = migrationStateName(decodeMigState(data, name));
      return { fields: { mig_device_state: { device_state: state } } };
    }
    case Feature.DMA_LOGGING_STOP:
    case Feature.DMA_LOGGING_START:
      // The kernel's STOP has no data.
      if (!isSet || data.length === 0) return undefined;
      return { fields: { dma_logging: loggingFields(data, name) } };
    case Feature.DMA_LOGGING_REPORT:
      return isSet ? undefined : loggingReport(message, name);
    default:
      return undefined;
  }
}

/** The field has 64 bits, of which some of the lowest have names. */
function migrationFlags(flags: number): string[] {
  const high = BigInt(flags) & ~0xffff_ffffn;
  return [...migrationFlagNames(flags >>> 0), ...(high === 0n ? [] : [`0x${high.toString(16)}`])];
}

function loggingFields(data: Buffer, name: string): Fields {
  const { pageSize, ranges } = decodeDmaLogging(data, name);
  return {
    page_size: pageSize,
    num_ranges: ranges.length,
    ranges: ranges.map(({ iova, length }) => ({ iova, length })),
  };
}

function loggingReport({ data, isReply, bytes, start, end }: FeatureMessage, name: string): Payload {
  if (isReply && data.length < LOGGING_REPORT_SIZE) {
    throw new ProtocolError(
      `${name}: the data is ${data.length} bytes, the report structure takes ${LOGGING_REPORT_SIZE}`,
    );
  }
  const report = decodeDmaLoggingReport(isReply ? data.subarray(0, LOGGING_REPORT_SIZE) : data);
  if (isReply) decodeDmaLoggingReportReply(bytes, start, end, report);
  const { iova, length, pageSize } = report;
  return {
    fields: { dma_logging_report: { iova, length, page_size: pageSize } },
    ...dataAt(start + DEVICE_FEATURE_SIZE + LOGGING_REPORT_SIZE, end),
  };
}

export function migDataRead(bytes: Buffer, start: number, end: number): Payload {
  const { argsz, size } = decodeMigDataRead(bytes, start, end);
  return { fields: { argsz, size } };
}

export function migDataReadReply(bytes: Buffer, start: number, end: number): Payload {
  // A reply is padded at times: its `size` says how much counts.
  const { length } = decodeMigDataReadReply(bytes, start, end, UINT32_MAX);
  const data = start + MIG_DATA_SIZE;
  return { fields: { argsz: argszAt(bytes, start), size: length }, ...dataAt(data, data + length) };
}

export function migDataWrite(bytes: Buffer, start: number, end: number): Payload {
  const { length } = decodeMigDataWrite(bytes, start, end);
  return { fields: { argsz: argszAt(bytes, start), size: length }, ...dataAt(start + MIG_DATA_SIZE, end) };
}
