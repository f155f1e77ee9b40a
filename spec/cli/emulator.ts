/** Devices in this process for command lines to look at. */
import {
  EduDevice,
  PciConfigSpace,
  PciDevice,
  SharedMemory,
  serve,
  type EmulatorServer,
} from '../../lib/emulator/index.js';
import { PciRegion } from '../../lib/protocol/index.js';

export function serveEdu(path: string): Promise<EmulatorServer> {
  return serve(new EduDevice(), { path });
}

/** What a client wrote last. */
export interface Accesses {
  reads: [offset: number, count: number][];
  writes: [offset: number, bytes: string][];
}

/** BAR0: 256 KiB in which byte n is n mod 251, that tells of its accesses. BAR2: memory that can be mapped. */
export class PatternDevice extends PciDevice {
  static readonly size = 1 << 18;
  readonly accesses: Accesses = { reads: [], writes: [] };
  readonly bytes = Buffer.alloc(PatternDevice.size);
  readonly shared = new SharedMemory(8192);

  constructor() {
    super(
      new PciConfigSpace({
        vendorId: 0xcafe,
        deviceId: 0x0001,
        classCode: 0xff0000,
        bars: [
          { index: 0, size: PatternDevice.size },
          { index: 2, size: 8192 },
        ],
      }),
      [],
    );
    for (let i = 0; i < this.bytes.length; i++) this.bytes[i] = i % 251;
    this.addRegion({
      index: PciRegion.BAR0,
      size: PatternDevice.size,
      handler: {
        read: (offset, count) => {
          this.accesses.reads.push([offset, count]);
          return this.bytes.subarray(offset, offset + count);
        },
        write: (offset, data) => {
          this.accesses.writes.push([offset, data.toString('hex')]);
          data.copy(this.bytes, offset);
        },
      },
    });
    this.addRegion({
      index: PciRegion.BAR2,
      size: 8192,
      memory: this.shared,
      mappable: [{ offset: 4096, size: 4096 }],
    });
  }
}
