/** The least that there is: connect, say what is there, read a register. `--socket PATH` for a device of your own. */
import { connect } from 'vfio-user';
import { openTarget } from './support/target.js';

await using target = await openTarget();
await using device = await connect(target.path, { waitForSocket: true });

const { vendorId, deviceId } = device.config;
console.log(`found ${vendorId.toString(16)}:${deviceId.toString(16)} in ${target.name}`);

await device.enable();
const register = await device.bar(0).readUInt32(0);
console.log(`the first register of BAR 0 is 0x${register.toString(16).padStart(8, '0')}`);
