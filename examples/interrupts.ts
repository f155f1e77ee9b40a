/** Three ways to take an interrupt of an edu device: wait for one, listen to all, iterate. */
import { connect } from 'vfio-user';
import { EduDriver } from './support/edu-driver.js';
import { openTarget } from './support/target.js';

await using target = await openTarget();
await using device = await connect(target.path, { waitForSocket: true });
const edu = await EduDriver.attach(device);

// MSI where the device has it: enabling it turns the enable bit in config space on, and INTx off.
const irqs = device.irqs.msi.count > 0 ? device.irqs.msi : device.irqs.intx;
const [vector] = await irqs.enable(1);
if (vector === undefined) throw new Error(`the device has no ${irqs.name}`);

// One: the promise has a deadline, as every call has.
await edu.raise(0x1);
const count = await vector.wait({ timeoutMs: 1_000 });
console.log(`${irqs.name}: waited, ${count} interrupt, status 0x${(await edu.acknowledge()).toString(16)}`);

// All: a listener is called as they come, whoever else waits.
let heard = 0;
const listener = (count: number) => {
  heard += count;
};
vector.on('interrupt', listener);
await edu.raise(0x2);
await vector.wait();
await edu.acknowledge();
vector.off('interrupt', listener);
console.log(`${irqs.name}: heard ${heard} interrupt`);

// Iterated: ends when the vector is closed.
await edu.raise(0x4);
let rounds = 0;
for await (const _ of vector) {
  await edu.acknowledge();
  if (++rounds === 3) break;
  await edu.raise(0x4);
}
console.log(`${irqs.name}: iterated over ${rounds} interrupts`);

await irqs.disable();
console.log(`${vector.count} interrupts in all`);
