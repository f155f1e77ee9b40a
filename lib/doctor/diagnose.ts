/**
 * Goes through all probes, each with a connection of its own and a bounded time, and never trusts the server to end any
 * of them.
 *
 * ```
 *   survey ──▶ next client? ──▶ for each probe:  renew ─ run ─ survived?     harmless ─▶ deadly
 *      │ no VERSION                                │ the server is gone
 *      └────────────▶ all else is `not run` ◀──────┘ and cannot be started again
 * ```
 */
import { TransportError, VfioUserError } from '../errors.js';
import { wrongType } from '../fields.js';
import * as option from '../options.js';
import { irqFlagNames, regionFlagNames } from '../protocol/constants.js';
import { checkEndpoint, openEndpoint } from '../transport/index.js';
import { ServerFacts } from './server-facts.js';
import { ReplyChecks, REPLY_CHECK_RULES } from './reply-checks.js';
import { ProbeContext, NoSession, OutOfTime, type Probe } from './probe.js';
import { PROBES, survey } from './probes/index.js';
import {
  summaryOf,
  type DoctorReport,
  type Evidence,
  type Identity,
  type RuleResult,
  type Trait,
  type Verdict,
} from './report.js';
import { deriveQuirks } from './derive-quirks.js';
import { RULE_IDS, RULES, type RuleId } from './rules.js';
import { recognise } from './known-servers.js';
import { EndpointUsed, ServerSource, type Subject } from './server-source.js';
import { RawConnection } from './raw-connection.js';

/** Options of `diagnose`. */
export interface DiagnoseOptions {
  /** Nothing is sent that changes the device: no write, reset, mapping or interrupt. Default true. */
  readOnly?: boolean | undefined;
  /** Leaves out what some servers are known not to survive. Default false. */
  gentle?: boolean | undefined;
  /** Only the probes and rules whose names begin with one of these, and the survey. */
  only?: readonly string[] | undefined;
  /** How long a probe may take, in milliseconds. Default 2,000. */
  timeoutMs?: number | undefined;
  /** How long a server may take to listen, in milliseconds. Default 10,000. */
  startTimeoutMs?: number | undefined;
  /** Waits so long for the socket to appear, too, as is always done for servers that are started here. Default false. */
  waitForSocket?: boolean | undefined;
  /** What the report calls the server. Default `the server`. */
  name?: string | undefined;
  /** Ends the diagnosis: what was not run by then is `not run`. */
  signal?: AbortSignal | undefined;
  /** Called before each probe. */
  onProgress?: ((progress: Progress) => void) | undefined;
}

/** How far a diagnosis is. */
export interface Progress {
  /** Probes that are over. */
  done: number;
  /** All that will be tried. */
  total: number;
  /** The probe that begins. */
  probe: string;
}

const OPTIONS = new option.OptionTable<DiagnoseOptions>({
  ...option.CALL_CHECKS,
  readOnly: option.boolean,
  gentle: option.boolean,
  only: option.listOf('names of probes and rules', option.string),
  startTimeoutMs: option.timeout,
  waitForSocket: option.boolean,
  name: option.string,
  onProgress: option.callback,
});

const DEFAULT_TIMEOUT_MS = 2_000;
const DEFAULT_START_MS = 10_000;
/** A server that runs refuses at once, or its backlog is full for a moment. */
const RECONNECT_MS = 1_000;
/** How long a server may take to end after its client. */
const EXIT_MS = 400;
/** So often in a row a server may leave VERSION unanswered, or not start, before it counts as gone. */
const MOST_FAILURES = 2;
/** Why what the signal ended is not complete. */
const ENDED = 'the diagnosis was ended';

/** Of two verdicts on one rule the one that says more stands. */
const WEIGHT: Readonly<Record<Verdict, number>> = {
  broken: 4,
  kept: 3,
  unclear: 2,
  'not applicable': 1,
  'not run': 0,
};

/** Probes after which a server may be out of sync: that is judged by the rules that they are about. */
const PROVOKING: ReadonlySet<string> = new Set(
  PROBES.filter(({ harm }) => harm !== 'none').map(({ name }) => name),
);

/** The server cannot be reached. */
class Unreachable extends Error {}

/**
 * Checks, rule by rule, whether a server keeps the specification, and reports what else a client wants to know.
 *
 * @param subject - where the server listens, or `{ start }`, which starts a new one for each probe (`spawner`).
 * @returns always a report, whatever the server does: what could not be tried is `not run`, and `incomplete` says why.
 * @example
 * ```ts
 * const report = await diagnose('/run/dev.sock', { readOnly: false });
 * console.log(toMarkdown(report));
 * ```
 * @throws RangeError for options that make no sense, a name in `only` that nothing begins with among them; what `start`
 * throws.
 */
export async function diagnose(subject: Subject, options: DiagnoseOptions = {}): Promise<DoctorReport> {
  OPTIONS.check('diagnose', options);
  checkSubject(subject);
  checkOnly(options.only ?? []);
  return new Doctor(subject, options).examine();
}

class Doctor {
  readonly #source: ServerSource;
  readonly #options: DiagnoseOptions;
  readonly #timeoutMs: number;
  readonly #facts = new ServerFacts();
  readonly #replyChecks = new ReplyChecks();
  readonly #rules: RuleResult[] = [];
  readonly #traits: Trait[] = [];
  /** Connections of the probe that runs. */
  #connections: RawConnection[] = [];
  /** When its time is over; it begins with its first connection. */
  #deadline: number | undefined;
  /** The server of this probe has had a connection. */
  #wasReached = false;
  #gone: string | undefined;
  /** Why something that was wanted could not be tried. */
  #incomplete: string | undefined;
  #failures = 0;
  #lastProbe = '';

  constructor(subject: Subject, options: DiagnoseOptions) {
    const { timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    this.#source = new ServerSource(subject);
    this.#options = options;
    this.#timeoutMs = timeoutMs;
  }

  async examine(): Promise<DoctorReport> {
    const probes = PROBES.filter((probe) => this.#isWanted(probe));
    const total = probes.length + 1;
    const onAbort = (): void => this.#closeConnections();
    this.#options.signal?.addEventListener('abort', onAbort);
    try {
      this.#options.onProgress?.({ done: 0, total, probe: survey.name });
      await this.#run(survey);
      if (this.#facts.version === undefined) this.#gone ??= 'VERSION was not answered as it should';
      else await this.#tryNextClient();
      for (const [i, probe] of probes.entries()) {
        this.#options.onProgress?.({ done: i + 1, total, probe: probe.name });
        await this.#maybeRun(probe);
      }
      if (this.#options.signal?.aborted === true) this.#incomplete ??= ENDED;
    } finally {
      this.#options.signal?.removeEventListener('abort', onAbort);
      await this.#source.renew();
    }
    return this.#report();
  }

  #isWanted({ name, rules, survival }: Probe): boolean {
    const { only } = this.#options;
    if (only === undefined || only.length === 0) return true;
    const names = [name, ...rules, ...(survival === undefined ? [] : [survival])];
    return names.some((one) => only.some((wanted) => one.startsWith(wanted)));
  }

  async #maybeRun(probe: Probe): Promise<void> {
    const { readOnly = true, gentle = false, signal } = this.#options;
    const skipReason = probe.skipReason?.(this.#facts);
    if (signal?.aborted === true) this.#leaveOut(probe, ENDED);
    else if (this.#gone !== undefined) this.#leaveOut(probe, this.#gone);
    else if (probe.changes === true && readOnly)
      this.#skip(probe, 'not run', 'it changes state: not read-only');
    else if (probe.harm === 'server' && gentle)
      this.#skip(probe, 'not run', 'some servers do not survive it');
    else if (skipReason !== undefined) this.#skip(probe, 'not applicable', skipReason);
    else await this.#run(probe);
  }

  /** One probe, with a server of its own where servers are started here. */
  async #run(probe: Probe): Promise<void> {
    const context = new ProbeContext(probe.name, this.#facts, this.#timeoutMs, () => this.#open(probe.name));
    let failure: string | undefined;
    let shown: Evidence[] = [];
    if (probe !== survey) {
      await this.#source.renew();
      this.#wasReached = false;
    }
    this.#deadline = undefined;
    try {
      const open = probe.beforeVersion === true ? context.open() : context.session();
      await probe.run(context, await open);
      this.#failures = 0;
    } catch (error) {
      failure = failureOf(error);
      if (error instanceof NoSession) shown = error.evidence;
      this.#onFailure(error, failure);
    } finally {
      this.#closeConnections();
    }
    this.#keep(context, probe, failure, shown);
    if (probe.survival !== undefined && failure === undefined)
      await this.#judgeSurvival(probe, probe.survival);
    this.#lastProbe = probe.name;
  }

  /** Rules that the probe did not judge are unclear. */
  #keep(context: ProbeContext, probe: Probe, failure: string | undefined, shown: Evidence[]): void {
    for (const result of context.results) this.#merge(result);
    this.#traits.push(...context.traits);
    const judged = new Set(context.results.map(({ id }) => id));
    const rest = [...probe.rules, ...(failure !== undefined && probe.survival ? [probe.survival] : [])];
    const verdict = failure === undefined || this.#gone === undefined ? 'unclear' : 'not run';
    if (verdict === 'not run') this.#incomplete ??= this.#gone;
    for (const id of rest.filter((id) => !judged.has(id))) {
      this.#merge(
        this.#result(id, verdict, failure ?? 'the conversation did not come so far', probe.name, shown),
      );
    }
  }

  #merge(result: RuleResult): void {
    const at = this.#rules.findIndex(({ id }) => id === result.id);
    if (at === -1) this.#rules.push(result);
    else if (WEIGHT[result.verdict] > WEIGHT[this.#rules[at]!.verdict]) this.#rules[at] = result;
  }

  /** It was wanted, and cannot be tried. */
  #leaveOut(probe: Probe, why: string): void {
    this.#incomplete ??= why;
    this.#skip(probe, 'not run', why);
  }

  #skip(probe: Probe, verdict: 'not run' | 'not applicable', why: string): void {
    for (const id of [...probe.rules, ...(probe.survival === undefined ? [] : [probe.survival])])
      this.#merge(this.#result(id, verdict, why, probe.name));
  }

  #result(
    id: RuleId,
    verdict: RuleResult['verdict'],
    detail: string,
    probe: string,
    evidence: Evidence[] = [],
  ): RuleResult {
    const { text, section } = RULES[id];
    if (verdict === 'broken') this.#facts.broken.add(id);
    return { id, rule: text, section, verdict, detail, probe, evidence };
  }

  #onFailure(error: unknown, text: string): void {
    if (error instanceof EndpointUsed) this.#giveUp(error.message);
    // A server that is silent now may only be busy with the client before.
    else if (error instanceof NoSession && ++this.#failures >= MOST_FAILURES) this.#giveUp(text);
    else if (error instanceof Unreachable) {
      this.#failures++;
      if (!this.#source.startsServers || this.#failures >= MOST_FAILURES) this.#giveUp(text);
    }
  }

  #giveUp(why: string): void {
    this.#gone ??=
      this.#lastProbe === ''
        ? `the server cannot be reached: ${why}`
        : `the server is gone since the probe ${this.#lastProbe}: ${why}`;
  }

  /** A connection for the probe that runs. Its time begins when it is connected. */
  async #open(probe: string): Promise<RawConnection> {
    const endpoint = await this.#source.endpoint();
    const starts = this.#source.startsServers;
    // Before its first client a server may still be starting.
    const first = this.#facts.version === undefined || (starts && !this.#wasReached);
    const options = {
      timeoutMs: first ? (this.#options.startTimeoutMs ?? DEFAULT_START_MS) : RECONNECT_MS,
      waitForSocket: first && (starts || this.#options.waitForSocket === true),
      signal: this.#options.signal,
    };
    checkEndpoint('diagnose', endpoint);
    const open = await openEndpoint(endpoint, options).catch((error: unknown) => {
      throw error instanceof VfioUserError ? new Unreachable(whyUnreachable(error)) : error;
    });
    this.#wasReached = true;
    this.#deadline ??= performance.now() + this.#timeoutMs;
    const connection = new RawConnection(
      open,
      this.#deadline,
      this.#replyChecks.watcher(probe, PROVOKING.has(probe)),
    );
    this.#connections.push(connection);
    return connection;
  }

  #closeConnections(): void {
    for (const connection of this.#connections) connection.close();
    this.#connections = [];
  }

  /** What the server does when its first client, a well-behaved one, has gone. */
  async #tryNextClient(): Promise<void> {
    const title = 'When its client has disconnected';
    const status = await this.#source.ended(EXIT_MS);
    const { value, next, evidence } =
      status === undefined
        ? await this.#isServedAgain()
        : { value: `ends (${status})`, next: 'ended' as const, evidence: [] };
    this.#facts.usualExit = status;
    this.#facts.nextClient = next;
    this.#traits.push({ id: 'clients.next', title, value, probe: 'next-client', evidence });
    if (next !== 'served' && !this.#source.startsServers) {
      this.#lastProbe = survey.name;
      this.#giveUp(`it served one client (${value})`);
    }
  }

  async #isServedAgain(): Promise<{
    value: string;
    next: NonNullable<ServerFacts['nextClient']>;
    evidence: Evidence[];
  }> {
    this.#deadline = undefined;
    const context = new ProbeContext('next-client', this.#facts, this.#timeoutMs, () =>
      this.#open('next-client'),
    );
    try {
      const connection = await context.open();
      await context.negotiate(connection);
      return { value: 'takes the next one', next: 'served', evidence: connection.evidence() };
    } catch (error) {
      if (error instanceof NoSession)
        return { value: error.message, next: 'silent', evidence: error.evidence };
      if (error instanceof Unreachable || error instanceof EndpointUsed)
        return { value: `takes no other: ${error.message}`, next: 'refused', evidence: [] };
      throw error;
    } finally {
      this.#closeConnections();
    }
  }

  /** Whether it still serves, as far as it ever served a second client. */
  async #judgeSurvival(probe: Probe, rule: RuleId): Promise<void> {
    const judge = (verdict: Verdict, detail: string, evidence = lastEvidence(this.#traits, probe)): void =>
      this.#merge(this.#result(rule, verdict, detail, probe.name, evidence));
    let status = await this.#source.ended(EXIT_MS);
    if (status === undefined) {
      const { value, next, evidence } = await this.#isServedAgain();
      if (next === 'served') return judge('kept', value, evidence);
      status = await this.#source.ended(EXIT_MS);
      if (status === undefined) {
        const isAsEver = this.#facts.nextClient === next && this.#source.startsServers;
        if (isAsEver) return judge('kept', `it runs, and takes no other client, as after any: ${value}`);
        if (this.#facts.nextClient !== 'served')
          return judge('unclear', `the next client: ${value}`, evidence);
        this.#lastProbe = probe.name;
        if (next === 'refused' && !this.#source.startsServers) this.#giveUp(value);
        return judge('broken', `the next client: ${value}`);
      }
    }
    const isUsual = status === this.#facts.usualExit || status === 'exit 0';
    if (isUsual) judge('kept', `it ends as after any client (${status})`);
    else judge('broken', `the process ended: ${status}`);
  }

  #report(): DoctorReport {
    for (const result of this.#replyChecks.results()) this.#merge(result);
    for (const id of REPLY_CHECK_RULES)
      if (this.#rules.some((one) => one.id === id && one.verdict === 'broken')) this.#facts.broken.add(id);
    const { only } = this.#options;
    const isFiltered = only !== undefined && only.length > 0;
    const seen = new Set(this.#rules.map(({ id }) => id));
    if (!isFiltered) {
      for (const id of RULE_IDS.filter((id) => !seen.has(id)))
        this.#rules.push(this.#result(id, 'not run', 'no probe came to it', 'none'));
    }
    const order = (id: string): number => RULE_IDS.indexOf(id as RuleId);
    const rules = [...this.#rules].sort((a, b) => order(a.id) - order(b.id));
    const { quirks, reasons } = deriveQuirks(this.#facts);
    return {
      format: 1,
      server: this.#options.name ?? 'the server',
      readOnly: this.#options.readOnly ?? true,
      identity: identityOf(this.#facts),
      recognised: recognise(this.#facts, rules, this.#traits),
      summary: summaryOf(rules),
      incomplete: this.#incomplete ?? null,
      rules,
      traits: this.#traits,
      quirks,
      quirkReasons: reasons,
    };
  }
}

/** A name that is misspelt would have nothing examined, and nothing found. */
function checkSubject(subject: Subject): void {
  if (typeof subject !== 'object' || subject === null || !('start' in subject)) {
    checkEndpoint('diagnose', subject);
  } else if (typeof subject.start !== 'function') {
    throw wrongType('diagnose: subject.start', 'a function that starts a server', subject.start);
  }
}

function checkOnly(names: readonly string[]): void {
  const known = [survey.name, ...PROBES.map(({ name }) => name), ...RULE_IDS];
  const groups = [...new Set(RULE_IDS.map((id) => id.split('.')[0]))].join(', ');
  for (const name of names) {
    if (name !== '' && known.some((one) => one.startsWith(name))) continue;
    throw new RangeError(`no probe or rule begins with '${name}': the rules begin with ${groups}`);
  }
}

/** What a server sends may be such that a probe stumbles: that is a finding, and no end. */
function failureOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const isOurs =
    error instanceof NoSession ||
    error instanceof Unreachable ||
    error instanceof EndpointUsed ||
    error instanceof OutOfTime;
  return isOurs ? text : `what came could not be understood: ${text}`;
}

function whyUnreachable(error: VfioUserError): string {
  return error instanceof TransportError ? `${error.syscall}: ${error.code}` : 'nobody listens';
}

function identityOf(facts: ServerFacts): Identity {
  const { version, ids } = facts;
  return {
    version: version === undefined ? null : `${version.major}.${version.minor}`,
    capabilities: facts.capabilitiesText?.slice(0, 4096) ?? null,
    vendorId: ids?.vendorId ?? null,
    deviceId: ids?.deviceId ?? null,
    regions: facts.regions
      .filter((region) => region !== undefined)
      .map(({ info: { index, size, flags } }) => ({ index, size, flags: regionFlagNames(flags) })),
    irqs: facts.irqs
      .filter((irq) => irq !== undefined)
      .map(({ index, count, flags }) => ({ index, count, flags: irqFlagNames(flags) })),
  };
}

/** What the probe showed of itself. */
function lastEvidence(traits: readonly Trait[], { name }: Probe): Evidence[] {
  return traits.findLast(({ probe }) => probe === name)?.evidence ?? [];
}
