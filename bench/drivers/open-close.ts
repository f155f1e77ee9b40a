/** Opens and closes a device over and over. Arguments: SOCKET quick|full. Prints one line of JSON. */
import { connect } from 'vfio-user';

const [socket, length] = process.argv.slice(2);
const count = length === 'quick' ? 200 : 2_000;

const begin = performance.now();
for (let i = 0; i < count; i++) {
  const device = await connect(socket!);
  await device.close();
}
const seconds = (performance.now() - begin) / 1e3;
console.log(JSON.stringify({ opsPerSecond: count / seconds, seconds, count }));
