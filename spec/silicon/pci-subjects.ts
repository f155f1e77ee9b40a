/** Functions that vfio-pci has, by what they are: each variable has one address, or several. Skipped where there is none. */
import { describe } from '@jest/globals';
import { connect, type ConnectOptions, type Device, type PciEndpoint } from '../../lib/index.js';
import { PATIENT, cleanup } from './subjects.js';

function addressesIn(variable: string): string[] {
  return (process.env[variable] ?? '').split(' ').filter((one) => one !== '');
}

/** A block for each address of the variable; a skipped one where it names none. */
export function describePci(variable: string, name: string, block: (address: string) => void): void {
  const addresses = addressesIn(variable);
  if (addresses.length > 0) describe.each(addresses)(`${name}, %s`, block);
  else describe.skip(`${name}: ${variable} names no function that vfio-pci has`, () => block('0000:00:00.0'));
}

/** Opens a function, which is closed after the test. */
export async function openPci(
  pci: string,
  options: ConnectOptions = {},
  reset?: PciEndpoint['reset'],
): Promise<Device> {
  const device = await connect({ pci, reset }, { ...PATIENT, ...options });
  cleanup(() => device.close());
  return device;
}
