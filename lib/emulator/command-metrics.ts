/** What a server's commands took, as OpenMetrics text; nothing is measured before somebody asks. */
import { performance } from 'node:perf_hooks';
import { DurationTable, MetricsWriter, type Labels } from '../open-metrics.js';
import { commandName } from '../protocol/constants.js';

export class CommandMetrics {
  #table: DurationTable | undefined;
  readonly #refused = new Map<string, number>();

  /** A command begins: what `end` is given of it. */
  begin(): number | undefined {
    return this.#table === undefined ? undefined : performance.now();
  }

  /** It has been answered, or has failed. */
  end(command: number, begun: number | undefined, isRefused: boolean): void {
    if (this.#table === undefined || begun === undefined) return;
    const name = knownName(command);
    this.#table.record(name, performance.now() - begun);
    if (isRefused) this.#refused.set(name, (this.#refused.get(name) ?? 0) + 1);
  }

  /** The text; `clients` is how many are connected. */
  text(device: string, clients: number): string {
    this.#table ??= new DurationTable();
    return new MetricsWriter({ device })
      .gauge({ name: 'vfio_user_clients', help: 'Clients that are connected.' }, clients)
      .counter(
        { name: 'vfio_user_commands_refused', help: 'Commands that were answered with an error.' },
        [...this.#refused].map(([command, count]): [Labels, number] => [{ command }, count]),
      )
      .durations(
        {
          name: 'vfio_user_command_duration_seconds',
          help: 'From a command to its answer; measured from the first scrape on.',
        },
        'command',
        this.#table.durations,
      )
      .end();
  }
}

/** A client decides what number a command has, and not how many names there are. */
function knownName(command: number): string {
  const name = commandName(command);
  return /^[A-Z_]+$/.test(name) ? name : 'unknown';
}
