/** What is known of a server: the survey says what it has, later probes what it does. */
import type { DeviceInfo } from '../protocol/device-info.js';
import type { IrqInfo } from '../protocol/irq-info.js';
import type { RegionInfo } from '../protocol/region-info.js';

export interface RegionFacts {
  info: RegionInfo;
  fds: number;
}

export class ServerFacts {
  /** In the reply to 0.2; undefined before VERSION was answered. */
  version: { major: number; minor: number } | undefined;
  /** The version data of VERSION's reply as text, without its NUL. */
  capabilitiesText: string | undefined;
  /** The object under `capabilities`, whatever the server put there. */
  capabilities: Record<string, unknown> = {};
  maxDataXferSize = 1 << 20;
  info: DeviceInfo | undefined;
  regions: RegionFacts[] = [];
  irqs: IrqInfo[] = [];
  /** Config space, as far as it could be read. */
  config: Buffer | undefined;
  /** How a command that is not supported was answered, by command name. */
  readonly unsupported = new Map<string, string>();
  /** Commands after which the server was out of sync, or gone. */
  readonly breakingCommands = new Set<string>();
  /** The widths that a region was read in at its beginning, of those that were tried; empty where all are refused. */
  readonly widths = new Map<number, number[]>();
  /** The most data that a write may carry and arrive as one message; undefined where all sizes did. */
  writeChunkBytes: number | undefined;
  /** After so many commands whose replies were not read the server took no more. */
  unreadLimit: number | undefined;
  /** What pipelined commands must not be more than; undefined where all were answered. */
  inFlight: number | undefined;
  /** How a server took the end of its first client. */
  nextClient: 'served' | 'ended' | 'refused' | 'silent' | undefined;
  /** The exit status of a server process that ended after a well-behaved client. */
  usualExit: string | undefined;
  /** Ids of the rules that were broken. */
  readonly broken = new Set<string>();

  /** Vendor and device id. */
  get ids(): { vendorId: number; deviceId: number } | undefined {
    if (this.config === undefined || this.config.byteLength < 4) return undefined;
    return { vendorId: this.config.readUInt16LE(0), deviceId: this.config.readUInt16LE(2) };
  }
}
