/**
 * Reads of the educational device, in this process or by socket, one after the other. Arguments: SOCKET quick|full model|socket
 * sync|awaited.
 * Prints one line of JSON.
 */
import { connect } from 'vfio-user';
import { EduDevice, EduRegister } from 'vfio-user/emulator';
import { timed } from './timing.js';

const [socket, length, where, how] = process.argv.slice(2);
const count = length === 'quick' ? 50_000 : 200_000;

await using device = await connect(where === 'model' ? { model: new EduDevice() } : socket!);
const bar = device.bar(0);
if (bar.readUInt32Sync(EduRegister.IDENTIFICATION) !== 0x0100_00ed)
  throw new Error('not the educational device');
for (let i = 0; i < 2_000; i++) bar.readUInt32Sync(EduRegister.LIVENESS);
const result = await timed(count, async () => {
  if (how === 'awaited') for (let i = 0; i < count; i++) await bar.readUInt32(EduRegister.LIVENESS);
  else for (let i = 0; i < count; i++) bar.readUInt32Sync(EduRegister.LIVENESS);
});
console.log(JSON.stringify(result));
