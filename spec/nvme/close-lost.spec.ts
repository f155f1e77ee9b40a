/** The connection is lost in the middle of an orderly shutdown, of a device that reconnects. */
import { expect, test } from '@jest/globals';
import { once } from 'node:events';
import { MemoryStore, NvmeDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import { NvmeController } from '../../lib/nvme/index.js';
import { Scratch } from '../cli/cli.js';
import { cleanup, pattern } from './fixture.js';

const DELETE_SQ = 0x00;
const CC = 0x14;
const SHN = 3 << 14;

test.each(['a queue is being deleted', 'CC.SHN is written'])(
  'while %s: close() succeeds, as there is nothing left to shut down',
  async (moment) => {
    const scratch = new Scratch();
    cleanup(() => scratch.remove());
    const path = scratch.path('s');
    const emulated = new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] });
    let server: EmulatorServer = await serve(emulated, { path });
    cleanup(() => server.close());
    const device = await connect(path, { reconnect: true });
    cleanup(() => device.close());
    let isCut = false;
    const cutOnce = () => {
      if (!isCut) void server.close();
      isCut = true;
    };
    if (moment === 'CC.SHN is written') {
      const { handler } = emulated.regions.find(({ index }) => index === 0)!;
      const { write } = handler!;
      handler!.write = (...of) => {
        const [offset, data] = of;
        if (offset === CC && (data.readUInt32LE() & SHN) !== 0) cutOnce();
        return write.apply(handler, of);
      };
    } else {
      emulated.intercept = ({ queue, opcode }) => {
        if (queue !== 0 || opcode !== DELETE_SQ || isCut) return 'pass';
        cutOnce();
        return 'hold';
      };
    }
    const controller = await NvmeController.open(device);
    const queue = await controller.createQueue();
    await queue.write(0, pattern(4096));
    const lost = once(device, 'lost');
    await controller.close();
    expect(isCut).toBe(true);
    expect(controller.state).toBe('closed');
    await lost;

    const back = once(device, 'reconnected');
    server = await serve(emulated, { path });
    await back;
    const again = await NvmeController.open(device);
    expect((await (await again.createQueue()).read(0, 8)).equals(pattern(4096))).toBe(true);
    await again.close();
  },
);
