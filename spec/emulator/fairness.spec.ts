/** However much a client asks for at once, the loop turns in between: others have their turn. */
import { connect as connectSocket } from 'node:net';
import { Duplex } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import {
  NvmeDevice,
  MemoryStore,
  RamDevice,
  serveStream,
  type DeviceModel,
} from '../../lib/emulator/index.js';
import { proxy } from '../../lib/proxy/index.js';
import { Scratch } from '../cli/cli.js';
import { opened } from '../nvme/fixture.js';
import { regionReadRequest, request, versionRequest, wire } from '../support/wire.js';
import { cleanup } from './fixture.js';

/** A client that has said all that it has to say, and takes whatever comes. */
class Talker extends Duplex {
  replies = 0;
  /** Replies by the loop's turns. */
  readonly byTurn: number[] = [];
  #rest: Buffer = Buffer.alloc(0);

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 16 && this.#rest.length >= this.#rest.readUInt32LE(4)) {
      this.#rest = this.#rest.subarray(this.#rest.readUInt32LE(4));
      this.replies++;
    }
    done();
  }

  /** The turns that it takes until so many replies have come. */
  async turnsUntil(count: number): Promise<number> {
    let turns = 0;
    for (; this.replies < count; turns++) {
      const before = this.replies;
      await turn();
      this.byTurn.push(this.replies - before);
    }
    return turns;
  }
}

function talkTo(device: DeviceModel): Talker {
  const talker = new Talker();
  const server = serveStream(device, talker);
  cleanup(() => server.close());
  talker.push(versionRequest({ minor: 2 }));
  return talker;
}

function ram(): RamDevice {
  const device = new RamDevice();
  cleanup(() => device.close());
  return device;
}

const MANY = 20_000;
/** On any machine these take more than a share of a turn, and so more than a few turns. */
const FEW_TURNS = 5;

describe('commands that come all at once', () => {
  test.each([
    ['that nobody knows', request(77, Buffer.alloc(0))],
    ['that are answered', regionReadRequest({ offset: 0, region: 0, count: 4 })],
    ['that take a promise', request(15, wire().u64(1).u64(0).u32(0).u32(4).zeros(8))],
  ])('%s', async (_what, command) => {
    const talker = talkTo(ram());
    talker.push(Buffer.concat(Array.from({ length: MANY }, () => command)));
    expect(await talker.turnsUntil(MANY + 1)).toBeGreaterThan(FEW_TURNS);
    // Nothing was lost, and nothing answered twice.
    await turn();
    expect(talker.replies).toBe(MANY + 1);
  });
});

test('an NVMe queue that is full is carried out in more than one turn', async () => {
  const { controller } = await opened({ emulated: { queueEntries: 1024 } });
  const queue = await controller.createQueue({ entries: 1024, buffers: { bytes: 65_536, count: 8 } });
  for (let i = 0; i < queue.depth; i++) queue.submitRead(0, 128, i % 8, i);
  queue.ring();
  let done = 0;
  let turns = 0;
  for (; done < queue.depth; turns++) {
    await turn();
    done += queue.poll();
  }
  expect(turns).toBeGreaterThan(FEW_TURNS);
});

test('a namespace that is cleared is as large as it likes', async () => {
  const device = new NvmeDevice({ namespaces: [{ store: new MemoryStore(2 ** 45) }] });
  cleanup(() => device.close());
  const store = device.namespaces[0]!.store;
  await store.write(2 ** 44, Buffer.alloc(10, 7));
  // One look at each MiB would take minutes.
  await store.clear(0, 2 ** 44 + 5);
  expect((await store.read(2 ** 44, 10)).toString('hex')).toBe('00000000000707070707');
});

test('a proxy passes on what comes all at once in more than one turn', async () => {
  const scratch = new Scratch();
  cleanup(() => scratch.remove());
  const server = new Talker();
  const listen = scratch.path('proxy.sock');
  const between = await proxy({ listen, connect: { dial: () => server } });
  cleanup(() => between.close());
  const client = connectSocket(listen);
  cleanup(() => client.destroy());
  client.write(Buffer.concat(Array.from({ length: MANY }, () => request(77, Buffer.alloc(0)))));
  expect(await server.turnsUntil(MANY)).toBeGreaterThan(FEW_TURNS);
});
