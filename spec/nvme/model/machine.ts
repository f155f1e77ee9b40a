/** Where disks are plugged in: a controller and a server under one path, of which one after the other is there. */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  NvmeDevice,
  serve,
  type EmulatorServer,
  type NvmeInterceptedCommand,
  type NvmeVerdict,
} from '../../../lib/emulator/index.js';
import type { Disk } from './disk.js';
import type { Fault, Nature } from './steps.js';

/** A completion that no controller sends. */
export function isWrong(fault: Fault): boolean {
  return fault === 'stranger' || fault === 'twice';
}

interface PlannedFault {
  of: 'io' | 'admin';
  fault: Fault;
  left: number;
}

export class Machine {
  disk: Disk | undefined;
  /** The namespace is another one than the one that the controller came with. */
  isReplaced = false;
  readonly faults: PlannedFault[] = [];
  readonly #path: string;
  readonly #nature: Nature;
  readonly #onQuiet: () => void;
  #emulated: NvmeDevice | undefined;
  #server: EmulatorServer | undefined;
  /** Whatever is plugged in or out, one after the other. */
  #busy: Promise<void> = Promise.resolve();

  /** `onQuiet` hears each time when nothing is under way in a controller that was unplugged. */
  constructor(path: string, nature: Nature, onQuiet: () => void) {
    this.#path = path;
    this.#nature = nature;
    this.#onQuiet = onQuiet;
  }

  /** There are faults to come that a controller may not come back from. */
  get mayFail(): boolean {
    return this.faults.some(({ of, fault, left }) => left > 0 && (of === 'admin' || isWrong(fault)));
  }

  get emulated(): NvmeDevice | undefined {
    return this.#emulated;
  }

  /** The connection ends at once; also that of a server that is not plugged in yet. */
  unplug(): Promise<void> {
    void this.#server?.close();
    return this.#after(async () => {
      const server = this.#server;
      const emulated = this.#emulated;
      this.#server = this.#emulated = undefined;
      await server?.close();
      await emulated?.close();
      this.#onQuiet();
    });
  }

  plug(disk: Disk, afterMs = 0): Promise<void> {
    return this.#after(async () => {
      if (afterMs > 0) await sleep(afterMs);
      const { mdts, sgls, shadowDoorbells, mapDoorbells } = this.#nature;
      const emulated = new NvmeDevice({
        namespaces: [disk.namespace],
        serialNumber: disk.serialNumber,
        modelNumber: disk.modelNumber,
        subsystemNqn: disk.subsystemNqn,
        mdts,
        sgls,
        shadowDoorbells,
        mapDoorbells,
        queues: 4,
        readyTimeoutMs: 500,
        intercept: (command) => this.#verdict(command),
      });
      this.disk = disk;
      this.isReplaced = false;
      this.#emulated = emulated;
      this.#server = await serve(emulated, { path: this.#path });
    });
  }

  /** The controller, as it runs, has `disk` from now on, or what has become of it. */
  replace(disk: Disk): void {
    this.isReplaced ||= disk !== this.disk;
    this.disk = disk;
    this.#emulated?.replaceNamespace(1, disk.namespace);
  }

  /** Settles when nothing is being plugged in or out. */
  settled(): Promise<void> {
    return this.#busy;
  }

  #after(work: () => Promise<void>): Promise<void> {
    return (this.#busy = this.#busy.then(work));
  }

  #verdict({ queue, commandId }: NvmeInterceptedCommand): NvmeVerdict {
    const of = queue === 0 ? 'admin' : 'io';
    const planned = this.faults.find((fault) => fault.of === of && fault.left > 0);
    if (planned === undefined) return 'pass';
    planned.left--;
    const { fault } = planned;
    if (fault === 'stranger') return { completions: [{ commandId: commandId ^ 0x5500 }] };
    if (fault === 'twice') return { completions: [{}, {}] };
    if (fault === 'bad status') return { completions: [{ status: 0x281 }] };
    return fault;
  }
}
