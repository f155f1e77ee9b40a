import { describe, expect, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { lspciDump } from '../../lib/pci/index.js';
import { EDU, LIBVFIO_USER_LSPCI_SAMPLE, NVME } from './config-bytes.js';

describe('lspciDump', () => {
  test('is a title line, 16 bytes a line, an empty line', () => {
    const dump = lspciDump(EDU);
    const lines = dump.split('\n');
    expect(lines).toHaveLength(1 + 16 + 2);
    expect(lines.slice(0, 3)).toEqual([
      '00:00.0 Unclassified device (subclass 0xff): QEMU edu 1234:11e8',
      '00: 34 12 e8 11 03 01 10 00 10 00 ff 00 00 00 00 00',
      '10: 00 00 00 fe 00 00 00 00 00 00 00 00 00 00 00 00',
    ]);
    expect(dump.endsWith('\n\n')).toBe(true);
  });

  test('offsets beyond 0xff have three digits', () => {
    const lines = lspciDump(LIBVFIO_USER_LSPCI_SAMPLE, '0001:3f:1f.7', 'bogus PCI device').split('\n');
    expect(lines[0]).toBe('0001:3f:1f.7 bogus PCI device');
    expect(lines[17]).toBe('100: 03 00 c0 10 ef be ad de be ba fe ca 0b 00 00 40');
    expect(lines[256]).toMatch(/^ff0: 00 /);
  });

  test('refuses what is no space, slot or title', () => {
    expect(() => lspciDump(Buffer.alloc(0))).toThrow(RangeError);
    expect(() => lspciDump(Buffer.alloc(4097))).toThrow(RangeError);
    expect(() => lspciDump(EDU, '0:0')).toThrow(TypeError);
    expect(() => lspciDump(EDU, '00:20.0')).toThrow(TypeError);
    expect(() => lspciDump(EDU, '00:00.0', 'two\nlines')).toThrow(TypeError);
  });
});

const hasLspci = spawnSync('lspci', ['--version']).status === 0;

(hasLspci ? describe : describe.skip)('pciutils reads the dump (needs lspci on PATH)', () => {
  function lspci(dump: string, ...options: string[]): string {
    const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-lspci-'));
    try {
      const file = path.join(directory, 'dump');
      writeFileSync(file, dump);
      const { stdout, status } = spawnSync('lspci', ['-F', file, ...options], { encoding: 'utf8' });
      expect(status).toBe(0);
      return stdout;
    } finally {
      rmSync(directory, { recursive: true });
    }
  }

  test('and finds what the sample of libvfio-user has', () => {
    const text = lspci(lspciDump(LIBVFIO_USER_LSPCI_SAMPLE), '-vv');
    expect(text).toMatch(/\[40\] Power Management version 0/);
    expect(text).toMatch(/Status: D0 NoSoftRst\+/);
    expect(text).toMatch(/\[48\] Vendor Specific Information: Len=10/);
    expect(text).toMatch(/\[58\] Express \(v0\) Endpoint/);
    expect(text).toMatch(/\[100 v0\] Device Serial Number ca-fe-ba-be-de-ad-be-ef/);
    expect(text).toMatch(/\[10c v0\] Vendor Specific Information: ID=0001 Rev=1 Len=015/);
    expect(text).toMatch(/\[400 v0\] Vendor Specific Information: ID=0002 Rev=2 Len=015/);
  });

  test('and says of MSI-X and the link what we say', () => {
    const text = lspci(lspciDump(NVME), '-vv');
    expect(text).toMatch(/MSI-X: Enable\+ Count=512 Masked-/);
    expect(text).toMatch(/Vector table: BAR=4 offset=0{8}/);
    expect(text).toMatch(/PBA: BAR=5 offset=0{8}/);
    expect(text).toMatch(/MaxPayload 256 bytes, MaxReadReq 512 bytes/);
    expect(text).toMatch(/LnkCap:.*Speed 2\.5GT\/s, Width x4/);
    expect(text).toMatch(/LnkSta:\s+Speed 8GT\/s/);
    expect(text).toMatch(/Region 0: Memory at 0*180000000 \(64-bit, non-prefetchable\)/);
  });

  test('several devices in one file', () => {
    const text = lspci(lspciDump(NVME, '01:00.0') + lspciDump(EDU, '02:03.1'), '-n');
    expect(text.trim().split('\n')).toEqual(['01:00.0 0108: 4e58:0001', '02:03.1 00ff: 1234:11e8 (rev 10)']);
  });
});
