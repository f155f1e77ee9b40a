/**
 * Names of vendors and devices, out of the database that pciutils brings along (pci.ids), where the machine has one.
 *
 * ```
 * 8086  Intel Corporation
 * <tab>10d3  82574L Gigabit Network Connection
 * <tab><tab>1028 0001  a subsystem, which is not wanted here
 * ```
 */
import type { Machine } from './machine.js';

const FILES = ['/usr/share/misc/pci.ids', '/usr/share/hwdata/pci.ids', '/usr/share/pci.ids'];
/** Where classes begin; vendors are before them. */
const CLASSES = /^C [\da-f]{2} /m;

export class PciNames {
  readonly #machine: Machine;
  #vendors: Map<number, { name: string; devices: string }> | undefined;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  vendor(vendorId: number): string | undefined {
    return this.#all().get(vendorId)?.name;
  }

  device(vendorId: number, deviceId: number): string | undefined {
    const devices = this.#all().get(vendorId)?.devices ?? '';
    const id = deviceId.toString(16).padStart(4, '0');
    return new RegExp(`^\\t${id}  (.+)$`, 'm').exec(devices)?.[1];
  }

  /** Read when the first name is asked for. Lines that are none are left out. */
  #all(): Map<number, { name: string; devices: string }> {
    if (this.#vendors !== undefined) return this.#vendors;
    const file = FILES.map((name) => this.#machine.bytes(name)).find((bytes) => bytes !== undefined);
    const text = file?.toString('utf8') ?? '';
    const vendors = text.slice(0, CLASSES.exec(text)?.index);
    this.#vendors = new Map();
    for (const [, id = '', name = '', devices = ''] of vendors.matchAll(
      /^([\da-f]{4}) {2}(.+)\n((?:[\t#].*\n)*)/gm,
    ))
      this.#vendors.set(Number.parseInt(id, 16), { name, devices });
    return this.#vendors;
  }
}
