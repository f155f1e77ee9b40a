/** The options that nvme-cli's verbs have in common, and what comes out of them. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { basename } from 'node:path';
import { length } from '../numbers.js';
import { print } from '../output.js';
import { toJsonC, type JsonC } from './json-c.js';

export type OutputFormat = 'normal' | 'json' | 'binary';

export interface OutputOptions {
  outputFormat: OutputFormat;
  rawBinary?: boolean;
  json: boolean;
}

const FORMATS: readonly OutputFormat[] = ['normal', 'json', 'binary'];
const NSID_MAX = 0xffff_ffff;

/** `-o, --output-format`, `-b, --raw-binary` and `--json`. */
export function withOutputFormat(command: Command): Command {
  return command
    .addOption(
      new Option('-o, --output-format <format>', 'how to print it').choices(FORMATS).default('normal'),
    )
    .option('-b, --raw-binary', 'print the bytes as they came: --output-format binary', false)
    .option('--json', 'print JSON: --output-format json', false);
}

/** The same without a binary format. */
export function withTextFormat(command: Command): Command {
  const formats = FORMATS.filter((format) => format !== 'binary');
  return command
    .addOption(
      new Option('-o, --output-format <format>', 'how to print it').choices(formats).default('normal'),
    )
    .option('--json', 'print JSON: --output-format json', false);
}

export function formatOf({ outputFormat, rawBinary, json }: OutputOptions): OutputFormat {
  if (rawBinary === true) return 'binary';
  return json ? 'json' : outputFormat;
}

/** What there is to print, each made when it is asked for. */
export interface Printable {
  json: () => JsonC;
  normal: () => string;
  binary: () => Uint8Array;
}

export async function printAs(options: OutputOptions, what: Printable): Promise<void> {
  const format = formatOf(options);
  if (format === 'json') await print(toJsonC(what.json()));
  else await print(format === 'binary' ? what.binary() : what.normal());
}

/** As nvme-cli names the device in what it prints. */
export function deviceName(socket: string): string {
  return basename(socket);
}

/** `-n, --namespace-id`, which may be that of all namespaces. */
export function namespaceIdOrAll(text: string): number {
  const value = length(text);
  if (value > NSID_MAX) throw new InvalidArgumentError(`It is at most ${NSID_MAX}.`);
  return value;
}
