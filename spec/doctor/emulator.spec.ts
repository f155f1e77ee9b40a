/** Our own server keeps every rule: where it does not, the server is mended. */
import { afterAll, describe, expect, jest, test } from '@jest/globals';
import { diagnose, spawner } from '../../lib/doctor/index.js';
import {
  EduDevice,
  MemoryStore,
  NvmeDevice,
  RamDevice,
  serve,
  type DeviceModel,
  type EmulatorOptions,
} from '../../lib/emulator/index.js';
import { MAIN, Scratch } from '../cli/cli.js';
import { PatternDevice } from '../cli/emulator.js';

jest.setTimeout(120_000);

const scratch = new Scratch();
afterAll(() => scratch.remove());

async function examine(device: DeviceModel, options: EmulatorOptions = {}) {
  const path = scratch.path(`s${Math.random().toString(36).slice(2)}`);
  await using server = await serve(device, { path, ...options });
  void server;
  return await diagnose(path, { readOnly: false, timeoutMs: 5_000 });
}

describe('every rule is kept by', () => {
  test.each<[string, () => DeviceModel]>([
    ['edu', () => new EduDevice()],
    ['ram', () => new RamDevice()],
    ['nvme', () => new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] })],
    ['a device with mappable areas', () => new PatternDevice()],
  ])('%s', async (_name, make) => {
    const report = await examine(make());
    const short = report.rules.filter(({ verdict }) => verdict !== 'kept' && verdict !== 'not applicable');
    expect(short.map(({ id, verdict, detail }) => `${id}: ${verdict}, ${detail}`)).toEqual([]);
    expect(report.recognised).toMatchObject({ name: 'vfio-user emulate', confidence: 1 });
    expect(report.identity.version).toBe('0.2');
    expect(report.traits.find(({ id }) => id === 'clients.next')).toMatchObject({
      value: 'takes the next one',
    });
  });

  test('one that answers minor 0 and gives no twin socket', async () => {
    const report = await examine(new EduDevice(), { minor: 0, twinSocket: false });
    expect(report.rules.filter(({ verdict }) => verdict === 'broken')).toEqual([]);
    expect(report.identity.version).toBe('0.0');
  });
});

describe('servers that are started for each probe', () => {
  test('one that runs, one that does not listen', async () => {
    const start = spawner(`exec '${process.execPath}' '${MAIN}' emulate edu --socket {socket}`);
    const report = await diagnose({ start }, { only: ['stream.glued'], timeoutMs: 5_000 });
    expect(report.rules.find(({ id }) => id === 'stream.glued')).toMatchObject({ verdict: 'kept' });
    const failing = await diagnose(
      { start: spawner('exit 3 # {socket}') },
      { startTimeoutMs: 200, timeoutMs: 200 },
    );
    expect(failing.summary.kept + failing.summary.broken).toBe(0);
    expect(() => spawner('server')).toThrow(TypeError);
  });
});
