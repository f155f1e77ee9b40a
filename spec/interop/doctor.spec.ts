/** The doctor against servers that others wrote: VFIO_USER_GPIO, VFIO_USER_LVU_SAMPLES. */
import { describe, expect, jest, test } from '@jest/globals';
import path from 'node:path';
import { diagnose, spawner, type DoctorReport } from '../../lib/doctor/index.js';

jest.setTimeout(180_000);

const gpio = process.env['VFIO_USER_GPIO'] ?? '';
const samples = process.env['VFIO_USER_LVU_SAMPLES'] ?? '';

function examine(command: string): Promise<DoctorReport> {
  return diagnose({ start: spawner(`exec ${command}`) }, { readOnly: false });
}

function brokenOf({ rules }: DoctorReport): string[] {
  return rules.filter(({ verdict }) => verdict === 'broken').map(({ id }) => id);
}

(gpio === '' ? describe.skip : describe)("rust-vmm's gpio (VFIO_USER_GPIO names the program)", () => {
  test('is recognised, and its facts are found', async () => {
    const report = await examine(`'${gpio}' --socket-path {socket}`);
    expect(report.recognised.name).toBe('rust-vmm vfio_user');
    expect(report.identity.version).toBe('0.0');
    expect(brokenOf(report)).toEqual(
      expect.arrayContaining(['robust.no-version-data', 'command.unknown-body', 'command.feature']),
    );
    expect(report.quirks.doNotSend).toEqual(
      expect.arrayContaining(['DEVICE_GET_REGION_IO_FDS', 'REGION_WRITE_MULTI', 'DEVICE_FEATURE']),
    );
  });
});

(samples === '' ? describe.skip : describe)(
  "libvfio-user's samples (VFIO_USER_LVU_SAMPLES names their directory)",
  () => {
    test.each(['server', 'gpio-pci-idio-16'])('%s is recognised, and its facts are found', async (name) => {
      const report = await examine(`'${path.join(samples, name)}' -v {socket}`);
      expect(report.recognised.name).toBe('libvfio-user');
      expect(report.identity.version).toBe('0.2');
      expect(brokenOf(report)).toEqual(
        expect.arrayContaining([
          'version.subset',
          'stream.split-header',
          'stream.split-body',
          'read.zero',
          'dma.overlap',
          'dma.identical',
          'irqs.mask-flag',
        ]),
      );
      if (name === 'server') expect(report.quirks.accessWidths).toEqual({ bar0: [8] });
    });
  },
);
