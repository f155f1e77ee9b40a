/** The memory device with names, and with faults where they can be: in its server, in this process, in a proxy. */
import { afterEach } from '@jest/globals';
import { RamDevice, serve, type FaultPlan, type FiredFault } from '../../lib/emulator/index.js';
import { connect, type ConnectOptions, type Device } from '../../lib/index.js';
import { proxy } from '../../lib/proxy/index.js';
import { RegisterMap, RegisterPlacement } from '../../lib/registers/index.js';
import { Scratch } from '../cli/cli.js';

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

/** Runs after the test, the last one first. */
export function cleanup(run: () => unknown): void {
  cleanups.push(run);
}

export const RAM_MAP = RegisterMap.from({
  format: 'vfio-user-registers/1',
  name: 'ram',
  blocks: [
    {
      name: 'RAM',
      children: [
        { name: 'ID', offset: 0x00, access: 'RO', reset: 0x314d4152 },
        {
          name: 'SCRATCH',
          offset: 0x04,
          reset: 0,
          fields: [
            { name: 'LOW', lsb: 0, bits: 8 },
            { name: 'READY', lsb: 8 },
            { name: 'REST', lsb: 9, bits: 23 },
          ],
        },
        { name: 'VECTORS', offset: 0x08, access: 'RO' },
        { name: 'TRIGGER', offset: 0x0c, access: 'WO' },
        { name: 'DMA_SOURCE', offset: 0x10, bits: 64 },
        { name: 'DMA_DESTINATION', offset: 0x18, bits: 64 },
        { name: 'DMA_LENGTH', offset: 0x20 },
        { name: 'DMA_COMMAND', offset: 0x24, access: 'WO' },
        { name: 'DMA_STATUS', offset: 0x28, access: 'RO' },
        { name: 'SCRATCH_WRITES', offset: 0x2c, access: 'RO' },
      ],
    },
  ],
});
export const RAM_NAMES = new RegisterPlacement(RAM_MAP);

/** Where faults happen. */
export type Seam = 'emulator' | 'in process' | 'proxy';
export const SEAMS: readonly Seam[] = ['emulator', 'in process', 'proxy'];

export interface Faulty {
  model: RamDevice;
  told: FiredFault[];
  open(options?: ConnectOptions): Promise<Device>;
  /** Whether the server has ended. */
  isOver(): boolean;
}

/** The device, with the faults at a seam. */
export async function faulty(seam: Seam, faults: FaultPlan): Promise<Faulty> {
  const model = new RamDevice({ ramSize: 1 << 16 });
  cleanup(() => model.close());
  const told: FiredFault[] = [];
  const onFault = (fault: FiredFault): void => void told.push(fault);
  if (seam === 'in process') {
    const endpoint = { model, options: { faults, onFault } };
    return { model, told, open: opener(endpoint), isOver: () => false };
  }
  const scratch = new Scratch();
  cleanup(() => scratch.remove());
  const path = scratch.path('device');
  const own = seam === 'emulator' ? { faults, onFault } : {};
  const server = await serve(model, { path, clients: 'many', ...own });
  cleanup(() => server.close());
  if (seam === 'emulator') return { model, told, open: opener(path), isOver: () => server.isClosed };
  const front = scratch.path('front');
  const between = await proxy({
    listen: front,
    connect: path,
    faults,
    onEvent: (event) => {
      if (event.type !== 'fault') return;
      const [, number, fault] = /^fault (\d+): (.*)$/.exec(event.fault) ?? [];
      told.push({ number: Number(number), fault: fault ?? '', what: event.message });
    },
  });
  cleanup(() => between.close());
  return { model, told, open: opener(front), isOver: () => false };
}

function opener(endpoint: Parameters<typeof connect>[0]): Faulty['open'] {
  return async (options) => {
    const device = await connect(endpoint, { timeoutMs: 5_000, ...options });
    cleanup(() => device.close());
    return device;
  };
}
