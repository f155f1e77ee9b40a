/** Opens and closes a device over and over. Arguments: SOCKET quick|full. Prints one line of JSON. */
import { connect } from 'vfio-user';
import { timed } from './timing.js';

const [socket, length] = process.argv.slice(2);
const count = length === 'quick' ? 200 : 2_000;

const result = await timed(count, async () => {
  for (let i = 0; i < count; i++) {
    const device = await connect(socket!);
    await device.close();
  }
});
console.log(JSON.stringify(result));
