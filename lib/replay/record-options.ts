/**
 * Options of `connect` with which all that passes between client and device is messages, and so in the capture: the
 * device's memory is not mapped, and it gets none of ours.
 *
 * ```ts
 * await using device = await connect('/run/dev.sock', { ...RECORDABLE, capture: 'boot.pcapng' });
 * ```
 */
export const RECORDABLE = { mmap: 'never', secureDma: true } as const;
