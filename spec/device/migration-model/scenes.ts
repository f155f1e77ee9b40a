/** Steps that are several in one, as single ones come together too rarely; and what other clients do. */
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { MigrationState, VfioUserError, connect, type Device } from '../../../lib/index.js';
import type { Record } from './record.js';
import type { Side } from './side.js';
import type { Step } from './steps.js';
import type { RestoreStep, Transfers } from './transfers.js';

const WHOLE: RestoreStep = {
  stream: 'whole',
  chunkBytes: 16_384,
  end: 'all',
  after: 0,
  isAbortable: false,
  run: true,
};
const OTHERS_MS = 300;

export class Scenes {
  readonly #record: Record;
  readonly #transfers: Transfers;
  readonly #source: Side;
  readonly #destination: Side;

  constructor(record: Record, transfers: Transfers, source: Side, destination: Side) {
    this.#record = record;
    this.#transfers = transfers;
    this.#source = source;
    this.#destination = destination;
  }

  /** Another client does something to the source. */
  other({ act, to }: Extract<Step, { do: 'other' }>): Promise<void> {
    return this.#byAnother(this.#source, `another client: ${act}`, async (device) => {
      if (act === 'reset') await device.reset();
      else if (act === 'transition') await device.migration.transition(to);
      else if (act === 'save')
        this.#transfers.isWhole(await buffer(device.migration.save({ chunkBytes: 3_000 })));
      else {
        for await (const _chunk of device.migration.save({ chunkBytes: 3_000 })) {
          await this.#die(this.#source, device);
          break;
        }
      }
    });
  }

  /** Another client restores so many bytes and dies; a restore after that has nothing of them. */
  restoreAfter(bytes: number): Promise<void> {
    const side = this.#destination;
    const whole = this.#transfers.last;
    if (whole === undefined || side.isBusy) return Promise.resolve();
    const work = async () => {
      await this.#byAnother(side, `another client restores ${bytes} bytes and dies`, async (device) => {
        const stream = device.migration.restore();
        stream.on('error', () => undefined);
        await new Promise((resolve) => stream.write(whole.subarray(0, bytes), resolve));
        await this.#die(side, device);
      });
      while (side.device !== undefined && side.isDown) await sleep(20);
      if (side.device === undefined || side.machine.state !== MigrationState.RESUMING || side.isBusy) return;
      await this.#transfers.restore(side, side.device, WHOLE);
    };
    return this.#record.call({ label: 'a restore after one that died', promise: work() });
  }

  /** What was written is asked for, the answer does not arrive as it should, and it is asked for again. */
  reportFails({ block, at, unplugs, action }: Extract<Step, { do: 'report that fails' }>): Promise<void> {
    const side = this.#source;
    const { guest, machine } = side;
    if (guest === undefined) return Promise.resolve();
    const work = async () => {
      if (machine.state !== MigrationState.RUNNING) await side.ready();
      if (!guest.isWatched) await guest.watch();
      await guest.dma({ block, at, length: 9_000, isPosted: false, isByMessage: false });
      machine.line.arm({ of: unplugs ? 'unmap' : 'report', isReply: true, skip: 0, action });
      if (unplugs) await guest.unplug(block);
      else await guest.report();
      while (guest === side.guest && machine.line.isTroubled) await sleep(20);
      if (guest === side.guest) await guest.report();
    };
    return this.#record.call({ label: 'a report that fails', promise: work() });
  }

  #byAnother(side: Side, label: string, act: (device: Device) => Promise<void>): Promise<void> {
    side.disturb();
    const work = async () => {
      const device = await connect(side.machine.directPath, { timeoutMs: OTHERS_MS });
      try {
        await act(device);
      } finally {
        side.disturb();
        await device.close();
        side.disturb();
      }
    };
    return this.#record.call({
      label,
      promise: work(),
      whyNot: (error) => (error instanceof VfioUserError ? undefined : 'an error that it must not have'),
    });
  }

  /** As if its process had. Another one may have come since, and be the one that is cut. */
  async #die({ machine }: Side, device: Device): Promise<void> {
    machine.cutNewest();
    await Promise.race([device.closed, sleep(100)]);
  }
}
