/**
 * What the library adds to a bare send and receive: synchronous reads through `Region`, beside the same bytes sent and
 * received with the addon alone, on the same server, in alternation. Arguments: SOCKET quick|full.
 * Prints one line of JSON: reads a second through the library, and `addedNs`, the median of what it adds to each.
 */
import { connect } from 'vfio-user';
import { bareRoundTrips } from './bare.js';
import { timed } from './timing.js';

const [socket, length] = process.argv.slice(2);
const rounds = length === 'quick' ? 5 : 15;
const count = length === 'quick' ? 2_000 : 10_000;

const added: number[] = [];
let total = 0;
let userSeconds = 0;
let systemSeconds = 0;
for (let round = 0; round < rounds; round++) {
  const bare = await bareRoundTrips(socket!, count);
  await using device = await connect(socket!);
  const bar1 = device.bar(1);
  for (let i = 0; i < 500; i++) bar1.readUInt32Sync(0);
  const own = await timed(count, () => {
    for (let i = 0; i < count; i++) bar1.readUInt32Sync(0);
  });
  total += own.seconds;
  userSeconds += own.userSeconds;
  systemSeconds += own.systemSeconds;
  added.push(((own.seconds - bare) / count) * 1e9);
}
added.sort((a, b) => a - b);
console.log(
  JSON.stringify({
    opsPerSecond: (rounds * count) / total,
    seconds: total,
    count: rounds * count,
    userSeconds,
    systemSeconds,
    addedNs: Math.round(added[rounds >> 1]!),
  }),
);
