/** The steps of examples/edu.ts: each verifies what it did, and gives the line that says so. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { Device, Vector } from 'vfio-user';
import { EduDriver } from './edu-driver.js';

const LIVENESS_VALUE = 0x12345678;
const TRANSFER_BYTES = 2048;
const TIMED_READS = 2000;

export function configSpace(device: Device): string {
  const { vendorId, deviceId, capabilities, problems, header } = device.config;
  assert.deepEqual([vendorId, deviceId], [0x1234, 0x11e8]);
  assert.deepEqual(problems, []);
  const names = capabilities.map(({ name }) => name).join(', ');
  return `1234:11e8, revision 0x${header.revisionId.toString(16)}, capabilities: ${names || 'none'}`;
}

export async function identification(edu: EduDriver): Promise<string> {
  const value = await edu.identification();
  assert.equal(value & 0xff, 0xed);
  return `0x${value.toString(16).padStart(8, '0')}, version ${value >>> 24}.${(value >>> 16) & 0xff}`;
}

export async function liveness(edu: EduDriver): Promise<string> {
  const inverted = await edu.invert(LIVENESS_VALUE);
  assert.equal(inverted, ~LIVENESS_VALUE >>> 0);
  return `wrote 0x${LIVENESS_VALUE.toString(16)}, read 0x${inverted.toString(16)}`;
}

/** Random bytes go from one buffer into the device, and from the device into another. */
export async function moveThroughDevice(device: Device, edu: EduDriver, vector?: Vector): Promise<string> {
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

export function timing(edu: EduDriver): string {
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
export async function reset(device: Device, edu: EduDriver): Promise<string> {
  await device.reset();
  const command = device.config.command;
  assert.equal(command & 0x6, 0x6);
  assert.equal((await edu.identification()) & 0xff, 0xed);
  return `command 0x${command.toString(16)} again, and it answers`;
}

export async function factorial(edu: EduDriver): Promise<string> {
  assert.equal(await edu.factorial(10), 3_628_800);
  return '10! = 3628800';
}

export async function factorialByInterrupt(edu: EduDriver, of: 5 | 12, vector: Vector): Promise<string> {
  const expected = { 5: 120, 12: 479_001_600 }[of];
  assert.equal(await edu.factorialByInterrupt(of, vector), expected);
  return `${of}! = ${expected}, ${vector.count} interrupt`;
}

export async function close(device: Device, edu: EduDriver): Promise<string> {
  await device.close();
  const reason = await device.closed;
  await assert.rejects(edu.identification());
  return reason.message;
}
