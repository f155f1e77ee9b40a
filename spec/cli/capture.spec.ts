import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { CaptureWriter, LineFormatter } from '../../lib/trace/index.js';
import { MESSAGES, SAMPLES } from '../trace/samples.js';
import { Scratch, outcomeOf, start, vfioUser } from './cli.js';

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
    expect(stderr).toBe(
      `vfio-user: the last 5 bytes of ${file} are not a whole block [ERR_VFIO_USER_CAPTURE]\n`,
    );
    // Not all of what was asked for could be shown.
    expect(status).toBe(1);
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

  test('fails for a file with nothing in it', async () => {
    writeFileSync(file, '');
    const { status, stdout, stderr } = await vfioUser('capture', 'show', file);
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toBe('vfio-user: the file is empty: it is no capture [ERR_VFIO_USER_CAPTURE]\n');
    expect((await vfioUser('capture', 'show', '-')).status).toBe(1);
  });

  test('reads stdin, and what gzip has compressed', async () => {
    const plain = await vfioUser('capture', 'show', file);
    const compressed = `${file}.gz`;
    writeFileSync(compressed, gzipSync(readFileSync(file)));
    expect((await vfioUser('capture', 'show', compressed)).stdout).toBe(plain.stdout);
    for (const name of [file, compressed]) {
      const piped = start(['capture', 'show', '-'], ['pipe', 'pipe', 'pipe']);
      piped.stdin!.end(readFileSync(name));
      expect(await outcomeOf(piped)).toMatchObject({ status: 0, stdout: plain.stdout, stderr: '' });
    }
    const cut = start(['capture', 'show', '-', '--json'], ['pipe', 'pipe', 'pipe']);
    cut.stdin!.end(readFileSync(file).subarray(0, -3));
    const { status, stderr } = await outcomeOf(cut);
    expect(stderr).toMatch(/the last \d+ bytes of stdin are not a whole block/);
    expect(status).toBe(1);
  });

  test('says of packets that it does not show how many they are', async () => {
    // Four simple packets 'abcd', of the link type of ours but not for our dissector.
    const block = (type: number, body: string) => {
      const length = (12 + body.length / 2).toString(16).padStart(2, '0');
      return (
        `${type.toString(16).padStart(8, '0')}`.match(/../g)!.reverse().join('') +
        `${length}000000${body}${length}000000`
      );
    };
    const foreign = Array.from({ length: 4 }, () =>
      block(3, `04000000${Buffer.from('abcd').toString('hex')}`),
    );
    const interfaces = block(0x0a0d0d0a, '4d3c2b1a01000000ffffffffffffffff') + block(1, 'fc00000000000000');
    writeFileSync(file, Buffer.from(interfaces + foreign.join(''), 'hex'));
    const none = await vfioUser('capture', 'show', file);
    expect(none.stderr).toBe(
      `vfio-user: none of the 4 packets of ${file} is of vfio-user [ERR_VFIO_USER_CAPTURE]\n`,
    );
    expect([none.status, none.stdout]).toEqual([1, '']);

    const bytes = MESSAGES[0]!.bytes;
    const data = Buffer.concat([
      Buffer.from('000c000c', 'hex'),
      Buffer.from('vfio_user\0\0\0'),
      Buffer.alloc(4),
      bytes,
    ]);
    const size = Buffer.alloc(4);
    size.writeUInt32LE(data.length);
    const ours = block(3, Buffer.concat([size, data, Buffer.alloc(-data.length & 3)]).toString('hex'));
    writeFileSync(file, Buffer.from(interfaces + foreign.join('') + ours, 'hex'));
    const some = await vfioUser('capture', 'show', file);
    expect(some).toMatchObject({
      status: 0,
      stderr: 'vfio-user: 4 packets of other protocols are not shown\n',
      stdout: expect.stringMatching(/^ +0\.000000 interface 0 [^\n]+\n$/),
    });

    writeFileSync(file, Buffer.from(interfaces, 'hex'));
    expect(await vfioUser('capture', 'show', file)).toMatchObject({
      status: 0,
      stdout: '',
      stderr: `vfio-user: there are no packets in ${file}\n`,
    });
  });

  test('wants a file', async () => {
    const { status, stderr } = await vfioUser('capture', 'show');
    expect(status).toBe(2);
    expect(stderr).toContain("missing required argument 'FILE'");
  });
});
