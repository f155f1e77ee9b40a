/** From signalling a vector's eventfd to the listener's call. Arguments: SOCKET quick|full. Prints one line of JSON. */
import { connect } from 'vfio-user';
import { timed } from './timing.js';

const [socket, length] = process.argv.slice(2);
const count = length === 'quick' ? 2_000 : 50_000;

const device = await connect(socket!);
const [vector] = await device.irqs.intx.enable();
let seen = 0;
const result = await timed(
  count,
  () =>
    new Promise((resolve) => {
      vector.onInterrupt(() => {
        if (++seen === count) resolve();
        else vector.signal();
      });
      vector.signal();
    }),
);
await device.close();
console.log(JSON.stringify(result));
