/** What the kernel is told of interrupts: the ioctl is played here, as a NORESIZE kernel answers it. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { DeviceError } from '../../lib/emulator/index.js';
import { native } from '../../lib/native.js';
import { KernelIrqs } from '../../lib/vfio/kernel-irqs.js';
import { quiesce } from '../../lib/vfio/quiesce.js';
import { openFds } from '../support/fds.js';

const [EINVAL, EIO, ENOSPC] = [22, 5, 28];
const [DATA_NONE, DATA_BOOL, DATA_EVENTFD] = [1, 2, 4];
const [MASK, TRIGGER] = [8, 32];
const [MSI, MSIX] = [1, 2];
const NONE = -1;

/** An index takes no more vectors than it was enabled with, and no more than `most` at all. */
class Kernel {
  readonly enabled = new Map<number, number[]>();
  readonly calls: string[] = [];
  most = 8;

  readonly setIrqs = (
    index: number,
    start: number,
    count: number,
    action: number,
    fds: readonly number[] | null,
  ): number => {
    this.calls.push(`${index}: ${start}+${count} ${action} ${fds === null ? 'none' : fds.length}`);
    if (action !== TRIGGER) return 0;
    if (fds === null) {
      if (count === 0) this.enabled.delete(index);
      return 0;
    }
    const before = this.enabled.get(index);
    if (before !== undefined && start + count > before.length) return -EINVAL;
    if (start + count > this.most) return -ENOSPC;
    const now = before ?? new Array<number>(start + count).fill(NONE);
    // Another number for each, as the kernel has files and not numbers.
    fds.forEach((fd, i) => (now[start + i] = fd));
    this.enabled.set(index, now);
    return 0;
  };

  /** Whether each vector has an eventfd. */
  armed(index: number): boolean[] {
    return (this.enabled.get(index) ?? []).map((fd) => fd !== NONE);
  }
}

let kernel: Kernel;
let irqs: KernelIrqs;
let before: number;
const events: number[] = [];

beforeEach(() => {
  before = openFds();
  kernel = new Kernel();
  irqs = new KernelIrqs(kernel.setIrqs);
});

afterEach(() => {
  irqs.close();
  for (const fd of events.splice(0)) native().closeFd(fd);
  expect(openFds()).toBe(before);
});

function fds(count: number): number[] {
  const fresh = Array.from({ length: count }, () => native().eventfd(0));
  events.push(...fresh);
  return fresh;
}

function arm(index: number, start: number, count: number): void {
  irqs.set({ index, start, count, flags: TRIGGER | DATA_EVENTFD }, fds(count));
}

describe('an index that takes no more vectors than it was enabled with', () => {
  test('is enabled again with all of them', () => {
    arm(MSI, 0, 2);
    arm(MSI, 2, 2);
    expect(kernel.armed(MSI)).toEqual([true, true, true, true]);
    expect(kernel.calls).toEqual(['1: 0+2 32 2', '1: 2+2 32 2', '1: 0+0 32 none', '1: 0+4 32 4']);
  });

  test('has a gap where nothing was asked for', () => {
    arm(MSI, 0, 1);
    arm(MSI, 3, 1);
    expect(kernel.armed(MSI)).toEqual([true, false, false, true]);
  });

  test('keeps those that it had where more cannot be had', () => {
    arm(MSI, 0, 3);
    kernel.most = 3;
    expect(() => arm(MSI, 3, 2)).toThrow(DeviceError);
    expect(kernel.armed(MSI)).toEqual([true, true, true]);
    expect(kernel.calls.at(-1)).toBe('1: 0+3 32 3');
    // What is known of it is what the kernel has.
    kernel.most = 8;
    arm(MSI, 3, 1);
    expect(kernel.armed(MSI)).toEqual([true, true, true, true]);
  });

  test('that was not enabled passes the refusal on', () => {
    kernel.most = 0;
    expect(() => arm(MSI, 0, 1)).toThrow(expect.objectContaining({ errno: ENOSPC }));
    expect(kernel.calls).toHaveLength(1);
  });
});

test('a vector that is given up is not enabled again', () => {
  arm(MSI, 0, 2);
  irqs.set({ index: MSI, start: 0, count: 1, flags: TRIGGER | DATA_EVENTFD }, []);
  arm(MSI, 2, 1);
  expect(kernel.armed(MSI)).toEqual([false, true, true]);
});

test('actions are passed on, those of a list one by one', () => {
  irqs.set({ index: 0, start: 0, count: 1, flags: MASK | DATA_NONE }, []);
  irqs.set({ index: MSI, start: 2, count: 3, flags: TRIGGER | DATA_BOOL, data: Buffer.from([1, 0, 1]) }, []);
  expect(kernel.calls).toEqual(['0: 0+1 8 none', '1: 2+1 32 none', '1: 4+1 32 none']);
});

test('an index that is disabled is forgotten', () => {
  arm(MSIX, 0, 2);
  irqs.set({ index: MSIX, start: 0, count: 0, flags: TRIGGER | DATA_NONE }, []);
  arm(MSIX, 0, 1);
  expect(kernel.armed(MSIX)).toEqual([true]);
  kernel.calls.length = 0;
  irqs.disableAll();
  expect(kernel.calls).toEqual(['2: 0+0 32 none']);
});

describe('when a client goes', () => {
  test('bus mastering is off and interrupts are disabled', () => {
    arm(MSI, 0, 1);
    let command = 0x0507;
    quiesce({ read: () => command, write: (value) => (command = value) }, irqs);
    expect(command).toBe(0x0503);
    expect(kernel.enabled.size).toBe(0);
  });

  test.each([
    ['read', true],
    ['written', false],
  ])('they are disabled also where COMMAND cannot be %s', (_what, isRead) => {
    arm(MSI, 0, 2);
    arm(MSIX, 0, 1);
    const fail = (): never => {
      throw new DeviceError(EIO, 'no answer');
    };
    const command = { read: () => (isRead ? fail() : 7), write: fail };
    expect(() => quiesce(command, irqs)).toThrow(/no answer/);
    expect(kernel.enabled.size).toBe(0);
  });
});
