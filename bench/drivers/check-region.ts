/**
 * Whether the reference target's answers are right, before anything is timed: synchronous, asynchronous, one register
 * and 1 MiB. Arguments: SOCKET. What it changes it puts back.
 */
import { deepStrictEqual, strictEqual } from 'node:assert';
import { connect } from 'vfio-user';

const [socket] = process.argv.slice(2);
const SIZE = 1 << 20;
/** Byte n of its regions is 31 n at first. */
const pattern = Buffer.from(Uint8Array.from({ length: SIZE }, (_, n) => (n * 31) & 0xff));

await using device = await connect(socket!);
const region = device.bar(1);
const register = pattern.readUInt32LE(64);

deepStrictEqual(await region.read(0, SIZE), pattern);
const target = Buffer.alloc(SIZE);
region.readIntoSync(0, target);
deepStrictEqual(target, pattern);
strictEqual(region.readUInt32Sync(64), register);
strictEqual(await region.readUInt32(64), register);

region.writeUInt32Sync(64, 0x0123_4567);
strictEqual(await region.readUInt32(64), 0x0123_4567);
await region.writeUInt32(64, register);
strictEqual(region.readUInt32Sync(64), register);
// Each of many answers belongs to its own question.
const words = await Promise.all(Array.from({ length: 64 }, (_, i) => region.readUInt32(i * 4)));
deepStrictEqual(
  words,
  words.map((_, i) => pattern.readUInt32LE(i * 4)),
);
