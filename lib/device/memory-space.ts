/**
 * Whether a device answers in its memory: decoding is on, it has power, and it is not being reset. Where it does not, a load
 * from a mapping of hardware ends the process (SIGBUS). So what is mapped of hardware is withdrawn before that, and put back
 * when the device answers again; what is mapped of a server's file stays as it is.
 */
import { PciCommand, PciConfig, findCapability } from '../pci/index.js';
import type { ConfigSpace } from './config-space.js';

/** A mapping of hardware. */
export interface Withdrawable {
  /** The device does not answer, and says why in words. */
  withdraw(why: string): void;
  putBack(): void;
}

/** A byte of config space, and what of it lets the device answer. */
interface Switch {
  readonly at: number;
  readonly isOn: (byte: number) => boolean;
  readonly why: string;
  /** As it was seen, or written, last. */
  on: boolean;
}

const POWER_STATE = 3;

export class MemorySpace {
  readonly #mappings = new Set<Withdrawable>();
  readonly #command: Switch = {
    at: PciConfig.COMMAND,
    isOn: (byte) => (byte & PciCommand.MEMORY) !== 0,
    why: 'memory decoding is off in the COMMAND register (`device.enable()` turns it on)',
    on: true,
  };
  #switches: Switch[] = [this.#command];
  #isResetting = false;

  add(mapping: Withdrawable): void {
    this.#mappings.add(mapping);
    const why = this.#why;
    if (why !== undefined) mapping.withdraw(why);
  }

  delete(mapping: Withdrawable): void {
    this.#mappings.delete(mapping);
  }

  /** All of config space has been read. */
  seen(config: ConfigSpace): void {
    const power = findCapability(config.capabilities, 'power-management');
    this.#switches = [this.#command];
    if (power !== undefined && power.controlOffset < config.size) {
      this.#switches.push({
        at: power.controlOffset,
        isOn: (byte) => (byte & POWER_STATE) === 0,
        why: 'it is not in the power state D0',
        on: true,
      });
    }
    for (const one of this.#switches) one.on = one.isOn(config.getUInt8(one.at));
    this.#apply();
  }

  /** Config space is about to be written: what that turns off is withdrawn. */
  beforeWrite(offset: number, data: Uint8Array): void {
    for (const one of this.#switches) {
      const byte = data[one.at - offset];
      if (byte !== undefined && !one.isOn(byte)) one.on = false;
    }
    this.#apply();
  }

  /** These bytes of config space have been read, or written. */
  known(offset: number, data: Uint8Array): void {
    for (const one of this.#switches) {
      const byte = data[one.at - offset];
      if (byte !== undefined) one.on = one.isOn(byte);
    }
    this.#apply();
  }

  /** Does what resets the device. `seen` or `known` say what it is like afterwards. */
  async whileResetting(reset: () => Promise<void>): Promise<void> {
    this.#isResetting = true;
    this.#apply();
    try {
      await reset();
    } finally {
      this.#isResetting = false;
      this.#apply();
    }
  }

  get #why(): string | undefined {
    if (this.#isResetting) return 'it is being reset';
    return this.#switches.find(({ on }) => !on)?.why;
  }

  #apply(): void {
    if (this.#mappings.size === 0) return;
    const why = this.#why;
    for (const mapping of this.#mappings) {
      if (why === undefined) mapping.putBack();
      else mapping.withdraw(why);
    }
  }
}
