/**
 * A server for many clients at once, in a process of its own: `server.js PATH`. Each client has a register file and a
 * vector to itself:
 * ```
 *   0x00   a write interrupts the client that made it
 *   0x08   a write of N makes the server read N bytes of the client's memory before it answers
 *   0x10   where they are, a qword
 * ```
 */
import { msixCapability, PciConfigSpace, PciDevice, serve, type ClientContext } from 'vfio-user/emulator';

const BACKLOG = 4_096;
/** A thousand devices, and those beside them. */
const MAX_CLIENTS = 1_024;
const BAR_BYTES = 0x1000;
const MSIX_BYTES = 0x10000;
const MSIX_PENDING = 0x8000;
const MSIX = 2;
const TRIGGER = 0x00;
const DMA_READ = 0x08;
const DMA_ADDRESS = 0x10;
/** IRQ_FLAG_EVENTFD. */
const EVENTFD = 1;

class Exchange extends PciDevice {
  readonly #registers = new WeakMap<ClientContext, Buffer>();

  constructor() {
    const config = new PciConfigSpace({
      vendorId: 0x1234,
      deviceId: 0x5343,
      bars: [
        { index: 0, size: BAR_BYTES },
        { index: 4, size: MSIX_BYTES },
      ],
      capabilities: [msixCapability(1, { bir: 4, offset: 0 }, { bir: 4, offset: MSIX_PENDING })],
    });
    super(config, [{ index: MSIX, count: 1, flags: EVENTFD }]);
    this.addRegion({
      index: 0,
      size: BAR_BYTES,
      handler: {
        read: (offset, count, client) => this.#of(client).subarray(offset, offset + count),
        write: (offset, data, client) => {
          data.copy(this.#of(client), offset);
          if (offset === TRIGGER) client.irq(MSIX).trigger();
          if (offset === DMA_READ) return this.#readMemory(client);
        },
      },
    });
    this.addRegion({ index: 4, size: MSIX_BYTES, memory: { bytes: Buffer.alloc(MSIX_BYTES) } });
  }

  async #readMemory(client: ClientContext): Promise<void> {
    const registers = this.#of(client);
    await client.dma.read(registers.readBigUInt64LE(DMA_ADDRESS), registers.readUInt32LE(DMA_READ));
  }

  #of(client: ClientContext): Buffer {
    let registers = this.#registers.get(client);
    if (registers === undefined) this.#registers.set(client, (registers = Buffer.alloc(BAR_BYTES)));
    return registers;
  }
}

const [path] = process.argv.slice(2);
process.once('disconnect', () => process.exit());
await serve(new Exchange(), { path: path!, backlog: BACKLOG, clients: 'many', maxClients: MAX_CLIENTS });
process.send!('listening');
