/** The registers of the edu device, as a file has them. */
export const EDU_MAP = {
  format: 'vfio-user-registers/1',
  name: 'edu',
  blocks: [
    {
      name: 'EDU',
      children: [
        { name: 'ID', offset: 0x00, access: 'RO', reset: 0x010000ed },
        { name: 'LIVENESS', offset: 0x04, noTest: true },
        { name: 'FACTORIAL', offset: 0x08, noTest: true },
        {
          name: 'STATUS',
          offset: 0x20,
          fields: [
            { name: 'COMPUTING', lsb: 0, access: 'RO', volatile: true },
            { name: 'INTERRUPT', lsb: 7 },
          ],
        },
        { name: 'IRQ_RAISE', offset: 0x60, access: 'WO', onWrite: 'W1S' },
        { name: 'IRQ_ACKNOWLEDGE', offset: 0x64, access: 'WO', onWrite: 'W1C' },
      ],
    },
  ],
} as const;
