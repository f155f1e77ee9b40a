/** From signalling a vector's eventfd to the listener's call. Arguments: SOCKET quick|full. Prints one line of JSON. */
import { connect } from 'vfio-user';

const [socket, length] = process.argv.slice(2);
const count = length === 'quick' ? 2_000 : 50_000;

const device = await connect(socket!);
const [vector] = await device.irqs.intx.enable();
let seen = 0;
const begin = performance.now();
const seconds = await new Promise<number>((resolve) => {
  vector!.onInterrupt(() => {
    seen++;
    if (seen === count) resolve((performance.now() - begin) / 1e3);
    else vector!.signal();
  });
  vector!.signal();
});
await device.close();
console.log(JSON.stringify({ opsPerSecond: count / seconds, seconds, count }));
