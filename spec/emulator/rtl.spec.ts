/** Devices of RTL: what simulators say, right and wrong, as bytes by the protocol's text; and one suite on a model and on its RTL. */
import { afterAll, afterEach, describe, expect, jest, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import net, { type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { RtlError, openRtl, serve, type RtlDevice, type RtlOptions } from '../../lib/emulator/index.js';
import { connect, type Device } from '../../lib/index.js';
import { Scratch } from '../cli/cli.js';
import { until } from '../support/until.js';

jest.setTimeout(240_000);

const ID = { vendorId: 0x1234, deviceId: 0xd3a1 };
const cleanups: (() => unknown)[] = [];
let scratch = new Scratch();

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
  scratch.remove();
  scratch = new Scratch();
});

/** A frame, by docs/rtl.md. */
function frame(
  type: number,
  payload: Buffer = Buffer.alloc(0),
  { status = 0, time = 0n, size = -1 } = {},
): Buffer {
  const head = Buffer.alloc(16);
  head.writeUInt32LE(size < 0 ? 16 + payload.length : size, 0);
  head[4] = type;
  head[5] = status;
  head.writeBigUInt64LE(time, 8);
  return Buffer.concat([head, payload]);
}
const u32 = (...values: number[]): Buffer => {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => bytes.writeUInt32LE(value, i * 4));
  return bytes;
};
const u64 = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
};
const HELLO = frame(0x11, Buffer.concat([Buffer.from('VRTL'), u32(1)]));
const dma = (type: number, address: bigint, length: number, data = Buffer.alloc(0)): Buffer =>
  frame(type, Buffer.concat([u64(address), u32(length, 0), data]));

/** A simulator that answers as it is told. Frames of the bridge are given to `on`, by their type. */
class Peer {
  readonly seen: { type: number; payload: Buffer }[] = [];
  /** What to answer a frame with, in the place of what is right. */
  on: (type: number, payload: Buffer, answers: (...frames: Buffer[]) => void) => boolean = () => false;
  readonly #socket: Socket;
  #rest = Buffer.alloc(0);
  registers = new Map<number, bigint>();

  constructor(path: string, hello: Buffer = HELLO) {
    this.#socket = net.connect(path, () => this.#socket.write(hello));
    this.#socket.on('error', () => undefined);
    this.#socket.on('data', (chunk: Buffer) => this.#take(chunk));
    cleanups.push(() => this.#socket.destroy());
  }

  get isOver(): boolean {
    return this.#socket.destroyed || this.#socket.readableEnded;
  }

  send(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    let bytes = Buffer.concat([this.#rest, chunk]);
    while (bytes.length >= 4 && bytes.length >= bytes.readUInt32LE(0)) {
      const size = bytes.readUInt32LE(0);
      this.#frame(bytes[4]!, Buffer.from(bytes.subarray(16, size)));
      bytes = bytes.subarray(size);
    }
    this.#rest = bytes;
  }

  #frame(type: number, payload: Buffer): void {
    this.seen.push({ type, payload });
    if (this.on(type, payload, (...frames) => this.send(Buffer.concat(frames)))) return;
    const offset = type === 2 || type === 3 ? Number(payload.readBigUInt64LE(8)) : 0;
    if (type === 2) this.send(frame(0x82, u64(this.registers.get(offset) ?? 0n)));
    else if (type === 3) {
      this.registers.set(offset, payload.readBigUInt64LE(16));
      this.send(frame(0x83));
    } else if (type === 4) this.send(frame(0x84, u32(1, 1)));
    else if (type === 5) this.send(frame(0x85));
  }
}

interface Opened {
  peer: Peer;
  model: RtlDevice;
  device: Device;
}

async function open(more: Partial<RtlOptions> = {}): Promise<Opened> {
  const socket = scratch.path('rtl.sock');
  const options = { id: ID, bars: [{ index: 0, size: 4096 }], interrupts: { msix: 2 }, socket, ...more };
  const opening = openRtl(options);
  opening.catch(() => undefined);
  await until(() => existsSync(socket));
  const peer = new Peer(socket);
  const model = await opening;
  cleanups.push(() => model.close());
  const path = scratch.path('device.sock');
  const server = await serve(model, { path });
  cleanups.push(() => server.close());
  const device = await connect(path);
  cleanups.push(() => device.close());
  await device.enable();
  return { peer, model, device };
}

describe('a simulator that keeps to the protocol', () => {
  test('is told of the device, has accesses as beats, reaches memory and raises interrupts', async () => {
    const { peer, device, model } = await open();
    const [welcome, reset] = peer.seen;
    expect(welcome).toEqual({
      type: 1,
      payload: Buffer.concat([u32(1, 4, 2, 4096), u64(4096n), Buffer.alloc(40)]),
    });
    expect(reset?.type).toBe(5);
    peer.seen.length = 0;
    // Bytes 6 to 9 are the upper half of one word and the lower one of the next.
    await device.bar(0).write(6, Buffer.from([1, 2, 3, 4]));
    expect(peer.seen.filter(({ type }) => type === 3).map(({ payload }) => payload)).toEqual([
      Buffer.concat([Buffer.from([0, 0b1100, 0, 0]), u32(1_000), u64(4n), u64(0x0201_0000n)]),
      Buffer.concat([Buffer.from([0, 0b0011, 0, 0]), u32(1_000), u64(8n), u64(0x0403n)]),
    ]);
    peer.registers.set(4, 0x8877_6655n);
    expect(await device.bar(0).readUInt16(6)).toBe(0x8877);
    const [, vector] = await device.irqs.msix.enable(2);
    const buffer = await device.dma.alloc(4096);
    buffer.bytes.write('of the host');
    const answers: { type: number; payload: Buffer }[] = [];
    peer.on = (type, payload, send) => {
      if (type === 3) send(dma(0x12, buffer.iova, 11));
      else if (type === 0x92) {
        answers.push({ type, payload });
        send(dma(0x13, buffer.iova + 100n, 3, Buffer.from('new')));
      } else if (type === 0x93) {
        answers.push({ type, payload });
        send(frame(0x14, u32(1, 1), { time: 5_000n }), frame(0x83, undefined, { time: 5_000n }));
      } else return false;
      return true;
    };
    await device.bar(0).writeUInt32(0, 1);
    expect(answers).toEqual([
      { type: 0x92, payload: Buffer.from('of the host') },
      { type: 0x93, payload: Buffer.alloc(0) },
    ]);
    expect(buffer.bytes.toString('latin1', 100, 103)).toBe('new');
    expect(await vector!.wait({ timeoutMs: 5_000 })).toBe(1);
    expect(model.simulatedTime).toBe(5_000n);
  });

  test('errors of the bus are errors of the access, and the device goes on', async () => {
    const { peer, device } = await open();
    for (const [status, code] of [
      [1, 'EIO'],
      [2, 'ETIMEDOUT'],
    ] as const) {
      peer.on = (type, _payload, send) => type === 2 && (send(frame(0x82, undefined, { status })), true);
      await expect(device.bar(0).readUInt32(0)).rejects.toMatchObject({ code });
    }
    peer.on = () => false;
    expect(await device.bar(0).readUInt32(0)).toBe(0);
  });

  test('memory that is not there is an error for the simulator', async () => {
    const { peer, device } = await open();
    peer.on = (type, _payload, send) => {
      if (type === 3) send(dma(0x12, 1n << 40n, 8));
      else if (type === 0x92) send(frame(0x83));
      else return false;
      return true;
    };
    await device.bar(0).writeUInt32(0, 1);
    expect(peer.seen.at(-1)).toEqual({ type: 0x92, payload: Buffer.alloc(0) });
  });
});

describe('a simulator that does not', () => {
  const wrong: [string, Buffer, RegExp][] = [
    ['a size below a header', frame(0x82, undefined, { size: 15 }), /a frame of 15 bytes/],
    [
      'a size above the largest',
      frame(0x82, undefined, { size: 0x7fff_ffff }),
      /a frame of 2147483647 bytes/,
    ],
    ['an answer that is too short', frame(0x82, u32(1)), /has 4 bytes behind its header, not 8/],
    ['an answer to something else', frame(0x83), /sent answer to WRITE/],
    ['a type that there is not', frame(0x55), /sent type 0x55/],
    ['a second HELLO', HELLO, /sent HELLO/],
    ['a status that there is not', frame(0x82, u64(0n), { status: 9 }), /answered status 9/],
    ['a vector too high', frame(0x14, u32(2, 1)), /has vector 2; the device has 2/],
    ['a level that is none', frame(0x14, u32(0, 2)), /has level 2/],
    ['DMA of nothing', dma(0x12, 0n, 0), /is of 0 bytes/],
    ['DMA of too much', dma(0x12, 0n, 4097), /is of 4097 bytes/],
    ['DMA beyond 64 bits', dma(0x12, (1n << 64n) - 4n, 8), /ends above the 64-bit address space/],
    ['DMA with less data than it says', dma(0x13, 0n, 8, Buffer.alloc(4)), /has 20 bytes behind its header/],
    ['two answers', Buffer.concat([frame(0x82, u64(0n)), frame(0x82, u64(0n))]), /not its turn/],
  ];

  test.each(wrong)('%s ends it by name, and its neighbours go on', async (_name, bytes, message) => {
    const { peer, device, model } = await open({ runCycles: 0 });
    peer.on = (type, _payload, send) => type === 2 && (send(bytes), true);
    const read = device
      .bar(0)
      .readUInt32(0)
      .catch((error: unknown) => error);
    const reason = await model.closed;
    expect(reason).toBeInstanceOf(RtlError);
    expect(reason?.message).toMatch(message);
    await read;
    await expect(device.bar(0).readUInt32(0)).rejects.toMatchObject({ code: 'EIO' });
    // Config space is the bridge's own.
    expect(device.config.vendorId).toBe(ID.vendorId);
    await until(() => peer.isOver);
  });

  test('time that goes back', async () => {
    const { peer, device, model } = await open({ runCycles: 0 });
    let time = 10n;
    peer.on = (type, _payload, send) =>
      type === 2 && (send(frame(0x82, u64(0n), { time: (time -= 5n) })), true);
    await device.bar(0).readUInt32(0);
    await expect(device.bar(0).readUInt32(0)).rejects.toMatchObject({ code: 'EIO' });
    expect((await model.closed)?.message).toMatch(/simulated time went back, from 5 to 0 ps/);
  });

  test.each(['silent', 'gone'])(
    'one that is %s ends within its time, and whoever waits is told',
    async (how) => {
      const { peer, device, model } = await open({ timeoutMs: 200, runCycles: 0 });
      peer.on = (type) => {
        if (type === 2 && how === 'gone') peer.close();
        return type === 2;
      };
      await expect(device.bar(0).readUInt32(0)).rejects.toMatchObject({ code: 'EIO' });
      expect((await model.closed)?.message).toMatch(how === 'gone' ? /closed its socket/ : /within 200 ms/);
    },
  );

  test.each([
    ['no HELLO', frame(0x82), /began with answer to READ/],
    ['another magic', frame(0x11, Buffer.concat([Buffer.from('XRTL'), u32(1)])), /no "VRTL"/],
    ['another version', frame(0x11, Buffer.concat([Buffer.from('VRTL'), u32(2)])), /version 2, not 1/],
  ])('%s: there is no device', async (_name, hello, message) => {
    const socket = scratch.path('rtl.sock');
    const opening = openRtl({ id: ID, bars: [{ index: 0, size: 4096 }], socket });
    opening.catch(() => undefined);
    await until(() => existsSync(socket));
    const peer = new Peer(socket, hello);
    await expect(opening).rejects.toThrow(message);
    await until(() => peer.isOver);
  });
});

describe('starting', () => {
  const bars = [{ index: 0, size: 4096 }];

  test.each([
    [['/no/such/simulator'], /ended before it connected: .*ENOENT/],
    [['sh', '-c', 'echo no licence >&2; exit 3'], /exit status 3.*no licence/],
  ])('%j', async (command, message) => {
    const before = readdirSync('/tmp').filter((name) => name.startsWith('vfio-user-rtl-'));
    await expect(openRtl({ id: ID, bars, command })).rejects.toThrow(message);
    expect(readdirSync('/tmp').filter((name) => name.startsWith('vfio-user-rtl-'))).toEqual(before);
  });

  test('nobody connects, or it is given up', async () => {
    const command = ['sleep', '60'];
    await expect(openRtl({ id: ID, bars, command, startTimeoutMs: 50 })).rejects.toThrow(
      /no simulator connected within 50 ms/,
    );
    const controller = new AbortController();
    const opening = openRtl({ id: ID, bars, command, signal: controller.signal });
    await sleep(20);
    controller.abort(new Error('enough'));
    await expect(opening).rejects.toThrow('enough');
  });

  test.each([
    [{ id: ID, bars }, /command, socket or both/],
    [{ id: ID, bars, command: [] }, /a program and its arguments/],
    [{ id: ID, bars, command: ['x'], busBytes: 3 }, /busBytes/],
    [{ id: ID, bars: [{ index: 9, size: 1 }], command: ['x'] }, /index/],
    [{ id: ID, bars, command: ['x'], clock: 1 }, /unknown option clock/],
  ])('%j is refused', async (options, message) => {
    await expect(openRtl(options as never)).rejects.toThrow(message);
  });
});

describe('one suite', () => {
  // What is compiled is compiled once.
  const builds = new Scratch();
  afterAll(() => builds.remove());
  const SUITE = new URL('../../build/tools/examples/rtl/engine.test.js', import.meta.url).pathname;
  const has = (program: string, ...args: string[]): boolean => spawnSync(program, args).status === 0;
  const NEEDS: Readonly<Record<string, boolean>> = {
    model: true,
    verilator: has('verilator', '--version'),
    cocotb: has('iverilog', '-V') && has('cocotb-config', '--version'),
  };

  for (const [engine, isThere] of Object.entries(NEEDS)) {
    if (!isThere)
      console.warn(
        `skip: the RTL suite on ${engine} needs ${engine === 'cocotb' ? 'iverilog and cocotb' : engine}`,
      );
    (isThere ? test : test.skip)(`on ${engine}`, () => {
      const output = scratch.path('out');
      const env = {
        ...process.env,
        ENGINE: engine,
        ENGINE_BUILD: builds.path(engine),
        VFIO_USER_RIG_OUTPUT: output,
        NODE_OPTIONS: '',
      };
      const { status, stdout } = spawnSync(process.execPath, ['--test', SUITE], { env, encoding: 'utf8' });
      expect({ status, failed: /^not ok/m.test(stdout) ? stdout : '' }).toEqual({ status: 0, failed: '' });
      expect(stdout).toMatch(/^# pass 4$/m);
      expect(existsSync(output)).toBe(false);
    });
  }

  (NEEDS['verilator'] ? test : test.skip)('a failed test has the waveform in its report', () => {
    const output = scratch.path('out');
    const code = `
      import { openRig } from '${new URL('../../dist/testing/index.js', import.meta.url).href}';
      import { engine } from '${new URL('../../build/tools/examples/rtl/engine.js', import.meta.url).href}';
      const rig = await openRig({ ...engine('verilator'), name: 'fails', outputDir: ${JSON.stringify(output)} });
      await rig.expectRegister('ID', 1).catch(() => undefined);
      await rig.close();
      console.log(rig.attachments.map(({ name }) => name).join(' '));`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
      env: { ...process.env, ENGINE_BUILD: builds.path('verilator'), NODE_OPTIONS: '' },
      encoding: 'utf8',
    });
    expect({ stdout, stderr }).toMatchObject({ stdout: expect.stringContaining('waveform.vcd') });
    expect(readFileSync(`${output}/fails/waveform.vcd`, 'utf8')).toMatch(/\$enddefinitions/);
  });
});
