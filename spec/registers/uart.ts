/** A small device with registers of every kind, in CMSIS-SVD and as an emulated device that keeps books of its accesses. */
import { PciConfigSpace, PciDevice } from '../../lib/emulator/index.js';

export const UART_SVD = `<?xml version="1.0" encoding="utf-8"?>
<device schemaVersion="1.3">
  <name>ACME</name>
  <width>32</width>
  <size>32</size>
  <access>read-write</access>
  <resetValue>0x0</resetValue>
  <resetMask>0xFFFFFFFF</resetMask>
  <peripherals>
    <peripheral>
      <name>UART</name>
      <description>A UART</description>
      <baseAddress>0x40001000</baseAddress>
      <registers>
        <register>
          <name>CTRL</name>
          <description>Control</description>
          <addressOffset>0x0</addressOffset>
          <resetValue>0x10</resetValue>
          <fields>
            <field><name>ENABLE</name><bitOffset>0</bitOffset></field>
            <field>
              <name>MODE</name><bitRange>[2:1]</bitRange>
              <enumeratedValues>
                <enumeratedValue><name>SLOW</name><value>0</value></enumeratedValue>
                <enumeratedValue><name>FAST</name><value>#10</value></enumeratedValue>
              </enumeratedValues>
            </field>
            <field><name>LOCK</name><lsb>3</lsb><msb>3</msb><access>read-writeOnce</access></field>
            <field><name>DIVIDER</name><bitOffset>4</bitOffset><bitWidth>4</bitWidth></field>
            <field>
              <name>CLEARED</name><bitOffset>8</bitOffset>
              <modifiedWriteValues>zeroToClear</modifiedWriteValues>
            </field>
          </fields>
        </register>
        <register>
          <name>STATUS</name><addressOffset>4</addressOffset><access>read-only</access>
          <resetValue>0x100</resetValue>
          <fields>
            <field><name>READY</name><bitOffset>0</bitOffset></field>
            <field><name>ERR</name><bitRange>[3:1]</bitRange></field>
            <field><name>BUSY</name><bitOffset>8</bitOffset></field>
          </fields>
        </register>
        <register>
          <name>IRQ</name><addressOffset>8</addressOffset>
          <modifiedWriteValues>oneToClear</modifiedWriteValues>
          <fields>
            <field><name>RX</name><bitOffset>0</bitOffset></field>
            <field><name>TX</name><bitOffset>1</bitOffset></field>
            <field>
              <name>MASK</name><bitOffset>8</bitOffset><bitWidth>2</bitWidth>
              <modifiedWriteValues>modify</modifiedWriteValues>
            </field>
            <field><name>COUNT</name><bitRange>[19:16]</bitRange><access>read-only</access></field>
          </fields>
        </register>
        <register>
          <name>DATA</name><addressOffset>0xC</addressOffset>
          <fields>
            <field><name>BYTE</name><bitRange>[7:0]</bitRange><access>read-only</access><readAction>clear</readAction></field>
            <field><name>WATERMARK</name><bitRange>[11:8]</bitRange></field>
          </fields>
        </register>
        <register>
          <name>KEY</name><addressOffset>0x10</addressOffset><access>write-only</access>
          <fields>
            <field><name>LOW</name><bitRange>[15:0]</bitRange></field>
            <field><name>HIGH</name><bitRange>[31:16]</bitRange></field>
          </fields>
        </register>
        <cluster>
          <dim>2</dim><dimIncrement>8</dimIncrement>
          <name>CH[%s]</name><addressOffset>0x20</addressOffset>
          <register>
            <name>LEVEL</name><addressOffset>0</addressOffset>
            <fields><field><name>VALUE</name><bitRange>[15:0]</bitRange></field></fields>
          </register>
          <register derivedFrom="LEVEL"><name>LIMIT</name><addressOffset>4</addressOffset></register>
        </cluster>
        <register>
          <dim>3</dim><dimIncrement>2</dimIncrement><dimIndex>A,B,C</dimIndex>
          <name>TRIM_%s</name><addressOffset>0x30</addressOffset><size>16</size>
        </register>
      </registers>
    </peripheral>
    <peripheral derivedFrom="UART"><name>UART2</name><baseAddress>0x40002000</baseAddress></peripheral>
  </peripherals>
</device>
`;

/** Where it is not as its map says. */
export type UartFault = 'reset' | 'read-only' | 'alias';

/** The UART at the beginning of BAR 0. */
export class Uart extends PciDevice {
  readonly accesses: string[] = [];
  readonly memory = Buffer.alloc(0x1000);
  readonly #faults: readonly UartFault[];

  constructor(faults: readonly UartFault[] = []) {
    const bars = [{ index: 0, size: 0x1000 }];
    super(new PciConfigSpace({ vendorId: 0x1234, deviceId: 0x5541, classCode: 0x070000, bars }), []);
    this.#faults = faults;
    this.restart();
    this.addRegion({
      index: 0,
      size: this.memory.length,
      handler: {
        read: (offset, count) => this.#read(offset, count),
        write: (offset, data) => this.#write(offset, data),
      },
    });
  }

  override reset(): void {
    this.restart();
  }

  restart(): void {
    this.memory.fill(0);
    this.memory.writeUInt32LE(this.#faults.includes('reset') ? 0x30 : 0x10, 0);
    this.memory.writeUInt32LE(0x100, 4);
  }

  /** LIMIT of channel 1 is that of channel 0. */
  #place(offset: number): number {
    return offset === 0x2c && this.#faults.includes('alias') ? 0x24 : offset;
  }

  #read(offset: number, count: number): Buffer {
    this.accesses.push(`read ${offset.toString(16)}`);
    const at = this.#place(offset);
    const bytes = Buffer.from(this.memory.subarray(at, at + count));
    if (offset === 0x0c) this.memory[0x0c] = 0;
    return offset === 0x10 ? Buffer.alloc(count) : bytes;
  }

  #write(offset: number, data: Buffer): void {
    const value = data.readUIntLE(0, data.length);
    this.accesses.push(`write ${offset.toString(16)}=${value.toString(16)}`);
    const at = this.#place(offset);
    const old = this.memory.readUIntLE(at, data.length);
    this.memory.writeUIntLE(this.#next(offset, old, value), at, data.length);
  }

  #next(offset: number, old: number, value: number): number {
    if (offset === 0x00) return (value & 0xff) | (old & value & 0x100);
    if (offset === 0x04) return this.#faults.includes('read-only') ? (old & ~1) | (value & 1) : old;
    if (offset === 0x08) return (old & 0xf0300 & ~0x300) | (value & 0x300) | (old & ~value & 3);
    if (offset === 0x0c) return (old & 0xff) | (value & 0xf00);
    if (offset >= 0x20 && offset < 0x30) return value & 0xffff;
    return value;
  }
}
