/**
 * Drives an educational device (1234:11e8) through all that a driver does, and checks each step.
 *
 *     node build/tools/examples/edu.js                  the embedded emulator, in a process of its own
 *     node build/tools/examples/edu.js --socket PATH    another server, for example QEMU's edu
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect, type Device, type Vector } from 'vfio-user';
import { EduDriver } from './support/edu-driver.js';
import { Steps } from './support/steps.js';
import { openTarget, type Target } from './support/target.js';

const LIVENESS_VALUE = 0x12345678;
const TRANSFER_BYTES = 2048;
const TIMED_READS = 2000;

async function main(): Promise<void> {
  await using target = await openTarget();
  console.log(`driving an edu device in ${target.name}`);
  const steps = new Steps();
  await drive(target, steps);
  console.log(steps.summary());
}

async function drive(target: Target, steps: Steps): Promise<void> {
  let device!: Device;
  let edu!: EduDriver;
  let vector!: Vector;
  await steps.run('open', async () => {
    device = await connect(target.path, { waitForSocket: true });
    const { major, minor, twinSocket } = device.negotiated;
    return `protocol ${major}.${minor}${twinSocket ? ', with a twin socket' : ''}, over ${target.path}`;
  });
  try {
    await steps.run('config space', async () => configSpace(device));
    await steps.run('enable', async () => {
      edu = await EduDriver.attach(device);
      return `command 0x${device.config.command.toString(16)}, BAR 0 at 0x${device.config.bars[0]?.address.toString(16)}`;
    });
    await steps.run('identification', () => identification(edu));
    await steps.run('liveness', () => liveness(edu));
    await steps.run('factorial, polled', async () => {
      assert.equal(await edu.factorial(10), 3_628_800);
      return '10! = 3628800';
    });
    await steps.run('factorial by INTx', async () => {
      [vector] = (await device.irqs.intx.enable(1)) as [Vector];
      assert.equal(await edu.factorialByInterrupt(12, vector), 479_001_600);
      return `12! = 479001600, ${vector.count} interrupt`;
    });
    await steps.run('factorial by MSI', async () => {
      [vector] = (await device.irqs.msi.enable(1)) as [Vector];
      assert.equal(await edu.factorialByInterrupt(5, vector), 120);
      return `5! = 120, ${vector.count} interrupt`;
    });
    await steps.run('DMA, polled', () => moveThroughDevice(device, edu));
    await steps.run('DMA by MSI', () => moveThroughDevice(device, edu, vector));
    await steps.run('synchronous reads', async () => timing(edu));
    await steps.run('reset', () => reset(device, edu));
    await steps.run('close', async () => {
      await device.close();
      const reason = await device.closed;
      await assert.rejects(edu.identification());
      return reason.message;
    });
  } finally {
    await device.close();
  }
}

function configSpace(device: Device): string {
  const { vendorId, deviceId, capabilities, problems, header } = device.config;
  assert.deepEqual([vendorId, deviceId], [0x1234, 0x11e8]);
  assert.deepEqual(problems, []);
  const names = capabilities.map(({ name }) => name).join(', ');
  return `1234:11e8, revision 0x${header.revisionId.toString(16)}, capabilities: ${names || 'none'}`;
}

async function identification(edu: EduDriver): Promise<string> {
  const value = await edu.identification();
  assert.equal(value & 0xff, 0xed);
  return `0x${value.toString(16).padStart(8, '0')}, version ${value >>> 24}.${(value >>> 16) & 0xff}`;
}

async function liveness(edu: EduDriver): Promise<string> {
  const inverted = await edu.invert(LIVENESS_VALUE);
  assert.equal(inverted, ~LIVENESS_VALUE >>> 0);
  return `wrote 0x${LIVENESS_VALUE.toString(16)}, read 0x${inverted.toString(16)}`;
}

/** Random bytes go from one buffer into the device, and from the device into another. */
async function moveThroughDevice(device: Device, edu: EduDriver, vector?: Vector): Promise<string> {
  const { addressBits } = EduDriver;
  await using source = await device.dma.alloc(TRANSFER_BYTES, { addressBits });
  await using destination = await device.dma.alloc(TRANSFER_BYTES, { addressBits });
  randomBytes(TRANSFER_BYTES).copy(source.bytes);
  await edu.copyIn(source, TRANSFER_BYTES, vector);
  await edu.copyOut(destination, TRANSFER_BYTES, vector);
  assert.ok(destination.bytes.equals(source.bytes), 'what came back is not what went in');
  const [from, to] = [source.iova, destination.iova].map((iova) => `0x${iova.toString(16)}`);
  return `${TRANSFER_BYTES} bytes from ${from} into the device and on to ${to}, equal`;
}

function timing(edu: EduDriver): string {
  const times: number[] = [];
  for (let i = 0; i < TIMED_READS; i++) {
    const begun = performance.now();
    assert.equal(edu.identificationSync() & 0xff, 0xed);
    times.push(performance.now() - begun);
  }
  times.sort((a, b) => a - b);
  const medianUs = times[TIMED_READS / 2]! * 1000;
  return `${TIMED_READS} of them, ${medianUs.toFixed(1)} µs each at the median`;
}

/** What was enabled is enabled again afterwards. */
async function reset(device: Device, edu: EduDriver): Promise<string> {
  await device.reset();
  const command = device.config.command;
  assert.equal(command & 0x6, 0x6);
  assert.equal((await edu.identification()) & 0xff, 0xed);
  return `command 0x${command.toString(16)} again, and it answers`;
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
