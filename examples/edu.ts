/**
 * Drives an educational device (1234:11e8) through all that a driver does, and checks each step.
 *
 *     node build/tools/examples/edu.js                  the embedded emulator, in a process of its own
 *     node build/tools/examples/edu.js --socket PATH    another server, for example QEMU's edu
 */
import { connect, type Vector } from 'vfio-user';
import { EduDriver } from './support/edu-driver.js';
import * as verify from './support/edu-steps.js';
import { Steps } from './support/steps.js';
import { openTarget } from './support/target.js';

async function main(): Promise<void> {
  await using target = await openTarget();
  console.log(`driving an edu device in ${target.name}`);
  const steps = new Steps();
  await using device = await steps.open('open', async () => {
    const opened = await connect(target.path, { waitForSocket: true });
    const { major, minor, twinSocket } = opened.negotiated;
    return [
      opened,
      `protocol ${major}.${minor}${twinSocket ? ', with a twin socket' : ''}, over ${target.path}`,
    ];
  });
  await steps.run('config space', async () => verify.configSpace(device));
  const edu = await steps.open('enable', async () => {
    const driver = await EduDriver.attach(device);
    const { command, bars } = device.config;
    return [driver, `command 0x${command.toString(16)}, BAR 0 at 0x${bars[0]?.address.toString(16)}`];
  });
  await steps.run('identification', () => verify.identification(edu));
  await steps.run('liveness', () => verify.liveness(edu));
  await steps.run('factorial, polled', () => verify.factorial(edu));
  const [intx] = (await device.irqs.intx.enable(1)) as [Vector];
  await steps.run('factorial by INTx', () => verify.factorialByInterrupt(edu, 12, intx));
  const [msi] = (await device.irqs.msi.enable(1)) as [Vector];
  await steps.run('factorial by MSI', () => verify.factorialByInterrupt(edu, 5, msi));
  await steps.run('DMA, polled', () => verify.moveThroughDevice(device, edu));
  await steps.run('DMA by MSI', () => verify.moveThroughDevice(device, edu, msi));
  await steps.run('synchronous reads', async () => verify.timing(edu));
  await steps.run('reset', () => verify.reset(device, edu));
  await steps.run('close', () => verify.close(device, edu));
  console.log(steps.summary());
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
