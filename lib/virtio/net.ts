/** A virtio network device as its user has it: frames out, frames in, the link. */
import { EventEmitter } from 'node:events';
import { byteArray, outOfRange } from '../fields.js';
import { ProtocolError, type CallOptions, type Device } from '../index.js';
import * as option from '../options.js';
import { VirtioDeviceType } from './constants.js';
import { VIRTIO_CHECKS, virtioSettings, type VirtioOptions } from './driver-options.js';
import type { DriverKind, DriverQueue, DriverSetup } from './driver-setup.js';
import { VirtioDriver, type VirtioParts } from './driver.js';
import { VirtioStatusError } from './errors.js';
import { NetFeature } from './features.js';
import { ReceiveQueue } from './receive-queue.js';
import { RequestQueue } from './request-queue.js';
import { VirtioRequest } from './request.js';
import { callOptions } from './transfer-data.js';

const RECEIVE_QUEUE = 0;
const TRANSMIT_QUEUE = 1;
/** struct virtio_net_hdr of VERSION_1 (section 5.1.6): all zeroes, as no offload is negotiated. */
const HEADER_BYTES = 12;
const ETHERNET_HEADER = 14;
/** A VLAN tag. */
const TAG = 4;
const DEFAULT_MTU = 1500;
const LEAST_MTU = 68;
const MAC_BYTES = 6;
const Config = { MAC: 0, STATUS: 6, MTU: 10 } as const;
const LINK_UP = 1;
const MOST_BUFFERS = 256;

/** The events of a `VirtioNet`. */
export interface VirtioNetEvents {
  /** A frame, from its destination address on, which is the listener's. Frames wait in the device's buffers while nobody listens. */
  frame: [frame: Buffer];
  /** The link came up, or went. */
  link: [isUp: boolean];
}

/** The options of `VirtioNet.open`. `completion` is `'interrupt'` by default; with `'poll'` frames are looked for every 20 ms. */
export interface VirtioNetOptions extends VirtioOptions {
  /** Buffers for frames that nobody has taken yet, 1 to 256: a device that has none left drops what comes. Default 64. */
  receiveBuffers?: number | undefined;
}

const OPTIONS = new option.OptionTable<VirtioNetOptions>({
  ...VIRTIO_CHECKS,
  receiveBuffers: option.wholeNumber(1, MOST_BUFFERS),
});

interface NetState {
  readonly mac: string | undefined;
  readonly mtu: number;
  readonly isUp: boolean;
}

class NetKind implements DriverKind {
  readonly features = [NetFeature.MAC, NetFeature.MTU, NetFeature.STATUS];
  state: NetState = { mac: undefined, mtu: DEFAULT_MTU, isUp: true };
  transmit!: RequestQueue;
  receive: ReceiveQueue | undefined;
  onFrame: (bytes: Buffer) => boolean = () => false;
  onLink: (isUp: boolean) => void = () => undefined;
  readonly #buffers: number;
  #refresh: () => void = () => undefined;

  constructor(buffers: number) {
    this.#buffers = buffers;
  }

  get mostBytes(): number {
    return this.state.mtu + ETHERNET_HEADER + TAG;
  }

  async configure(setup: DriverSetup): Promise<void> {
    const before = this.receive === undefined ? undefined : this.state;
    this.#take(await readState(setup));
    if (before !== undefined && this.state.mtu > before.mtu)
      throw new ProtocolError(`the MTU is ${this.state.mtu}, and was ${before.mtu}`);
    this.#refresh = () =>
      void readState(setup)
        .then((state) => this.#take({ ...state, mtu: Math.min(state.mtu, this.state.mtu) }))
        .catch(() => undefined);
  }

  async makeQueues(setup: DriverSetup): Promise<readonly DriverQueue[]> {
    const receive = await ReceiveQueue.allocate(setup, {
      ...{ index: RECEIVE_QUEUE, bytes: HEADER_BYTES + this.mostBytes, least: HEADER_BYTES },
      count: this.#buffers,
      onReceived: (bytes) => this.onFrame(bytes.subarray(HEADER_BYTES)),
    });
    try {
      this.transmit = await makeTransmit(setup, this.mostBytes);
    } catch (error) {
      await receive.free().catch(() => undefined);
      throw error;
    }
    this.receive = receive;
    return [receive, this.transmit];
  }

  onConfigChange(): void {
    this.#refresh();
  }

  #take(state: NetState): void {
    const { isUp } = this.state;
    this.state = state;
    if (state.isUp !== isUp) this.onLink(state.isUp);
  }
}

function makeTransmit(setup: DriverSetup, mostBytes: number): Promise<RequestQueue> {
  return RequestQueue.allocate(setup, {
    index: TRANSMIT_QUEUE,
    shape: {
      ...{ headerBytes: HEADER_BYTES, tailBytes: 0, isTailFirst: false },
      ...{ segmentBytes: 1 << 30, maxSegments: 1, maxTransferBytes: mostBytes },
    },
    // The device writes nothing: a frame that comes back is gone.
    readStatus: () => 0,
    statusError: () => (request, status) => new VirtioStatusError(request.name, status, `STATUS_${status}`),
  });
}

/** Fields of features that were not negotiated are not there. @throws ProtocolError. */
async function readState(setup: DriverSetup): Promise<NetState> {
  return setup.transport.readConfig(async (config) => {
    const mtu = setup.has(NetFeature.MTU) ? await config.uint16(Config.MTU) : DEFAULT_MTU;
    if (mtu < LEAST_MTU) throw new ProtocolError(`the MTU is ${mtu}: it is at least ${LEAST_MTU}`);
    const isUp = !setup.has(NetFeature.STATUS) || ((await config.uint16(Config.STATUS)) & LINK_UP) !== 0;
    if (!setup.has(NetFeature.MAC)) return { mac: undefined, mtu, isUp };
    const bytes: string[] = [];
    for (let i = 0; i < MAC_BYTES; i++)
      bytes.push((await config.uint8(Config.MAC + i)).toString(16).padStart(2, '0'));
    return { mac: bytes.join(':'), mtu, isUp };
  });
}

/**
 * A virtio network device (Virtual I/O Device 1.2, section 5.1), driven: Ethernet frames out and in, one to a buffer. No offload is
 * negotiated, so frames are as they are on the wire.
 * @example
 * ```ts
 * await using net = await VirtioNet.open(device);
 * net.on('frame', (frame) => console.log(frame.readUInt16BE(12).toString(16)));
 * await net.send(frame);
 * ```
 */
export class VirtioNet extends VirtioDriver<VirtioNetEvents> {
  readonly #kind: NetKind;

  /**
   * Starts the device: enables it, negotiates features and sets up its queues (section 3.1.1). It stays the caller's: close
   * the driver first.
   * @throws UnsupportedError for a device that is no virtio network device, or whose structures cannot be used; VirtioDeviceError
   * where it does not come up; ProtocolError for a configuration that makes no sense; what the device's calls throw.
   */
  static async open(device: Device, options: VirtioNetOptions = {}): Promise<VirtioNet> {
    OPTIONS.check('VirtioNet.open', options);
    const settings = virtioSettings({ ...options, completion: options.completion ?? 'interrupt' });
    const kind = new NetKind(options.receiveBuffers ?? 64);
    const make = (parts: VirtioParts) => new VirtioNet(parts, kind);
    return VirtioDriver.start<VirtioNetEvents, VirtioNet>(
      'VirtioNet.open',
      device,
      VirtioDeviceType.NETWORK,
      settings,
      make,
    );
  }

  private constructor(parts: VirtioParts, kind: NetKind) {
    super(parts, kind);
    this.#kind = kind;
    kind.onFrame = (bytes) => {
      if (this.listenerCount('frame') === 0) return false;
      const frame = Buffer.from(bytes);
      // Not from within a poll: what a listener throws is the caller's.
      queueMicrotask(() => this.emit('frame', frame));
      return true;
    };
    kind.onLink = (isUp) => queueMicrotask(() => this.emit('link', isUp));
    // Once the listener is there.
    EventEmitter.prototype.on.call(this, 'newListener', () => {
      queueMicrotask(() => kind.receive?.resume());
    });
  }

  /** `52:54:00:12:34:56`; undefined where the device has none. */
  get mac(): string | undefined {
    return this.#kind.state.mac;
  }

  /** The most bytes of a frame without its Ethernet header; 1,500 where the device does not say. */
  get mtu(): number {
    return this.#kind.state.mtu;
  }

  /** Whether the link is up, as the device last said. */
  get isUp(): boolean {
    return this.#kind.state.isUp;
  }

  /**
   * Sends a frame, which must not be changed before the promise settles: the device has taken it then. A frame that a reset interrupts is
   * not sent again.
   * @param frame - from its destination address on, without a checksum
   * @throws RangeError for a frame that is too short, or too long for the MTU; TypeError; TimeoutError, VirtioResetError,
   * VirtioDeviceError, ClosedError; the signal's reason.
   */
  async send(frame: Uint8Array, options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('VirtioNet.send', options);
    byteArray('VirtioNet.send: frame', frame);
    const { mostBytes, transmit } = this.#kind;
    if (frame.length < ETHERNET_HEADER || frame.length > mostBytes)
      throw outOfRange(
        `VirtioNet.send: frame has ${frame.length} bytes: it has ${ETHERNET_HEADER} to ${mostBytes}`,
      );
    const request = new VirtioRequest('send', Buffer.alloc(HEADER_BYTES)).through(frame, true);
    await transmit.commands.execute<void>(request, callOptions(options));
  }
}
