/** What describing a payload comes to, whatever the command. */

/** The value of a field. */
export type FieldValue = number | bigint | string | boolean | null | readonly FieldValue[] | Fields;
/** Fields by their names. Addresses and other values of 64 bits are bigints, sizes that the codec bounds numbers. */
export interface Fields {
  /** By the specification's name, for example `offset`. */
  readonly [name: string]: FieldValue;
}

export interface Payload {
  fields: Fields;
  /** Where the data lies that is not fields: `[start, end)`. */
  data?: [start: number, end: number];
}

/** The payload is `bytes[start, end)`. Throws a ProtocolError for what the codec refuses. */
export type Describe = (bytes: Buffer, start: number, end: number) => Payload;

/** `[start, end)` as data, unless it is empty. */
export function dataAt(start: number, end: number): { data?: [number, number] } {
  return end > start ? { data: [start, end] } : {};
}

/** The first field of most payloads. The codec has checked that the bytes are there. */
export function argszAt(bytes: Buffer, start: number): number {
  return bytes.readUInt32LE(start);
}
