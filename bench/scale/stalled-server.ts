/**
 * A server for `turns`, in a process of its own: `stalled-server.js PATH registers|nvme GIB`. It answers no register at
 * 0x10, or no command of an I/O queue but Write Zeroes, of which it carries out whatever it is asked.
 */
import { PciConfigSpace, PciDevice, NvmeDevice, serve, type BlockStore } from 'vfio-user/emulator';

const BAR_BYTES = 0x1000;
const SILENT = 0x10;
const WRITE_ZEROES = 0x08;
const GIB = 2 ** 30;

class SilentRegister extends PciDevice {
  constructor() {
    super(
      new PciConfigSpace({ vendorId: 0x1234, deviceId: 0x5343, bars: [{ index: 0, size: BAR_BYTES }] }),
      [],
    );
    this.addRegion({
      index: 0,
      size: BAR_BYTES,
      handler: {
        read: (offset, count) =>
          offset === SILENT ? new Promise<Buffer>(() => undefined) : Buffer.alloc(count),
        write: () => undefined,
      },
    });
  }
}

/** Zeroes, however many. */
class Zeroes implements BlockStore {
  readonly size: number;

  constructor(size: number) {
    this.size = size;
  }

  read(_offset: number, length: number): Buffer {
    return Buffer.alloc(length);
  }

  write(): void {}
  clear(): void {}
  flush(): void {}
  close(): void {}
}

const [path, kind, gibText] = process.argv.slice(2);
process.once('disconnect', () => process.exit());
const model =
  kind === 'nvme'
    ? new NvmeDevice({
        namespaces: [{ store: new Zeroes(Number(gibText) * GIB) }],
        intercept: ({ queue, opcode }) => (queue > 0 && opcode !== WRITE_ZEROES ? 'hold' : 'pass'),
      })
    : new SilentRegister();
await serve(model, { path: path! });
process.send!('listening');
