/**
 * Turning a controller on and off (NVM Express Base 2.0, sections 3.5.1 and 3.6.1). Every wait is bounded by what CAP.TO
 * or the identity says, and ends at once when the controller reports a fatal status.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { RemoteError, TimeoutError, type Device, type DmaBuffer, type Region } from '../index.js';
import { findCapability, MsixControl, PciCommand, PciConfig } from '../pci/index.js';
import { NvmeControllerError } from './errors.js';
import {
  adminQueueAttributes,
  ControllerConfiguration,
  ControllerStatus,
  enabledConfiguration,
  NvmeRegister,
  type ControllerCapabilities,
} from './registers.js';

const FIRST_PAUSE_MS = 0.25;
const LONGEST_PAUSE_MS = 10;
/** CAP.TO counts in these; a controller that says 0 gets one. */
const READY_STEP_MS = 500;

export interface AdminQueueAddresses {
  entries: number;
  sqAddress: bigint;
  cqAddress: bigint;
}

/** Clears CC.EN and waits until CSTS.RDY is cleared too: the controller does not touch memory any more (3.7.2). */
export async function disable(bar: Region, capabilities: ControllerCapabilities): Promise<void> {
  const configuration = await bar.readUInt32(NvmeRegister.CC);
  const status = await readStatus(bar);
  if ((configuration & ControllerConfiguration.EN) !== 0) {
    // While the controller is still on its way up, CC.EN must not be cleared (3.1.3.5).
    const isSettled = (status & (ControllerStatus.RDY | ControllerStatus.CFS)) !== 0;
    if (!isSettled) await waitReady(bar, capabilities, true).catch(goOnAllTheSame);
    const cleared = configuration & ~(ControllerConfiguration.EN | ControllerConfiguration.SHN_MASK);
    await bar.writeUInt32(NvmeRegister.CC, cleared >>> 0);
  }
  await waitReady(bar, capabilities, false);
}

/** Steps 3 to 6 of 3.5.1: admin queues, CC, and the wait for CSTS.RDY. */
export async function enable(
  bar: Region,
  capabilities: ControllerCapabilities,
  queues: AdminQueueAddresses,
  pageSize: number,
): Promise<void> {
  await bar.writeUInt32(NvmeRegister.AQA, adminQueueAttributes(queues.entries));
  await bar.writeUInt64(NvmeRegister.ASQ, queues.sqAddress);
  await bar.writeUInt64(NvmeRegister.ACQ, queues.cqAddress);
  await bar.writeUInt32(NvmeRegister.CC, enabledConfiguration(pageSize, capabilities.commandSets));
  await waitReady(bar, capabilities, true);
}

/** How many requests for memory the server has made. */
export function memoryRequests({ counters }: Device): number {
  return counters.served + counters.refused;
}

/**
 * The error of a controller that did not come up, with the likely reason where it has no file of its queues' memory and has
 * not asked for it either: SPDK takes memory that it can map and no other, and says nothing.
 * @param asked what `memoryRequests` was before the controller was enabled
 */
export function withLikelyReason(error: unknown, device: Device, memory: DmaBuffer, asked: number): unknown {
  const isSilence =
    error instanceof NvmeControllerError || error instanceof TimeoutError || error instanceof RemoteError;
  if (!isSilence || memory.shared || memoryRequests(device) > asked) return error;
  return new NvmeControllerError(
    `${error.message}; the controller has no file of its queues' memory (secureDma, or a connection that passes no ` +
      'file descriptors) and has not asked for it by message: it may reach only memory that it maps, as SPDK does; connect ' +
      'over a Unix socket and without secureDma',
    { cause: error },
  );
}

/** Orderly shutdown (3.6.1): CC.SHN = 01b, then CSTS.SHST = 10b. */
export async function shutDown(bar: Region, timeoutMs: number): Promise<void> {
  const configuration = await bar.readUInt32(NvmeRegister.CC);
  if ((configuration & ControllerConfiguration.EN) === 0) return;
  const notified = (configuration & ~ControllerConfiguration.SHN_MASK) | ControllerConfiguration.SHN_NORMAL;
  await bar.writeUInt32(NvmeRegister.CC, notified >>> 0);
  const isDone = (status: number) => (status & ControllerStatus.SHST_MASK) === ControllerStatus.SHST_COMPLETE;
  await waitStatus(bar, isDone, timeoutMs, 'CSTS.SHST does not become complete');
}

/** CSTS. @throws NvmeControllerError where the device is gone, which reads as all ones. */
export async function readStatus(bar: Region): Promise<number> {
  const status = await bar.readUInt32(NvmeRegister.CSTS);
  if (status === ControllerStatus.GONE)
    throw new NvmeControllerError('CSTS reads as all ones: the device is gone');
  return status;
}

async function waitReady(
  bar: Region,
  { readyTimeoutMs }: ControllerCapabilities,
  ready: boolean,
): Promise<void> {
  const wanted = ready ? ControllerStatus.RDY : 0;
  const isDone = (status: number) => {
    // A controller that failed is disabled all the same.
    if (ready && (status & ControllerStatus.CFS) !== 0) {
      throw new NvmeControllerError('CSTS.CFS: the controller reports a fatal status');
    }
    return (status & ControllerStatus.RDY) === wanted;
  };
  const timeoutMs = Math.max(READY_STEP_MS, readyTimeoutMs);
  await waitStatus(bar, isDone, timeoutMs, `CSTS.RDY does not become ${ready ? 1 : 0}`);
}

function goOnAllTheSame(error: unknown): void {
  if (!(error instanceof NvmeControllerError)) throw error;
}

async function waitStatus(
  bar: Region,
  isDone: (status: number) => boolean,
  timeoutMs: number,
  complaint: string,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(LONGEST_PAUSE_MS, pause * 2)) {
    // Looked at before the status: one that is late in coming still counts.
    const isOver = performance.now() >= deadline;
    if (isDone(await readStatus(bar))) return;
    if (isOver) throw new NvmeControllerError(`${complaint} within ${timeoutMs} ms`);
    await sleep(pause);
  }
}

/**
 * Completions are polled for, or come as MSI-X vectors that are enabled for them. What another driver has left enabled
 * would be signalled in vain, and SPDK's controller takes that for fatal.
 */
export async function disableInterrupts(device: Device): Promise<void> {
  if (!device.hasConfig) return;
  const { config, irqs } = device;
  try {
    await config.update(PciConfig.COMMAND, 2, PciCommand.INTX_DISABLE, PciCommand.INTX_DISABLE);
    const msix = findCapability(config.capabilities, 'msix');
    if (msix !== undefined && !irqs.msix.enabled)
      await config.update(msix.controlOffset, 2, MsixControl.ENABLE, 0);
  } catch (error) {
    // A device that cannot be told so signals in vain.
    if (!(error instanceof RemoteError)) throw error;
  }
}
