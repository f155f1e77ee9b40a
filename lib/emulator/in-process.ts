/** A device for a client in the same process: its handlers are called, and there is no socket. */
import { ClosedError, type VfioUserError } from '../errors.js';
import { openLoopback, type Transport, type TransportHandler } from '../transport/index.js';
import { checkDevice } from './device-check.js';
import type { DeviceModel } from './device-model.js';
import { EMULATOR_OPTIONS, settingsOf, type EmulatorOptions } from './emulator-options.js';
import { EmulatorSession, tellOfClient } from './emulator-session.js';
import { FaultSeam, planOf } from './fault-seam.js';
import { RegionTable } from './region-table.js';

/**
 * A device of this process: its handlers are called, and nothing goes through a socket. Synchronous calls work where the
 * handler answers at once.
 */
export interface ModelEndpoint {
  /** The device. It is its owner's, who closes it, and can be connected to more than once. */
  model: DeviceModel;
  /** What a server of it could be told. */
  options?: EmulatorOptions;
}

/** What the transport is called in errors and traces. */
const PEER = 'the device in this process';

/**
 * Checks what a client of the device would find.
 * @throws TypeError or RangeError for a device that contradicts itself, and for options that make no sense.
 */
export function checkModel(caller: string, device: DeviceModel, options: EmulatorOptions = {}): void {
  EMULATOR_OPTIONS.check(caller, options);
  checkDevice(device);
  planOf(caller, options.faults, device);
}

/** The client's end of a new connection to a device that has been checked. */
export function openModel(
  device: DeviceModel,
  options: EmulatorOptions = {},
): (handler: TransportHandler) => Transport {
  // Two sockets would be two ways for what has one order.
  const settings = settingsOf({ ...options, twinSocket: false }, 1, device.hardware);
  const plan = planOf('connect', options.faults, device);
  const sessions = new Set<EmulatorSession>();
  const endServer = (reason: VfioUserError): void => {
    for (const session of sessions) session.close(reason);
  };
  const seam = plan && new FaultSeam(device, plan, settings, { endServer });
  const served = seam?.device ?? device;
  return openLoopback(PEER, (open) => {
    const session = new EmulatorSession(
      served,
      new RegionTable(served.regions),
      seam?.settings ?? settings,
      open,
    );
    sessions.add(session);
    void session.closed.then(() => sessions.delete(session));
    if (seam?.isAway === true) session.close(new ClosedError('by a fault the server is not there'));
    else tellOfClient(session, settings);
    return session;
  });
}
