import { describe, expect, test } from '@jest/globals';
import * as protocol from '../../lib/protocol/index.js';

describe('names', () => {
  test.each([
    [1, 'VERSION'],
    [2, 'DMA_MAP'],
    [3, 'DMA_UNMAP'],
    [4, 'DEVICE_GET_INFO'],
    [5, 'DEVICE_GET_REGION_INFO'],
    [6, 'DEVICE_GET_REGION_IO_FDS'],
    [7, 'DEVICE_GET_IRQ_INFO'],
    [8, 'DEVICE_SET_IRQS'],
    [9, 'REGION_READ'],
    [10, 'REGION_WRITE'],
    [11, 'DMA_READ'],
    [12, 'DMA_WRITE'],
    [13, 'DEVICE_RESET'],
    [14, 'DIRTY_PAGES'],
    [15, 'REGION_WRITE_MULTI'],
    [16, 'DEVICE_FEATURE'],
    [17, 'MIG_DATA_READ'],
    [18, 'MIG_DATA_WRITE'],
  ])('command %i is %s', (number, name) => {
    expect(protocol.commandName(number)).toBe(name);
    expect(protocol.Command).toHaveProperty(name, number);
  });

  test('a number without name is shown as it is', () => {
    expect(protocol.commandName(0)).toBe('command 0');
    expect(protocol.commandName(99)).toBe('command 99');
    expect(protocol.featureName(3)).toBe('feature 3');
    expect(protocol.migrationStateName(8)).toBe('state 8');
  });

  test('features and migration states have those of linux/vfio.h', () => {
    expect([1, 2, 6, 7, 8].map(protocol.featureName)).toEqual([
      'MIGRATION',
      'MIG_DEVICE_STATE',
      'DMA_LOGGING_START',
      'DMA_LOGGING_STOP',
      'DMA_LOGGING_REPORT',
    ]);
    expect([0, 1, 2, 3, 4, 5, 6, 7].map(protocol.migrationStateName)).toEqual([
      'ERROR',
      'STOP',
      'RUNNING',
      'STOP_COPY',
      'RESUMING',
      'RUNNING_P2P',
      'PRE_COPY',
      'PRE_COPY_P2P',
    ]);
  });

  test('PCI indexes are those of linux/vfio.h', () => {
    expect(protocol.PciRegion).toEqual({
      ...{ BAR0: 0, BAR1: 1, BAR2: 2, BAR3: 3, BAR4: 4, BAR5: 5 },
      ...{ ROM: 6, CONFIG: 7, VGA: 8, MIGRATION: 9 },
    });
    expect(protocol.PciIrq).toEqual({ INTX: 0, MSI: 1, MSIX: 2, ERR: 3, REQ: 4 });
  });
});

describe('flags in words', () => {
  test('no flag has no name', () => {
    expect(protocol.deviceFlagNames(0)).toEqual([]);
    expect(protocol.regionFlagNames(0)).toEqual([]);
  });

  test('each table goes from the lowest bit up', () => {
    const { flagNames, ...names } = protocol;
    expect(flagNames(5, [[1, 'A'], [4, 'C']])).toEqual(['A', 'C']); // prettier-ignore
    expect(names.headerFlagNames(0x31)).toEqual(['REPLY', 'NO_REPLY', 'ERROR']);
    expect(names.deviceFlagNames(0x1ff).join(' ')).toBe('RESET PCI PLATFORM AMBA CCW AP FSL_MC CAPS CDX');
    expect(names.regionFlagNames(0xf)).toEqual(['READ', 'WRITE', 'MMAP', 'CAPS']);
    expect(names.irqFlagNames(0xf)).toEqual(['EVENTFD', 'MASKABLE', 'AUTOMASKED', 'NORESIZE']);
    expect(names.irqSetFlagNames(0x24)).toEqual(['DATA_EVENTFD', 'ACTION_TRIGGER']);
    expect(names.irqSetFlagNames(0x1b)).toEqual(['DATA_NONE', 'DATA_BOOL', 'ACTION_MASK', 'ACTION_UNMASK']);
    expect(names.dmaMapFlagNames(0xf)).toEqual(['READ', 'WRITE', 'MMAP', 'FILE_IO']);
    expect(names.dmaUnmapFlagNames(3)).toEqual(['GET_DIRTY_BITMAP', 'ALL']);
    expect(names.migrationFlagNames(7)).toEqual(['STOP_COPY', 'P2P', 'PRE_COPY']);
    expect(names.deviceFeatureFlagNames(0x70000)).toEqual(['GET', 'SET', 'PROBE']);
  });

  test('bits without name come last, as one number, the top bit included', () => {
    expect(protocol.irqFlagNames(0x31)).toEqual(['EVENTFD', '0x30']);
    expect(protocol.regionFlagNames(0x80000004)).toEqual(['MMAP', '0x80000000']);
    expect(protocol.regionFlagNames(0xffffffff)).toEqual(['READ', 'WRITE', 'MMAP', 'CAPS', '0xfffffff0']);
  });
});

test('what a silent peer can do is what the specification says', () => {
  expect(protocol.DEFAULT_MAX_MSG_FDS).toBe(1);
  expect(protocol.DEFAULT_MAX_DATA_XFER_SIZE).toBe(1048576);
  expect(protocol.DEFAULT_MAX_DMA_MAPS).toBe(65535);
  expect(protocol.DEFAULT_PGSIZES).toBe(4096n);
});
