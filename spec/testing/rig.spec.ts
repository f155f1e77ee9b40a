/** A rig as a test has it: opened, looked at, failed, and gone without a trace. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { EduDevice, RamDevice } from '../../lib/emulator/index.js';
import { rigTest as jestRigTest } from '../../lib/testing/jest.js';
import { ExpectationError, leftOpen, openRig, type Rig, type RigOptions } from '../../lib/testing/index.js';
import { rigFixture as playwrightFixture } from '../../lib/testing/playwright.js';
import { rigFixture as vitestFixture } from '../../lib/testing/vitest.js';
import { CaptureReader } from '../../lib/trace/index.js';
import { MAIN, Scratch } from '../cli/cli.js';
import { EDU_MAP } from '../cli/edu-map.js';
import { openFds } from '../support/fds.js';

jest.setTimeout(120_000);

const run = promisify(execFile);
const LOADER = path.join(import.meta.dirname, '..', '..');

let scratch: Scratch;
let map: string;
let outputDir: string;

beforeEach(() => {
  scratch = new Scratch();
  map = scratch.path('edu.json');
  outputDir = scratch.path('results');
  writeFileSync(map, JSON.stringify(EDU_MAP));
});

afterEach(() => scratch.remove());

function rigDirectories(): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith('vfio-user-rig-'));
}

const SERVERS: readonly [string, () => RigOptions][] = [
  ['a model that is called', () => ({ device: () => new EduDevice() })],
  ['a model behind a socket', () => ({ device: () => new EduDevice(), via: 'socket' })],
  ['a process', () => ({ command: [process.execPath, MAIN, 'emulate', 'edu', '--socket', '{socket}'] })],
];

describe.each(SERVERS)('%s', (_, server) => {
  const open = (options: RigOptions = {}): Promise<Rig> =>
    openRig({ ...server(), map, outputDir, timeoutMs: 60_000, ...options });

  test('registers by name, an interrupt in time, DMA; and nothing is left behind', async () => {
    const before = openFds();
    const directories = rigDirectories();
    const rig = await open();
    await rig.expectRegister('ID', 0x010000ed);
    await rig.register('FACTORIAL').write(4);
    await rig.expectRegister('STATUS.COMPUTING', 0, { within: 5_000 });
    await rig.expectRegister('FACTORIAL', 24);
    await rig.expectRegister('STATUS', { computing: 0, interrupt: 0 });
    const [vector] = await rig.device.irqs.msi.enable(1);
    await rig.expectNoInterrupt(vector, { for: 20 });
    await rig.register('IRQ_RAISE').write(1);
    expect(await rig.expectInterrupt(vector, { within: 5_000 })).toBe(1);
    expect(existsSync(rig.directory)).toBe(true);
    await rig.close();
    expect(existsSync(rig.directory)).toBe(false);
    expect(rig.attachments).toEqual([]);
    expect(existsSync(outputDir)).toBe(false);
    expect(rigDirectories()).toEqual(directories);
    expect(openFds()).toEqual(before);
    expect(leftOpen()).toEqual([]);
  });

  test('started again, it is another device', async () => {
    const rig = await open();
    const { device } = rig;
    await rig.restart({ signal: 'SIGKILL' });
    expect(device.isClosed).toBe(true);
    await rig.expectRegister('ID', 0x010000ed);
    await rig.close();
  });

  test('closed while it is started again: nothing is left behind', async () => {
    const directories = rigDirectories();
    const rig = await open();
    const restarted = rig.restart();
    const twice = rig.restart();
    const closed = rig.close();
    await expect(Promise.all([restarted, twice])).rejects.toThrow('the rig is closed');
    await closed;
    await expect(rig.restart()).rejects.toThrow('the rig is closed');
    expect(() => rig.device).toThrow(/no device/);
    expect(rigDirectories()).toEqual(directories);
    expect(leftOpen()).toEqual([]);
  });

  test('a failed expectation says what was there, and leaves evidence', async () => {
    const rig = await open({ name: 'reads: ID' });
    await rig.register('STATUS').write({ interrupt: 1 });
    await expect(rig.expectRegister('STATUS.INTERRUPT', 0, { within: 10 })).rejects.toMatchObject({
      name: 'ExpectationError',
      code: 'ERR_VFIO_USER_EXPECTATION',
      message: 'STATUS.INTERRUPT is 1, not 0 after 10 ms; STATUS is 0x00000080 {interrupt}',
      actual: 1,
      expected: 0,
    });
    expect(rig.hasFailed).toBe(true);
    await rig.close();
    const names = rig.attachments.map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining(['error.txt', 'registers.txt', 'messages.txt', 'capture.pcapng']),
    );
    const text = (name: string): string => {
      const found = rig.attachments.find((one) => one.name === name);
      return readFileSync(found?.path ?? '', 'utf8');
    };
    expect(path.dirname(rig.attachments[0]?.path ?? '')).toBe(path.join(outputDir, 'reads-ID'));
    expect(text('registers.txt')).toContain('  STATUS: 0x00000080 {interrupt}\n');
    expect(text('messages.txt')).toMatch(/REGION_WRITE .* STATUS 0x00000080 \{interrupt\}/);
    let messages = 0;
    const capture = rig.attachments.find(({ name }) => name === 'capture.pcapng');
    for await (const _event of new CaptureReader(capture?.path ?? '')) messages++;
    expect(messages).toBeGreaterThan(10);
  });
});

test('faults on a named register and on an interrupt, through a socket too, and what happened is said', async () => {
  const faults: RigOptions['faults'] = [
    { fault: 'wrong-value', register: 'ID', value: 1, nth: 2 },
    { fault: 'lost-interrupt', irq: 'msi', nth: 1 },
  ];
  for (const via of ['call', 'socket'] as const) {
    const rig = await openRig({ device: () => new EduDevice(), via, map, outputDir, faults });
    await rig.expectRegister('ID', 0x010000ed);
    await rig.expectRegister('ID', 1);
    const [vector] = await rig.device.irqs.msi.enable(1);
    await rig.register('IRQ_RAISE').write(1);
    await expect(rig.expectInterrupt(vector, { within: 20 })).rejects.toThrow(
      'MSI 0 did not come within 20 ms',
    );
    await rig.close();
    expect(rig.faultReport()?.fired.map(({ fault }) => fault)).toEqual([
      'wrong-value ID=0x1',
      'lost-interrupt',
    ]);
    expect(rig.attachments.map(({ name }) => name)).toContain('faults.json');
  }
});

test('DMA memory, written and not', async () => {
  const rig = await openRig({ device: () => new RamDevice(), outputDir, capture: 'never' });
  const [from, to] = [await rig.device.dma.alloc(4096), await rig.device.dma.alloc(4096)];
  from.bytes.fill(7);
  const bar = rig.device.bar(0);
  await bar.writeUInt64(0x10, from.iova);
  await bar.writeUInt64(0x18, to.iova);
  await bar.writeUInt32(0x20, 16);
  const written = rig.expectDma({ buffer: to, offset: 0, length: 16 }, { within: 10_000 });
  await bar.writeUInt32(0x24, 1);
  await written;
  await rig.expectDma(to, { bytes: Buffer.alloc(16, 7) });
  await expect(rig.expectDma({ buffer: to, offset: 16 }, { within: 10 })).rejects.toThrow(
    /nothing was written to 4080 bytes of DMA memory within 10 ms/,
  );
  await expect(rig.expectDma(to, { bytes: Buffer.alloc(0) })).rejects.toThrow(RangeError);
  const never = rig.expectDma(to, { within: 10_000 });
  await to.close();
  await expect(never).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
  await rig.close();
});

describe('what cannot be', () => {
  test.each<[string, RigOptions, RegExp]>([
    ['nothing', {}, /options must be given one of device, command, socket, endpoint, pci/],
    ['two', { socket: '/x', pci: '0000:00:00.0' }, /socket and pci/],
    ['an unknown option', { sokcet: '/x' } as RigOptions, /unknown option sokcet.*did you mean socket/],
    ['a command without a place', { command: ['true'] }, /a program that is told of '\{socket\}'/],
    ['faults of hardware', { pci: '0000:00:00.0', faults: [] }, /hardware has its own/],
    [
      'a fault without a map',
      { device: new EduDevice(), faults: [{ fault: 'lost-write', register: 'A' }] },
      /no map/,
    ],
  ])('%s is refused', async (_, options, reason) => {
    await expect(openRig(options)).rejects.toThrow(reason);
  });

  test('a server that does not start says so, with its words, and leaves nothing', async () => {
    const directories = rigDirectories();
    const command = [process.execPath, '-e', 'console.log("no such device"); process.exit(3)', '{socket}'];
    await expect(openRig({ command, outputDir })).rejects.toThrow(
      /^the server ended: exit status 3 \(.*\); it said: no such device$/,
    );
    await expect(openRig({ command: ['/no/such/program', '{socket}'], outputDir })).rejects.toThrow(/ENOENT/);
    expect(rigDirectories()).toEqual(directories);
  });

  test('a server that dies in the test is the reason', async () => {
    const command = [process.execPath, MAIN, 'emulate', 'edu', '--socket', '{socket}', '--fault'];
    const fault = 'server-killed:region=bar0,nth=1';
    const rig = await openRig({ command: [...command, fault], map, outputDir, timeoutMs: 60_000 });
    await expect(rig.register('ID').read()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    await new Promise((resolve) => setTimeout(resolve, 500));
    await expect(rig.close()).rejects.toThrow(/the server ended by itself/);
    expect(rig.attachments.map(({ name }) => name)).toContain('server.log');
  });
});

describe('adapters', () => {
  const failing = async ({ rig }: { rig: Rig }): Promise<void> => rig.expectRegister('ID', 0);

  test('Jest: a test is named, and what a failed one leaves is on the console', async () => {
    const tests: { name: string; body: () => Promise<unknown> }[] = [];
    const options = { device: () => new EduDevice(), map, outputDir };
    const rigTest = jestRigTest(options, (name, body) => void tests.push({ name, body }));
    rigTest('reads nothing', failing);
    const log = jest.spyOn(console, 'log').mockImplementation(() => undefined);
    try {
      await expect(tests[0]?.body()).rejects.toThrow(ExpectationError);
      expect(log.mock.calls.flat()).toContain(
        `[[ATTACHMENT|${path.join(outputDir, 'reads-nothing', 'capture.pcapng')}]]`,
      );
    } finally {
      log.mockRestore();
    }
  });

  test("node:test: the junit reporter has the attachment's line", async () => {
    const file = scratch.path('edu.test.mjs');
    const from = (name: string): string => JSON.stringify(path.join(LOADER, 'dist', name, 'index.js'));
    writeFileSync(
      file,
      `import { EduDevice } from ${from('emulator')};
import { rigTest } from ${JSON.stringify(path.join(LOADER, 'dist', 'testing', 'node-test.js'))};
const test = rigTest({ device: () => new EduDevice(), map: ${JSON.stringify(map)}, outputDir: ${JSON.stringify(outputDir)} });
test('good', ({ rig }) => rig.expectRegister('ID', 0x010000ed));
test('bad', ({ rig }) => rig.expectRegister('ID', 5));
`,
    );
    const failed = await run(process.execPath, ['--test', '--test-reporter=junit', file]).catch(
      (error: unknown) => error,
    );
    const { stdout, code } = failed as { stdout: string; code: number };
    expect(code).toBe(1);
    expect(stdout).toContain(`[[ATTACHMENT|${path.join(outputDir, 'bad', 'capture.pcapng')}]]`);
    expect(stdout).toContain('ID is 0x010000ed, not 5');
    expect(readdirSync(outputDir)).toEqual(['bad']);
  });

  test('Vitest and Playwright: fixtures that report in their ways', async () => {
    const options = { device: () => new EduDevice(), map, outputDir };
    const notes: string[] = [];
    const task: { name: string; result?: { state: string; errors: unknown[] } } = { name: 'v' };
    const log = jest.spyOn(console, 'log').mockImplementation(() => undefined);
    await vitestFixture(options)({ task, annotate: (name) => notes.push(name) }, async (rig) => {
      const error: unknown = await failing({ rig }).catch((reason: unknown) => reason);
      task.result = { state: 'fail', errors: [error] };
    });
    log.mockRestore();
    expect(notes).toContain('capture.pcapng');
    const attached: string[] = [];
    const info = {
      title: 'p',
      status: 'failed',
      expectedStatus: 'passed',
      outputPath: () => scratch.path('playwright'),
      attach: async (name: string) => void attached.push(name),
    };
    await playwrightFixture({ device: () => new EduDevice(), map })({}, async () => undefined, info);
    expect(attached).toContain('registers.txt');
    expect(readdirSync(scratch.path('playwright'))).toEqual(['p']);
  });
});
