/** The DMA engine as a model in TypeScript: what the RTL is to do. */
import { defineDevice, type DefinedDevice } from 'vfio-user/emulator';
import { readFileSync } from 'node:fs';
import { RegisterMap } from 'vfio-user/registers';
import { source } from './sources.js';

export const ID = { vendorId: 0x1234, deviceId: 0xd3a1, classCode: 0x088000 };
export const VECTORS = 2;
const CHUNK = 8;

export const map = RegisterMap.from(JSON.parse(readFileSync(source('dma-engine.json'), 'utf8')) as never);

export function engineModel(): DefinedDevice {
  return defineDevice({
    id: ID,
    map,
    interrupts: { msix: VECTORS }, // 0: done, 1: failed
    on: {
      'CTRL.START': async (device) => {
        if (device.get('STATUS.BUSY')) return;
        const [from, to] = [device.getBigInt('SOURCE'), device.getBigInt('TARGET')];
        const length = device.get('LENGTH.BYTES');
        device.set('STATUS.BUSY', 1);
        device.set('SUM', 0);
        let outcome = 'DONE';
        try {
          for (let at = 0; at < length; at += CHUNK) {
            const bytes = await device.dma.read(from + BigInt(at), Math.min(CHUNK, length - at));
            await device.dma.write(to + BigInt(at), bytes);
            device.set('SUM', device.get('SUM') + bytes.reduce((sum, byte) => sum + byte, 0));
          }
        } catch {
          outcome = 'ERROR'; // nothing is mapped there
        }
        device.set('STATUS.BUSY', 0);
        device.set(`STATUS.${outcome}`, 1);
        device.raise(outcome === 'DONE' ? 0 : 1);
      },
    },
  });
}
