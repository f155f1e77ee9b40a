import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { appendFileSync, writeFileSync } from 'node:fs';
import { CaptureWriter, LineFormatter } from '../../lib/trace/index.js';
import { MESSAGES, SAMPLES } from '../trace/samples.js';
import { Scratch, vfioUser } from './cli.js';

let scratch: Scratch;
let file: string;

beforeEach(async () => {
  scratch = new Scratch();
  file = scratch.path('dev.pcapng');
  const writer = await CaptureWriter.open({ path: file });
  for (const message of MESSAGES) writer.write(message);
  writer.close();
});

afterEach(() => scratch.remove());

function lines(text: string): string[] {
  return text.split('\n').slice(0, -1);
}

describe('vfio-user capture show', () => {
  test('prints the lines that a trace prints', async () => {
    const { status, stdout, stderr } = await vfioUser('capture', 'show', file);
    const formatter = new LineFormatter();
    expect(lines(stdout)).toEqual(MESSAGES.map((message) => formatter.format(message)));
    expect([status, stderr]).toEqual([0, '']);
  });

  test('shows as much data as is wanted', async () => {
    const { stdout } = await vfioUser('capture', 'show', '--bytes', '300', file);
    const { data } = SAMPLES.find((sample) => sample.data?.length === 600)!;
    expect(stdout).toContain(`data=${data}`);
    expect(stdout).not.toContain('bytes)');
  });

  test('prints one object on each line with --json', async () => {
    const { status, stdout } = await vfioUser('capture', 'show', '--json', file);
    const objects = lines(stdout).map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(status).toBe(0);
    expect(objects).toHaveLength(MESSAGES.length);
    for (const [i, object] of objects.entries()) {
      const { command, kind, errno, fds, socket, direction } = SAMPLES[i]!;
      expect(object).toMatchObject({
        command,
        kind,
        fds,
        socket,
        direction,
        time: MESSAGES[i]!.time.toString(),
        ...(errno !== undefined && { errno }),
      });
      if (kind === 'reply') expect(object['latency']).toBe(12_345);
    }
    const read = objects.find((object) => object['command'] === 'DMA_READ');
    // What a number of JSON does not hold is hexadecimal.
    expect(read).toMatchObject({ fields: { address: '0xffff000000001000', count: 3 } });
  });

  test('says that the file ends in the middle of a message, after all that is whole', async () => {
    appendFileSync(file, Buffer.from([6, 0, 0, 0, 100]));
    const { status, stdout, stderr } = await vfioUser('capture', 'show', file);
    expect(lines(stdout)).toHaveLength(MESSAGES.length);
    expect(stderr).toBe(`vfio-user: the last 5 bytes of ${file} are not a whole block\n`);
    expect(status).toBe(0);
  });

  test('names what is wrong with a file', async () => {
    writeFileSync(file, 'this is no capture at all');
    const { status, stderr } = await vfioUser('capture', 'show', file);
    expect(stderr).toMatch(/^vfio-user: this is not a pcapng file.*\[ERR_VFIO_USER_CAPTURE\]\n$/);
    expect(status).toBe(1);
    const missing = await vfioUser('capture', 'show', scratch.path('none'));
    expect(missing.stderr).toContain('ENOENT');
    expect(missing.status).toBe(1);
  });

  test('wants a file', async () => {
    const { status, stderr } = await vfioUser('capture', 'show');
    expect(status).toBe(2);
    expect(stderr).toContain("missing required argument 'FILE'");
  });
});
