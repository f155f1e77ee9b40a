/** Log pages in parts, and by the index of a structure. */
import { describe, expect, test } from '@jest/globals';
import { AdminOpcode, LogPageId } from '../../lib/nvme/index.js';
import { opened } from './fixture.js';

const RETAINED = 1 << 15;

/** A controller, and CDW10 and CDW11 of each Get Log Page that comes. */
async function watched() {
  const { emulated, controller } = await opened();
  const seen: { cdw10: number; cdw11: number }[] = [];
  emulated.intercept = ({ opcode, lba }) => {
    if (opcode !== AdminOpcode.GET_LOG_PAGE) return 'pass';
    seen.push({ cdw10: Number(BigInt.asUintN(32, lba)), cdw11: Number(lba >> 32n) });
    return { status: 0 };
  };
  return { controller, seen };
}

const isRetained = ({ cdw10 }: { cdw10: number }) => (cdw10 & RETAINED) !== 0;

describe('in parts', () => {
  test('the event, and the page with it, stays as it is until the last part', async () => {
    const { controller, seen } = await watched();
    await controller.logPage(LogPageId.CHANGED_NAMESPACES, 3 * 4096 - 8);
    expect(seen.map(isRetained)).toEqual([true, true, false]);
    seen.length = 0;
    await controller.logPage(LogPageId.CHANGED_NAMESPACES, 8192, { retainEvent: true });
    expect(seen.map(isRetained)).toEqual([true, true]);
    seen.length = 0;
    await controller.logPage(LogPageId.CHANGED_NAMESPACES, 4096);
    expect(seen.map(isRetained)).toEqual([false]);
  });
});

describe('from the index of a structure on', () => {
  test('any index, in one command', async () => {
    const { controller, seen } = await watched();
    await controller.logPage(0x0d, 65_536, { isIndexOffset: true, offset: 3 });
    expect(seen).toHaveLength(1);
    expect((seen[0]!.cdw10 >>> 16) + (seen[0]!.cdw11 & 0xffff) * 65_536).toBe(65_536 / 4 - 1);
  });

  test('more than one command could give is refused: a second one would go on elsewhere', async () => {
    const { controller, seen } = await watched();
    const call = controller.logPage(0x0d, 65_540, { isIndexOffset: true });
    await expect(call).rejects.toThrow(RangeError);
    await expect(call).rejects.toThrow('length must be at most 65536 where the offset is an index');
    await expect(controller.logPage(0x0d, 64, { isIndexOffset: true, offset: 0.5 })).rejects.toThrow(
      RangeError,
    );
    await expect(controller.logPage(0x0d, 64, { offset: 3 })).rejects.toThrow('multiple of 4');
    expect(seen).toEqual([]);
  });
});
