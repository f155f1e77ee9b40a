/** Device features by number. */
import { constants } from 'node:os';
import { forbidCloning } from '../cloning.js';
import type { CallOptions, Decoder } from '../connection/index.js';
import { RemoteError, UnsupportedError } from '../errors.js';
import { byteArray, integer, UINT16_MAX, UINT32_MAX } from '../fields.js';
import * as option from '../options.js';
import {
  Command,
  DEVICE_FEATURE_GET,
  DEVICE_FEATURE_PROBE,
  DEVICE_FEATURE_SET,
  featureName,
} from '../protocol/constants.js';
import { decodeDeviceFeatureReply, encodeDeviceFeature, encodeProbe } from '../protocol/device-feature.js';
import type { DeviceContext } from './device-context.js';

/** What a feature can be asked to support. */
export interface FeatureMethods {
  /** Whether it can be got. */
  get?: boolean | undefined;
  /** Whether it can be set. */
  set?: boolean | undefined;
}

const METHODS = new option.OptionTable<FeatureMethods>({ get: option.boolean, set: option.boolean });

/** What servers say instead of "not supported". */
const NOT_SUPPORTED = new Set<number>([
  constants.errno.EINVAL,
  constants.errno.ENOTSUP,
  constants.errno.ENOTTY,
  constants.errno.ENOSYS,
]);

/**
 * Device features by number (specification: VFIO_USER_DEVICE_FEATURE).
 *
 * @example
 * ```ts
 * if (await device.features.probe(Feature.MIGRATION, { get: true })) {
 *   const flags = await device.features.get(Feature.MIGRATION, 8);
 * }
 * ```
 */
export class Features {
  readonly #context: DeviceContext;
  /** What is asked on the user's behalf works while the device is being set up again. */
  readonly #isInternal: boolean;
  /** Answers to probes; a server does not learn, but another one may have come in its place. */
  #known: Map<string, boolean> | undefined;

  /** @internal */
  constructor(context: DeviceContext, isInternal = false) {
    this.#context = context;
    this.#isInternal = isInternal;
    forbidCloning(this, 'a Features');
  }

  /** Whether optional commands may be tried at all: not on a server that answered minor 0, unless told to. */
  get mayAsk(): boolean {
    return this.#context.mayTryOptional;
  }

  /** Whether the device supports the feature, with all of these methods. Asked once and remembered, until a reconnect. */
  async probe(feature: number, methods: FeatureMethods = {}, options?: CallOptions): Promise<boolean> {
    const problem = METHODS.find('Features.probe', 'methods.', methods);
    if (problem !== undefined) throw problem;
    option.CALL_OPTIONS.check('Features.probe', options);
    integer('Features.probe: feature', feature, 0, UINT16_MAX);
    if (!this.mayAsk) return false;
    const flags = (methods.get ? DEVICE_FEATURE_GET : 0) | (methods.set ? DEVICE_FEATURE_SET : 0);
    const key = `${feature}/${flags}`;
    const known = this.#known?.get(key);
    if (known !== undefined) return known;
    const supported = await this.#ask(feature, flags, options);
    (this.#known ??= new Map()).set(key, supported);
    return supported;
  }

  /**
   * Gets the feature's data, at most `size` bytes of it; `data` is what the request itself brings, if anything.
   * @throws TypeError, RangeError for what the message cannot hold; UnsupportedError on a server that answered minor 0;
   * RemoteError, TimeoutError, ProtocolError, ClosedError; the signal's reason.
   */
  async get(
    feature: number,
    size: number,
    data: Uint8Array = new Uint8Array(0),
    options?: CallOptions,
  ): Promise<Buffer> {
    option.CALL_OPTIONS.check('Features.get', options);
    const payload = encodeDeviceFeature({
      feature,
      flags: DEVICE_FEATURE_GET,
      data,
      argsz: 8 + Math.max(integer('size', size, 0, UINT32_MAX - 8), byteArray('data', data).length),
    });
    return this.request(payload, options, (bytes, start, end) => {
      return decodeDeviceFeatureReply(bytes, start, end, feature, DEVICE_FEATURE_GET).data;
    });
  }

  /** Sets the feature; gives the data that the server answered with, which may say what it chose. Errors as of `get`. */
  async set(feature: number, data: Uint8Array, options?: CallOptions): Promise<Buffer> {
    option.CALL_OPTIONS.check('Features.set', options);
    const payload = encodeDeviceFeature({ feature, flags: DEVICE_FEATURE_SET, data });
    return this.request(payload, options, (bytes, start, end) => {
      return decodeDeviceFeatureReply(bytes, start, end, feature, DEVICE_FEATURE_SET).data;
    });
  }

  /** @internal The server has come back: it is asked again. */
  forget(): void {
    this.#known = undefined;
  }

  /** @internal A DEVICE_FEATURE command whose payload and reply are somebody else's. */
  async request<T>(payload: Buffer, options: CallOptions | undefined, decode: Decoder<T>): Promise<T> {
    this.refuseUnlessAsked();
    const connection = this.#isInternal ? this.#context.connection : this.#context.userConnection;
    return connection.call(Command.DEVICE_FEATURE, payload, null, decode, options);
  }

  /** @internal @throws UnsupportedError where `mayAsk` is false. */
  refuseUnlessAsked(): void {
    if (this.mayAsk) return;
    throw new UnsupportedError(
      'DEVICE_FEATURE is not sent to a server that answered minor 0: some lose step (option tryOptional)',
    );
  }

  async #ask(feature: number, methods: number, options: CallOptions | undefined): Promise<boolean> {
    const flags = methods | DEVICE_FEATURE_PROBE;
    try {
      await this.request(encodeProbe(feature, methods), options, (bytes, start, end) => {
        decodeDeviceFeatureReply(bytes, start, end, feature, flags);
      });
      return true;
    } catch (error) {
      if (error instanceof RemoteError && NOT_SUPPORTED.has(error.errno)) return false;
      throw error;
    }
  }

  /** For messages. */
  static nameOf(feature: number): string {
    return featureName(feature);
  }
}
