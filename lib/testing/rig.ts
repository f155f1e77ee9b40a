/**
 * A rig: a device, its server and what is needed to look at them, opened and closed as one.
 *
 * ```
 *   openRig ──▶ directory ──▶ server, proxy ──▶ connect, enable ──▶ the test
 *   close   ──▶ what a failed test leaves: capture, registers, messages ──▶ device, proxy, server, directory
 * ```
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { FaultPlan, type FaultPlanSpec, type FaultReport, type FaultSpec } from '../faults/index.js';
import { connect, type Device, type Vector } from '../index.js';
import {
  bindRegisters,
  type BoundRegisters,
  type Field,
  type Register,
  type RegisterPlacement,
} from '../registers/index.js';
import { registerDump, writeEvidence, type RigAttachment } from './evidence.js';
import {
  expectDma,
  expectInterrupt,
  expectNoInterrupt,
  expectValue,
  type DmaExpectation,
  type DmaRange,
  type ExpectedValue,
  type InterruptOptions,
  type NoInterruptOptions,
  type WithinOptions,
} from './expectations.js';
import { watchDevices, watchRig } from './left-open.js';
import { guardDirectory } from './processes.js';
import { RigError } from './rig-error.js';
import { placementOf } from './rig-map.js';
import { DEFAULT_TIMEOUT_MS, sourceOf, type RigOptions } from './rig-options.js';
import { RigServer } from './rig-server.js';

const DEFAULT_OUTPUT = 'rig-results';
/** A capture begins anew at this size, and keeps so many old files. */
const CAPTURE_BYTES = 64 << 20;
const OLD_CAPTURES = 1;

/** How a rig is started again. */
export interface RestartOptions {
  /** A process gets this signal; `SIGKILL` is how a server dies. Default `SIGTERM`. */
  signal?: NodeJS.Signals | undefined;
}

interface Parts {
  readonly options: RigOptions;
  readonly directory: string;
  readonly release: () => void;
  readonly server: RigServer;
  readonly placement: RegisterPlacement | undefined;
  readonly plan: FaultPlan | undefined;
}

/**
 * A device and its server, for a test: `openRig` makes it.
 *
 * @example
 * ```ts
 * await using rig = await openRig({ device: () => new EduDevice(), map: 'edu.json' });
 * const [vector] = await rig.device.irqs.msi.enable(1);
 * await rig.register('IRQ_RAISE').write(1);
 * await rig.expectInterrupt(vector, { within: 10 });
 * ```
 */
export class Rig implements AsyncDisposable {
  /** The test's name, in evidence. */
  readonly name: string;
  /** A directory of its own, which goes with it. */
  readonly directory: string;
  readonly #parts: Parts;
  readonly #attachments: RigAttachment[] = [];
  #device: Device | undefined;
  #bound = new Map<unknown, BoundRegisters>();
  #captures = 0;
  #error: { readonly error: unknown } | undefined;
  #registers: string | undefined;
  #closing: Promise<void> | undefined;
  /** The last restart, however it ends; and what gives up connecting. */
  #restarting: Promise<unknown> = Promise.resolve();
  #giveUp = new AbortController();
  #isClosed = false;

  /** @internal */
  constructor(parts: Parts) {
    this.#parts = parts;
    this.name = parts.options.name ?? 'rig';
    this.directory = parts.directory;
  }

  /** The device. After `restart` it is another one. @throws RigError where there is none at the moment. */
  get device(): Device {
    if (this.#device === undefined)
      throw new RigError('the rig has no device: it is closed, or being restarted');
    return this.#device;
  }

  /** Whether it is closed, or being closed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Whether the test has failed, as far as the rig knows: by an expectation of its own, or by `fail`. */
  get hasFailed(): boolean {
    return this.#error !== undefined;
  }

  /** The files for the test's report; complete once it is closed. */
  get attachments(): readonly RigAttachment[] {
    return this.#attachments;
  }

  /** What has become of the faults; undefined where there are none. */
  faultReport(): FaultReport | undefined {
    return this.#parts.plan?.report();
  }

  /** The register of a name of the map: `CTRL`, `UART0.CTRL`. @throws RangeError where there is none. */
  register(name: string): Register {
    const { register, field, block } = this.#find(name);
    if (field !== undefined) throw new RangeError(`${name} is a field: say rig.field('${name}')`);
    return block.register(register.path);
  }

  /** The field of a name of the map: `CTRL.MODE`, `UART0.CTRL.MODE`. @throws RangeError where there is none. */
  field(name: string): Field {
    const { register, field, block } = this.#find(name);
    if (field === undefined) throw new RangeError(`${name} is a register: say rig.register('${name}')`);
    return block.register(register.path).field(field.name);
  }

  /**
   * A block's registers as members in camelCase; of the only block, where there is one. @throws RangeError where there is none, or
   * several.
   */
  registers<T extends object>(block?: string): T {
    const { blocks } = this.#placement();
    const [first, second] = block === undefined ? blocks : blocks.filter((one) => one.block.name === block);
    if (first === undefined) throw new RangeError(`the map has no block ${block}`);
    if (second !== undefined)
      throw new RangeError(
        `the map has ${blocks.length} blocks: say which (${blocks.map((one) => one.block.name).join(', ')})`,
      );
    return this.#block(first.block).members<T>();
  }

  /** Waits for interrupts, those that came already included: how many came. @throws ExpectationError where they do not in time. */
  async expectInterrupt(vector: Vector, options?: InterruptOptions): Promise<number> {
    return this.#expecting(() => expectInterrupt(vector, options));
  }

  /** Waits, and fails where an interrupt comes. @throws ExpectationError */
  async expectNoInterrupt(vector: Vector, options?: NoInterruptOptions): Promise<void> {
    return this.#expecting(() => expectNoInterrupt(vector, options));
  }

  /**
   * Reads a register or field until it has a value: a number, the name of one, or an object with fields' values.
   * @throws ExpectationError that says what it was; RangeError for names that there are not.
   */
  async expectRegister(name: string, expected: ExpectedValue, options?: WithinOptions): Promise<void> {
    const { register, field, block } = this.#find(name);
    const bound = block.register(register.path);
    const own = field === undefined ? undefined : bound.field(field.name);
    return this.#expecting(() => expectValue(name, bound, own, expected, options));
  }

  /**
   * Waits until the device has written DMA memory: what `bytes` says, or anything else than what is there now. In the second case
   * call it first, then tell the device, then await it. @throws ExpectationError
   */
  async expectDma(range: DmaRange, options?: DmaExpectation): Promise<void> {
    return this.#expecting(() => expectDma(range, options));
  }

  /**
   * Ends the server, starts it again, connects to it and enables the device. A server that runs elsewhere is connected to again. One
   * restart follows the other. @throws RigError where the rig is closed, or is being closed meanwhile.
   */
  restart({ signal }: RestartOptions = {}): Promise<Device> {
    const restarted = this.#restarting.then(async () => {
      this.#requireOpen();
      await this.#closeDevice();
      await this.#parts.server.stop(signal);
      this.#requireOpen();
      return this.#begin();
    });
    this.#restarting = restarted.catch(() => undefined);
    return restarted;
  }

  /** Says that the test has failed, and why: what the device's registers hold is written down now, all else as the rig is closed. */
  async fail(error?: unknown): Promise<void> {
    if (this.#error !== undefined) return;
    this.#error = { error };
    const { placement } = this.#parts;
    if (placement === undefined || this.#device === undefined) return;
    this.#registers = await registerDump(placement, (name) => this.register(name)).catch(
      (reason: unknown) => `no registers: ${String(reason)}`,
    );
  }

  /**
   * Closes all of it, and keeps what a failed test leaves. Idempotent.
   * @throws RigError where the server had ended by itself; else what could not be closed, after all the rest was.
   */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  /** Does what `close` does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal Starts the server, and opens the device. */
  async begin(): Promise<void> {
    await this.#begin();
    watchRig(this);
  }

  async #begin(): Promise<Device> {
    const { server, options } = this.#parts;
    const { timeoutMs = DEFAULT_TIMEOUT_MS, enable = true } = options;
    const endpoint = await server.start();
    const { capture = 'on-failure' } = options;
    const file = path.join(
      this.directory,
      `capture${this.#captures++ === 0 ? '' : `-${this.#captures}`}.pcapng`,
    );
    const kept = { path: file, rotateBytes: CAPTURE_BYTES, rotateFiles: OLD_CAPTURES };
    const giveUp = (this.#giveUp = new AbortController());
    const { signal } = options.connect ?? {};
    const connecting = connect(endpoint, {
      timeoutMs,
      // A proxy of the rig's stands before the server, and can wait for it.
      ...(typeof endpoint === 'string' && { waitForSocket: true }),
      ...options.connect,
      ...(capture !== 'never' && { capture: kept }),
      signal: signal === undefined ? giveUp.signal : AbortSignal.any([giveUp.signal, signal]),
    });
    // Who ends first says why; the other one's end is no news.
    const ended = server.untilItEnds();
    ended.catch(() => undefined);
    connecting.catch(() => undefined);
    try {
      this.#device = await Promise.race([connecting, ended]);
      if (enable && this.#device.isPci) await this.#device.enable();
      return this.#device;
    } catch (error) {
      giveUp.abort(error);
      await connecting.then((device) => device.close()).catch(() => undefined);
      throw error;
    }
  }

  #requireOpen(): void {
    if (this.#isClosed) throw new RigError('the rig is closed');
  }

  async #expecting<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      await this.fail(error);
      throw error;
    }
  }

  #placement(): RegisterPlacement {
    const { placement } = this.#parts;
    if (placement === undefined) throw new RangeError('the rig has no map: registers have no names');
    return placement;
  }

  #find(name: string): ReturnType<RegisterPlacement['find']> & { block: BoundRegisters } {
    const placement = this.#placement();
    const found = placement.find(name);
    const own = placement.blocks.find(({ block }) => block.registers.includes(found.register));
    if (own === undefined) throw new RangeError(`the map has no register ${name}`);
    return { ...found, block: this.#block(own.block) };
  }

  #block(block: RegisterPlacement['blocks'][number]['block']): BoundRegisters {
    let bound = this.#bound.get(block);
    if (bound === undefined) {
      const placement = this.#placement();
      const offset = placement.blocks.find((one) => one.block === block)?.start ?? 0;
      bound = bindRegisters(block, this.device.region(placement.region), { offset });
      this.#bound.set(block, bound);
    }
    return bound;
  }

  async #closeDevice(): Promise<void> {
    const device = this.#device;
    this.#device = undefined;
    this.#bound = new Map();
    await device?.close();
  }

  async #close(): Promise<void> {
    this.#isClosed = true;
    this.#giveUp.abort(new RigError('the rig is closed'));
    await this.#restarting;
    const { server, options, directory, release } = this.#parts;
    const problem = await server.problem();
    if (problem !== undefined) await this.fail(problem);
    const errors: unknown[] = problem === undefined ? [] : [problem];
    const steps = [
      () => this.#closeDevice(),
      () => server.stop(),
      () => this.#keep(options),
      () => rm(directory, { recursive: true, force: true }),
    ];
    for (const step of steps) {
      try {
        await step();
      } catch (error) {
        errors.push(error);
      }
    }
    release();
    if (errors.length > 0) throw errors[0];
  }

  /** Once everything is closed, so that captures are whole. */
  async #keep({ capture = 'on-failure', outputDir, name }: RigOptions): Promise<void> {
    if (this.#error === undefined && capture !== 'always') return;
    const { placement, directory, plan } = this.#parts;
    const into = outputDir ?? process.env['VFIO_USER_RIG_OUTPUT'] ?? DEFAULT_OUTPUT;
    const evidence = {
      name: name ?? this.name,
      outputDir: into,
      directory,
      error: this.#error?.error,
      registers: this.#registers,
      placement,
      faults: plan?.report(),
    };
    this.#attachments.push(...(await writeEvidence(evidence)));
  }
}

/**
 * Opens a rig: a directory of its own, the server, the device, enabled. What has been opened by then is closed where that fails.
 *
 * @throws RigError where the server ends before it serves; what starting and connecting throw; TypeError and RangeError for
 * options that make no sense.
 */
export async function openRig(options: RigOptions): Promise<Rig> {
  const source = sourceOf(options);
  watchDevices();
  const placement = options.map === undefined ? undefined : await placementOf(options.map);
  const plan = await planOf(options.faults, placement);
  const directory = await mkdtemp(path.join(tmpdir(), 'vfio-user-rig-'));
  const release = guardDirectory(directory);
  const server = new RigServer(source, options, directory, plan);
  const rig = new Rig({ options, directory, release, server, placement, plan });
  try {
    await rig.begin();
    return rig;
  } catch (error) {
    await rig.fail(error);
    // Why it did not open is said by the first error.
    await rig.close().catch(() => undefined);
    throw error;
  }
}

/**
 * Opens a rig, runs a test with it, and closes it; of a test that fails, evidence is kept.
 *
 * @example
 * ```ts
 * await withRig({ command: ['./my-device', '{socket}'], map: 'uart.svd' }, async (rig) => {
 *   await rig.expectRegister('STATUS.READY', 1, { within: 100 });
 * });
 * ```
 * @throws what the test throws; else what `Rig.close` throws.
 */
export async function withRig<T>(
  options: RigOptions,
  body: (rig: Rig) => T | Promise<T>,
  onClosed?: (rig: Rig) => void | Promise<void>,
): Promise<T> {
  const rig = await openRig(options);
  let outcome: { value: T } | { error: unknown };
  try {
    outcome = { value: await body(rig) };
  } catch (error) {
    await rig.fail(error);
    outcome = { error };
  }
  try {
    await rig.close();
  } catch (error) {
    // What the test failed by is what counts.
    if ('value' in outcome) outcome = { error };
  }
  await onClosed?.(rig);
  if ('error' in outcome) throw outcome.error;
  return outcome.value;
}

async function planOf(
  faults: readonly FaultSpec[] | FaultPlanSpec | FaultPlan | string | undefined,
  placement: RegisterPlacement | undefined,
): Promise<FaultPlan | undefined> {
  if (faults === undefined || faults instanceof FaultPlan) return faults;
  const spec: unknown = typeof faults === 'string' ? await readJson(faults) : faults;
  const plan = Array.isArray(spec) ? { faults: spec as unknown[] } : (spec as object);
  return new FaultPlan({ ...(placement && { map: placement }), ...plan } as unknown as FaultPlanSpec);
}

async function readJson(file: string): Promise<unknown> {
  const text = await readFile(file, 'utf8');
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new RigError(`${file} is not JSON: ${(error as Error).message}`, { cause: error });
  }
}
