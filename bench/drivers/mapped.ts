/**
 * Registers in mapped memory: 4-byte reads and writes, as many of each. Arguments: SOCKET quick|full plain|ordered.
 * What is stored is first seen by message to have reached the device, and the other way round. Prints one line of JSON.
 */
import { connect, type MappedArea } from 'vfio-user';
import { timed } from './timing.js';

const [socket, length, how] = process.argv.slice(2);
/** Whole rounds of all words, twice. */
const count = length === 'quick' ? 2_048_000 : 51_200_000;
const WARM_UP = 1_000_000;
/** Where BAR1 of the emulated device can be mapped from on. */
const OFFSET = 4096;
/** A page of registers: they stay in the cache, as a device's would not. */
const WORDS = 1024;

interface Access {
  read(count: number): number;
  write(count: number): void;
}

/** A typed array, as it is. */
function plain({ u32 }: MappedArea): Access {
  const mask = WORDS - 1;
  return {
    read: (n) => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum = (sum + u32[i & mask]!) | 0;
      return sum;
    },
    write: (n) => {
      for (let i = 0; i < n; i++) u32[i & mask] = i;
    },
  };
}

function ordered(area: MappedArea): Access {
  const mask = WORDS * 4 - 1;
  return {
    read: (n) => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum = (sum + area.loadUInt32((i * 4) & mask)) | 0;
      return sum;
    },
    write: (n) => {
      for (let i = 0; i < n; i++) area.storeUInt32((i * 4) & mask, i);
    },
  };
}

await using device = await connect(socket!);
const region = device.bar(1);
using area = region.map(OFFSET, WORDS * 4);
const access = how === 'plain' ? plain(area) : ordered(area);

/** By message, the sum of what the device holds. */
async function held(): Promise<number> {
  const bytes = await region.read(OFFSET, WORDS * 4);
  let sum = 0;
  for (let i = 0; i < WORDS; i++) sum = (sum + bytes.readUInt32LE(i * 4)) | 0;
  return sum;
}

access.write(WARM_UP);
if (access.read(WORDS) !== (await held())) throw new Error('what was stored has not reached the device');
await region.writeUInt32(OFFSET, 0xdead_beef);
if (access.read(1) !== (0xdead_beef | 0)) throw new Error('what the device holds is not what is loaded');
access.read(WARM_UP);

const half = count / 2;
let sum = 0;
const writes = await timed(half, () => access.write(half));
const reads = await timed(half, () => {
  sum = access.read(half);
});
// The loads must have taken place: their sum is known.
const rounds = half / WORDS;
if (sum !== Math.imul(await held(), rounds)) throw new Error('a load gave another value');
const seconds = writes.seconds + reads.seconds;
console.log(
  JSON.stringify({
    opsPerSecond: count / seconds,
    seconds,
    count,
    userSeconds: writes.userSeconds + reads.userSeconds,
    systemSeconds: writes.systemSeconds + reads.systemSeconds,
    nsPerAccess: (seconds / count) * 1e9,
    nsPerRead: (reads.seconds / half) * 1e9,
    nsPerWrite: (writes.seconds / half) * 1e9,
  }),
);
