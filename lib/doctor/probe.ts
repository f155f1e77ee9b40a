/** What a probe is, and what it works with. */
import { GET_INFO, versionPayload } from './raw-messages.js';
import type { ServerFacts } from './server-facts.js';
import type { Evidence, RuleResult, Trait, Verdict } from './report.js';
import { RULES, type RuleId } from './rules.js';
import { describeAnswer, isGood, type Answer, type Reply, type RawConnection } from './raw-connection.js';
import { Command } from '../protocol/constants.js';

/**
 * What a probe may cost: nothing (its commands are valid, and may be refused), its connection, or, with servers that do
 * not check their input, the server itself. Probes run in this order.
 */
export type Harm = 'none' | 'connection' | 'server';

export interface Probe {
  readonly name: string;
  readonly harm: Harm;
  /** It changes state of the device or of the server: it is run only where that was allowed. */
  readonly changes?: boolean;
  /** What it judges: what it leaves out is `unclear`. */
  readonly rules: readonly RuleId[];
  /** Judged after it, by whether the server still serves. */
  readonly survival?: RuleId;
  /** Why it makes no sense for this server; undefined where it does. */
  readonly skipReason?: (facts: ServerFacts) => string | undefined;
  /** Its connection has no version negotiated: the probe itself sends VERSION, or does not. */
  readonly beforeVersion?: boolean;
  readonly run: (context: ProbeContext, connection: RawConnection) => Promise<void>;
}

/** VERSION was not answered as it should: nothing of the probe could be tried. */
export class NoSession extends Error {
  readonly evidence: Evidence[];

  constructor(message: string, evidence: Evidence[]) {
    super(message);
    this.evidence = evidence;
  }
}

/** The time of the probe was over before all of it was tried. */
export class OutOfTime extends Error {
  constructor() {
    super('the time of the probe was over');
  }
}

/** What this side can do, in the specification's names. */
export const OUR_CAPABILITIES = '"max_msg_fds":8,"max_data_xfer_size":1048576';
/** Version data as it should be. */
export const VERSION_DATA = `{"capabilities":{${OUR_CAPABILITIES}}}\0`;

/**
 * What a probe works with: connections, what is known of the server, and where its findings go. One object serves one
 * probe. The evidence of a finding is, unless it is passed, what the newest connection has carried since its last mark.
 */
export class ProbeContext {
  readonly facts: ServerFacts;
  /** The probe's whole time, in milliseconds. */
  readonly timeoutMs: number;
  readonly results: RuleResult[] = [];
  readonly traits: Trait[] = [];
  readonly #probe: string;
  readonly #connect: () => Promise<RawConnection>;
  #connection: RawConnection | undefined;

  constructor(probe: string, facts: ServerFacts, timeoutMs: number, connect: () => Promise<RawConnection>) {
    this.#probe = probe;
    this.facts = facts;
    this.timeoutMs = timeoutMs;
    this.#connect = connect;
  }

  /** A connection on which nothing has been sent. @throws what connecting throws. */
  async open(): Promise<RawConnection> {
    this.#connection = await this.#connect();
    return this.#connection;
  }

  /**
   * A connection with its version negotiated.
   * @throws NoSession where VERSION is not answered well; what connecting throws.
   */
  async session(): Promise<RawConnection> {
    const connection = await this.open();
    await this.negotiate(connection);
    connection.mark();
    return connection;
  }

  /** VERSION on a connection. @throws NoSession. */
  async negotiate(connection: RawConnection, data = VERSION_DATA, minor = 2): Promise<Reply> {
    if (connection.leftMs === 0) throw new OutOfTime();
    const answer = await connection.ask(Command.VERSION, versionPayload(0, minor, data));
    if (isGood(answer) && answer.payload.byteLength >= 4) return answer;
    throw new NoSession(`VERSION: ${describeAnswer(answer)}`, connection.evidence());
  }

  /** Whether the next command is understood, and answered as it was before. */
  async isInSync(connection: RawConnection): Promise<boolean> {
    if (connection.ended !== undefined) return false;
    const answer = await connection.ask(Command.DEVICE_GET_INFO, GET_INFO, { waitMs: this.timeoutMs / 3 });
    if (!isGood(answer) || answer.payload.byteLength < 16) return false;
    const { info } = this.facts;
    // What was left in the stream is taken for commands, and answered.
    if (connection.unexpectedReplies > 0) return false;
    return info === undefined || answer.payload.readUInt32LE(8) === info.numRegions;
  }

  /** Tries one more command after `answer` came, and says how both went. */
  async followUp(connection: RawConnection, answer: Answer): Promise<{ isInSync: boolean; detail: string }> {
    const isInSync = await this.isInSync(connection);
    return { isInSync, detail: `${describeAnswer(answer)}; then ${isInSync ? 'in sync' : 'out of sync'}` };
  }

  judge(id: RuleId, verdict: Verdict, detail: string, evidence = this.#evidence()): void {
    if (verdict === 'broken') this.facts.broken.add(id);
    const { text, section } = RULES[id];
    this.results.push({ id, rule: text, section, verdict, detail, probe: this.#probe, evidence });
  }

  /** Kept or broken. */
  check(id: RuleId, isKept: boolean, detail: string, evidence = this.#evidence()): void {
    this.judge(id, isKept ? 'kept' : 'broken', detail, evidence);
  }

  trait(id: string, title: string, value: string, evidence = this.#evidence()): void {
    this.traits.push({ id, title, value, probe: this.#probe, evidence });
  }

  #evidence(): Evidence[] {
    return this.#connection?.evidence() ?? [];
  }
}
