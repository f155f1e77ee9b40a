/** A machine made of files: what Linux says in /sys, /proc, /dev and /run of PCI functions, and what it does when told. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Machine } from '../../lib/vfio/machine.js';

export interface MadeFunction {
  address: string;
  vendor?: number;
  device?: number;
  classCode?: number;
  driver?: string;
  group?: string;
  config?: Uint8Array;
  resource?: string;
}

export class MadeMachine extends Machine {
  /** What it was told, in order. */
  readonly told: string[] = [];
  /** Drivers that take nothing. */
  readonly refusing = new Set<string>();
  /** Which driver takes a function where nothing overrides it. */
  readonly natural = new Map<string, string>();

  constructor() {
    super(mkdtempSync(path.join(tmpdir(), 'vfio-user-machine-')));
    for (const directory of [
      'sys/bus/pci/devices',
      'sys/bus/pci/drivers',
      'sys/class/net',
      'sys/class/block',
    ]) {
      mkdirSync(this.path(directory), { recursive: true });
    }
    this.put('sys/bus/pci/drivers_probe', '');
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
  }

  put(name: string, content: string | Uint8Array): void {
    mkdirSync(path.dirname(this.path(name)), { recursive: true });
    writeFileSync(this.path(name), content);
  }

  /** A link within the machine, relative as sysfs has them. */
  linkTo(name: string, target: string): void {
    mkdirSync(path.dirname(this.path(name)), { recursive: true });
    symlinkSync(path.relative(path.dirname(this.path(name)), this.path(target)), this.path(name));
  }

  driver(name: string): void {
    this.put(`sys/bus/pci/drivers/${name}/unbind`, '');
    this.put(`sys/bus/pci/drivers/${name}/bind`, '');
  }

  add({ address, vendor = 0x1b36, device = 0x0010, classCode = 0x010802, ...rest }: MadeFunction): void {
    const real = `sys/devices/pci0000:00/${address}`;
    const file = (name: string, content: string | Uint8Array): void => this.put(`${real}/${name}`, content);
    const hex = (value: number, digits: number): string => `0x${value.toString(16).padStart(digits, '0')}\n`;
    file('vendor', hex(vendor, 4));
    file('device', hex(device, 4));
    file('subsystem_vendor', hex(0x1af4, 4));
    file('subsystem_device', hex(0x1100, 4));
    file('class', hex(classCode, 6));
    file('revision', hex(2, 2));
    file('driver_override', '(null)\n');
    file('config', rest.config ?? Buffer.alloc(256));
    file(
      'resource',
      rest.resource ?? `${'0x0000000000000000 0x0000000000000000 0x0000000000000000\n'.repeat(13)}`,
    );
    this.linkTo(`sys/bus/pci/devices/${address}`, real);
    if (rest.group !== undefined) {
      this.linkTo(`${real}/iommu_group`, `sys/kernel/iommu_groups/${rest.group}`);
      this.linkTo(`sys/kernel/iommu_groups/${rest.group}/devices/${address}`, real);
    }
    if (rest.driver === undefined) return;
    this.driver(rest.driver);
    this.natural.set(address, rest.driver);
    this.linkTo(`${real}/driver`, `sys/bus/pci/drivers/${rest.driver}`);
  }

  /** A disk of a function's, with its partitions. */
  disk(
    address: string,
    name: string,
    number: string,
    partitions: Readonly<Record<string, string>> = {},
  ): void {
    const real = `sys/devices/pci0000:00/${address}/nvme/nvme0/${name}`;
    this.put(`${real}/dev`, `${number}\n`);
    this.linkTo(`sys/class/block/${name}`, real);
    this.put(`dev/${name}`, '');
    for (const [partition, its] of Object.entries(partitions)) {
      this.put(`${real}/${partition}/dev`, `${its}\n`);
      this.linkTo(`sys/class/block/${partition}`, `${real}/${partition}`);
      this.put(`dev/${partition}`, '');
    }
  }

  network(address: string, name: string, flags: number): void {
    const real = `sys/devices/pci0000:00/${address}/net/${name}`;
    this.put(`${real}/flags`, `0x${flags.toString(16)}\n`);
    this.linkTo(`sys/class/net/${name}`, real);
  }

  /** As the kernel does it. */
  override tell(text: string, ...parts: string[]): void {
    const name = path.join(...parts);
    this.told.push(`${text === '\n' ? 'nothing' : text} > ${name}`);
    super.tell(text, ...parts);
    if (name.endsWith('driver_override')) this.put(name, text === '\n' ? '(null)\n' : `${text}\n`);
    else if (name.endsWith('/unbind')) rmSync(this.#driverLink(text));
    else if (name.endsWith('drivers_probe')) this.#probe(text);
    else if (name.endsWith('/bind')) this.#take(text, path.basename(path.dirname(name)));
  }

  #probe(address: string): void {
    const override = this.text('sys/bus/pci/devices', address, 'driver_override');
    const driver = override === '(null)' ? this.natural.get(address) : override;
    if (driver !== undefined && this.link(`sys/bus/pci/devices/${address}/driver`) === undefined)
      this.#take(address, driver);
  }

  #take(address: string, driver: string): void {
    if (this.refusing.has(driver) || !this.has('sys/bus/pci/drivers', driver)) return;
    this.linkTo(`sys/devices/pci0000:00/${address}/driver`, `sys/bus/pci/drivers/${driver}`);
  }

  #driverLink(address: string): string {
    return this.path('sys/devices/pci0000:00', address, 'driver');
  }
}
