import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { RamDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { PciIrq } from '../../lib/protocol/index.js';
import { Scratch, outcomeOf, start, vfioUser } from './cli.js';

jest.setTimeout(60_000);

class RingingDevice extends RamDevice {
  ring(vector: number): void {
    this.trigger(PciIrq.MSIX, vector);
  }
}

let scratch: Scratch;
let socket: string;
let server: EmulatorServer;
let device: RingingDevice;

/** BAR0's register that triggers: index in the upper half, vector in the lower. */
const trigger = (vector: number) => `bar0:0xc=${(PciIrq.MSIX << 16) | vector}`;

beforeEach(async () => {
  scratch = new Scratch();
  socket = scratch.path('ram');
  device = new RingingDevice({ sharedSize: 0 });
  server = await serve(device, { path: socket });
});

afterEach(async () => {
  await server.close();
  device.close();
  scratch.remove();
});

/** Resolves when the command line has printed so many lines. */
async function linesOf(child: ReturnType<typeof start>, count: number): Promise<void> {
  let text = '';
  await new Promise<void>((resolve) => {
    child.stdout!.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.split('\n').length > count) resolve();
    });
  });
}

describe('vfio-user irq watch', () => {
  test('prints the interrupts of the best index and a summary, and ends after --count', async () => {
    const args = ['irq', 'watch', socket, '--count', '2', '--write', trigger(0), '--write', trigger(3)];
    const { status, stdout, stderr } = await vfioUser(...args);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const [first, second, summary, ...vectors] = stdout.split('\n');
    expect(first).toMatch(/^\d\d:\d\d:\d\d\.\d{3} {2}MSI-X 0 {4}\+1 {2}total 1$/);
    expect(second).toMatch(/MSI-X 3 {4}\+1 {2}total 1$/);
    expect(summary).toMatch(/^2 interrupts in \d+\.\d s/);
    expect(vectors).toEqual(['  MSI-X 0: 1', '  MSI-X 3: 1', '']);
  });

  test('prints JSON, with a rate from the second on', async () => {
    const args = ['irq', 'watch', socket, '--index', 'msix', '--vectors', '2-3', '--json'];
    const child = start([...args, '--write', trigger(2), '--count', '3']);
    const outcome = outcomeOf(child);
    await linesOf(child, 1);
    device.ring(2);
    await linesOf(child, 1);
    device.ring(3);
    const { status, stdout } = await outcome;
    expect(status).toBe(0);
    const events = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(events).toMatchObject([
      { event: 'interrupt', index: 'MSI-X', vector: 2, count: 1, total: 1, rate: null },
      { event: 'interrupt', vector: 2, count: 1, total: 2, rate: expect.any(Number) },
      { event: 'interrupt', vector: 3, count: 1, total: 1, rate: null },
      {
        event: 'summary',
        total: 3,
        seconds: expect.any(Number),
        vectors: [
          { vector: 2, count: 2 },
          { vector: 3, count: 1 },
        ],
      },
    ]);
    expect(new Date(events[0]!['time'] as string).getTime()).not.toBeNaN();
  });

  test('ends in order when it is interrupted; with status 1 where --count was not reached', async () => {
    for (const [more, expected] of [
      [[], { status: 0, stderr: '' }],
      [['--count', '2'], { status: 1, stderr: 'vfio-user: interrupted after 1 of 2 interrupts [EINTR]\n' }],
    ] as const) {
      const child = start(['irq', 'watch', socket, '--write', trigger(1), ...more]);
      const outcome = outcomeOf(child);
      await linesOf(child, 1);
      child.kill('SIGINT');
      const { status, stdout, stderr } = await outcome;
      expect({ status, stderr }).toEqual(expected);
      expect(stdout).toMatch(/\n1 interrupt in .*\n {2}MSI-X 1: 1\n$/);
    }
  });

  test('tells that the device is lost, after the summary', async () => {
    const child = start(['irq', 'watch', socket, '--write', trigger(1)]);
    const outcome = outcomeOf(child);
    await linesOf(child, 1);
    await server.close();
    const { status, stdout, stderr } = await outcome;
    expect(stdout).toMatch(/\n1 interrupt in/);
    expect(stderr).toMatch(/^vfio-user: the server closed the connection/);
    expect(status).toBe(1);
  });

  test.each([
    [['--index', 'msi'], /the device has no MSI interrupts \(it has INTx: 1, MSI-X: 4\)/, 1],
    [['--vectors', '3-4'], /\[RangeError\]/, 1],
    [['--vectors', '3-1'], /Vectors are a number, or a range like 0-3/, 2],
    [['--index', 'nmi'], /Allowed choices are intx, msi, msix/, 2],
    [['--count', '0'], /It is at least 1/, 2],
    [['--write', 'bar0'], /A write is REGION:OFFSET=VALUE/, 2],
    [['--write', 'bar0:0.b=256'], /does not fit 1 bytes/, 2],
    [['--write', 'bar5:0=1'], /the device has no bar5/, 1],
  ] as const)('says in a line what is wrong with %j', async (args, message, expected) => {
    const { status, stderr } = await vfioUser('irq', 'watch', socket, ...args);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
    expect(status).toBe(expected);
  });
});

describe('vfio-user reset', () => {
  test('resets the device', async () => {
    await vfioUser('write', socket, 'bar0', '4', '0x1234');
    expect(await vfioUser('reset', socket)).toMatchObject({ status: 0, stdout: 'the device was reset\n' });
    expect((await vfioUser('read', socket, 'bar0', '4')).stdout).toBe('0x00000000\n');
  });

  test('says that a device cannot be reset', async () => {
    const plain = scratch.path('plain');
    const other = await serve({ flags: 0, regions: [], irqs: [] }, { path: plain });
    expect(await vfioUser('reset', plain)).toMatchObject({
      status: 1,
      stderr: 'vfio-user: the device does not support reset [ERR_VFIO_USER_UNSUPPORTED]\n',
    });
    await other.close();
  });
});
