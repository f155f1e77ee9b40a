/** Features: their names, and how much data goes with them (NVM Express Base 2.0, figure 317). */

const NAMES: Readonly<Record<number, string>> = {
  0x01: 'Arbitration',
  0x02: 'Power Management',
  0x03: 'LBA Range Type',
  0x04: 'Temperature Threshold',
  0x05: 'Error Recovery',
  0x06: 'Volatile Write Cache',
  0x07: 'Number of Queues',
  0x08: 'Interrupt Coalescing',
  0x09: 'Interrupt Vector Configuration',
  0x0a: 'Write Atomicity Normal',
  0x0b: 'Async Event Configuration',
  0x0c: 'Autonomous Power State Transition',
  0x0d: 'Host Memory Buffer',
  0x0e: 'Timestamp',
  0x0f: 'Keep Alive Timer',
  0x10: 'Host Controlled Thermal Management',
  0x11: 'Non-Operational Power State Config',
  0x12: 'Read Recovery Level',
  0x13: 'Predictable Latency Mode Config',
  0x14: 'Predictable Latency Mode Window',
  0x15: 'LBA Status Interval',
  0x16: 'Host Behavior',
  0x17: 'Sanitize',
  0x18: 'Endurance Event Group Configuration',
  0x19: 'I/O Command Set Profile',
  0x1a: 'Spinup Control',
  0x1d: 'Flexible Direct Placement',
  0x1e: 'Flexible Direct Placement Events',
  0x7d: 'Enhanced Controller Metadata',
  0x7e: 'Controller Metadata',
  0x7f: 'Namespace Metadata',
  0x80: 'Software Progress',
  0x81: 'Host Identifier',
  0x82: 'Reservation Notification Mask',
  0x83: 'Reservation Persistence',
  0x84: 'Namespace Write Protect',
};
const EXTENDED_HOST_IDENTIFIER = 1;

export function featureName(id: number): string {
  return NAMES[id] ?? 'Unknown';
}

/** SEL. */
export const SELECTIONS = ['Current', 'Default', 'Saved', 'Supported capabilities'] as const;

/** Bytes of data that a controller gives with a feature, or takes; 0 for none. */
export function featureBytes(id: number, cdw11: number, way: 'get' | 'set'): number {
  switch (id) {
    case 0x0d:
      // Where the memory is that it has; it is told that in dwords.
      return way === 'get' ? 4096 : 0;
    case 0x03:
    case 0x7d:
    case 0x7e:
    case 0x7f:
      return 4096;
    case 0x0c:
      return 256;
    case 0x0e:
      return 8;
    case 0x13:
    case 0x16:
      return 512;
    case 0x81:
      return (cdw11 & EXTENDED_HOST_IDENTIFIER) === 0 ? 8 : 16;
    default:
      return 0;
  }
}
