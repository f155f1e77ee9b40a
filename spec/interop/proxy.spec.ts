/**
 * Clients and servers that others wrote, with the proxy between them. VFIO_USER_LVU_SAMPLES names the directory of
 * libvfio-user's samples (commit ca9943b); VFIO_USER_SPDK the directory of a running target, with `malloc/cntrl` in it,
 * and VFIO_USER_SPDK_PERF the program spdk_nvme_perf.
 */
import { describe, expect, jest, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type Device } from '../../lib/index.js';
import { proxy, type ProxyOptions, type ProxyServer } from '../../lib/proxy/index.js';
import {
  CaptureReader,
  describe as describeMessage,
  isMessage,
  type Description,
} from '../../lib/trace/index.js';
import { outcomeOf, Scratch, type Outcome } from '../cli/cli.js';
import { hasTshark, tshark } from '../trace/tshark.js';
import { ServerProcess } from './server-process.js';

jest.setTimeout(120_000);

const samples = process.env['VFIO_USER_LVU_SAMPLES'] ?? '';
const withSamples = samples === '' ? describe.skip : describe;
const spdk = process.env['VFIO_USER_SPDK'] ?? '';
const perf = process.env['VFIO_USER_SPDK_PERF'] ?? '';
const withPerf = spdk === '' || perf === '' ? describe.skip : describe;

const MALFORMED = 'vfio_user.malformed || _ws.malformed || _ws.lua.error || vfio_user.cut';

class Fixture implements AsyncDisposable {
  readonly scratch = new Scratch();
  readonly capture = this.scratch.path('capture.pcapng');
  #proxy: ProxyServer | undefined;

  async proxy(options: ProxyOptions): Promise<ProxyServer> {
    this.#proxy = await proxy({ waitForSocket: true, timeoutMs: 20_000, capture: this.capture, ...options });
    return this.#proxy;
  }

  /** All that was captured. */
  async captured(): Promise<{ messages: Description[]; interrupts: number }> {
    const messages: Description[] = [];
    let interrupts = 0;
    for await (const event of new CaptureReader(this.capture).events()) {
      if (isMessage(event)) {
        messages.push(describeMessage(event.bytes, { direction: event.direction, fds: event.fds }));
      } else interrupts += event.count;
    }
    return { messages, interrupts };
  }

  async tsharkFinds(): Promise<string> {
    return hasTshark ? tshark(this.capture, this.scratch.directory, '-Y', MALFORMED) : '';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#proxy?.close();
    this.scratch.remove();
  }
}

function run(program: string, ...args: string[]): Promise<Outcome> {
  const env = { ...process.env, LD_PRELOAD: '' };
  return outcomeOf(spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] }));
}

function count(messages: readonly Description[], command: string, kind: Description['kind']): number {
  return messages.filter((message) => message.command === command && message.kind === kind).length;
}

withSamples("libvfio-user's samples (VFIO_USER_LVU_SAMPLES)", () => {
  test('its client passes against its server, and the capture has all that they said', async () => {
    await using fixture = new Fixture();
    await using server = new ServerProcess(path.join(samples, 'server'), (socket) => ['-v', socket]);
    const front = fixture.scratch.path('front');
    const between = await fixture.proxy({ listen: front, connect: server.socket });
    const client = await run(path.join(samples, 'client'), front);
    expect([client.status, await server.exited()]).toEqual([0, 0]);
    for (let i = 0; i < 500 && between.counters.open > 0; i++) await sleep(10);
    await between.close();

    const { messages, interrupts } = await fixture.captured();
    const { toServer, toClient } = between.counters;
    expect(messages).toHaveLength(toServer.messages + toClient.messages);
    expect(messages.filter(({ malformed }) => malformed !== undefined)).toEqual([]);
    // Every request is there with its reply; the server's own ones among them.
    for (const command of new Set(messages.map((message) => message.command))) {
      expect([command, count(messages, command, 'reply')]).toEqual([
        command,
        count(messages, command, 'request'),
      ]);
    }
    expect(messages.filter(({ kind }) => kind === 'request').map(({ command }) => command)).toEqual(
      expect.arrayContaining([
        'VERSION',
        'DMA_MAP',
        'DEVICE_SET_IRQS',
        'DMA_READ',
        'DMA_WRITE',
        'MIG_DATA_READ',
      ]),
    );
    expect(interrupts).toBeGreaterThan(0);
    expect(await fixture.tsharkFinds()).toBe('');
  });

  test.each([true, false])(
    'our client against its server: interrupt, then DMA (twin socket: %p)',
    async (twinSocket) => {
      await using fixture = new Fixture();
      await using server = new ServerProcess(path.join(samples, 'server'), (socket) => ['-v', socket]);
      const front = fixture.scratch.path('front');
      const between = await fixture.proxy({ listen: front, connect: server.socket });
      const device: Device = await connect(front, { twinSocket, timeoutMs: 20_000 });
      const byMessage = await device.dma.alloc(8 << 20, { share: false });
      const byFd = await device.dma.alloc(8 << 20);
      const [vector] = await device.irqs.intx.enable(1);
      await device.bar(0).writeUInt64(0, BigInt(Math.floor(Date.now() / 1000) + 2));
      expect(await vector.wait({ timeoutMs: 15_000 })).toBe(1);
      for (let i = 0; i < 1000 && !server.log.includes('MESSAGE success'); i++) await sleep(10);
      expect(server.log).toMatch(/DIRECT success/);
      expect(byFd.bytes.subarray(0, 4).toString()).toBe('AAAA');
      expect(byMessage.bytes.subarray(0, 4).toString()).toBe('AAAA');
      await device.close();
      await between.close();
      const { messages, interrupts } = await fixture.captured();
      expect(interrupts).toBe(1);
      expect(count(messages, 'DMA_WRITE', 'request')).toBe(4);
      expect(count(messages, 'DMA_READ', 'reply')).toBe(2);
      expect(await fixture.tsharkFinds()).toBe('');
    },
  );
});

withPerf('spdk_nvme_perf (VFIO_USER_SPDK and VFIO_USER_SPDK_PERF)', () => {
  test('its doorbells stay mapped: many reads, few messages', async () => {
    await using fixture = new Fixture();
    const directory = fixture.scratch.path('front');
    mkdirSync(directory);
    const back = path.join(spdk, 'malloc', 'cntrl');
    expect(existsSync(back)).toBe(true);
    const between = await fixture.proxy({ listen: path.join(directory, 'cntrl'), connect: back });
    const nqn = process.env['VFIO_USER_SPDK_NQN'] ?? 'nqn.2019-07.io.spdk:malloc';
    const target = `trtype:VFIOUSER traddr:${directory} subnqn:${nqn} ns:1`;
    const load = ['-q', '32', '-o', '4096', '-w', 'randread', '-t', '2', '-c', '0x1'];
    const { status, stdout } = await run(perf, ...load, '--no-huge', '-s', '256', '-r', target);
    expect(status).toBe(0);
    const perSecond = Number(/^Total +: +([\d.]+)/m.exec(stdout)?.[1]);
    for (let i = 0; i < 500 && between.counters.open > 0; i++) await sleep(10);
    await between.close();
    const { toServer, toClient } = between.counters;
    expect(toServer.messages).toBeLessThan(200);
    expect(toClient.messages).toBeLessThan(200);
    expect(perSecond * 2).toBeGreaterThan(10 * (toServer.messages + toClient.messages));
    const { messages } = await fixture.captured();
    expect(messages.filter(({ malformed }) => malformed !== undefined)).toEqual([]);
    expect(await fixture.tsharkFinds()).toBe('');
  });
});
