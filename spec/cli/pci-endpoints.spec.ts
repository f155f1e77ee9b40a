/** Whatever takes a SOCKET takes `pci:ADDRESS`: the table has every verb, as the program says which there are. */
import { afterAll, describe, expect, test } from '@jest/globals';
import { existsSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { buildProgram } from '../../lib/cli/program.js';
import { UART_SVD } from '../registers/uart.js';
import { Scratch } from './cli.js';

const NOBODY = 'pci:ffff:ff:1f.7';
const scratch = new Scratch();
const map = scratch.path('uart.svd');
writeFileSync(map, UART_SVD);
afterAll(() => scratch.remove());

/** What each verb wants beside its SOCKET, which `@` stands for. */
const VERBS: Readonly<Record<string, readonly string[]>> = {
  info: ['@'],
  lspci: ['@'],
  doctor: ['@'],
  inspect: ['@'],
  read: ['@', 'bar0', '0'],
  write: ['@', 'bar0', '0', '1'],
  dump: ['@', 'bar0', '--output', '/dev/null'],
  config: ['@', 'COMMAND'],
  'registers show': ['@', '--map', 'MAP'],
  'registers check': ['@', '--map', 'MAP'],
  'registers diff': ['@', '--map', 'MAP'],
  'registers watch': ['@', '--map', 'MAP'],
  'irq watch': ['@'],
  reset: ['@'],
  'migrate save': ['@', '/dev/null'],
  'migrate restore': ['@', '/dev/null'],
  'migrate state': ['@'],
  repl: ['@'],
  'nvme identify': ['@'],
  'nvme smart': ['@'],
  'nvme list': ['@'],
  'nvme id-ctrl': ['@'],
  'nvme id-ns': ['@'],
  'nvme smart-log': ['@'],
  'nvme error-log': ['@'],
  'nvme fw-log': ['@'],
  'nvme get-log': ['@', '--log-id', '2', '--log-len', '512'],
  'nvme get-feature': ['@', '--feature-id', '7'],
  'nvme set-feature': ['@', '--feature-id', '7', '--value', '0'],
  'nvme show-regs': ['@'],
  'nvme flush': ['@'],
  'nvme write-zeroes': ['@', '--start-block', '0', '--block-count', '0'],
  'nvme dsm': ['@', '--ad', '--slbs', '0', '--blocks', '1'],
  'nvme compare': ['@', '--data', 'MAP'],
  'nvme reset': ['@'],
  'nvme format': ['@', '--force'],
  'nvme admin-passthru': ['@', '--opcode', '6', '--data-len', '4096', '--read'],
  'nvme io-passthru': ['@', '--opcode', '0'],
  'virtio info': ['@'],
  'virtio read': ['@', '--output', '/dev/null'],
  'virtio write': ['@', '--input', 'MAP'],
  'migrate move': ['@', '/run/nowhere.sock'],
  'nvme read': ['@', '--output', '/dev/null'],
  'nvme write': ['@', '--input', 'MAP'],
  'virtio bench': ['@'],
  'nvme bench': ['@'],
  'bench region': ['@'],
  serve: ['@', '--socket', '/tmp/vfio-user-never'],
  proxy: ['--listen', '/tmp/vfio-user-never', '--connect', '@'],
};

function leaves(command: Command, path: string): [path: string, command: Command][] {
  return command.commands.flatMap((child) => {
    const name = `${path} ${child.name()}`.trim();
    return child.commands.length > 0 ? leaves(child, name) : [[name, child] as [string, Command]];
  });
}

/** rpc answers with its errors: spec/cli/rpc.spec.ts. */
const takesDevice = ([name, command]: [string, Command]): boolean =>
  (name !== 'rpc' &&
    command.registeredArguments.some((argument) => ['SOCKET', 'SOURCE'].includes(argument.name()))) ||
  command.options.some((option) => option.long === '--connect') ||
  command.name() === 'serve';

async function failure(verb: string, endpoint: string): Promise<Error> {
  const program = await buildProgram();
  const args = VERBS[verb]!.map((arg) => (arg === '@' ? endpoint : arg === 'MAP' ? map : arg));
  try {
    await program.parseAsync([...verb.split(' '), ...args], { from: 'user' });
  } catch (error) {
    return error as Error;
  }
  throw new Error(`${verb} did not fail`);
}

describe('pci:ADDRESS', () => {
  test('is taken by all verbs that take a SOCKET: none is missing here', async () => {
    const verbs = leaves(await buildProgram(), '').filter(takesDevice);
    expect(Object.keys(VERBS).sort()).toEqual(verbs.map(([name]) => name).sort());
  });

  test.each(Object.keys(VERBS))('%s: one that is not there', async (verb) => {
    const error = await failure(verb, NOBODY);
    expect(error.message).toMatch(/^there is no PCI device ffff:ff:1f\.7/);
    expect(error).toMatchObject({ code: 'ENODEV' });
    expect(existsSync('/tmp/vfio-user-never')).toBe(false);
  });

  test.each(Object.keys(VERBS))('%s: one that is no address is wrong usage', async (verb) => {
    const error = await failure(verb, 'pci:nonsense');
    expect(error.name).toBe('UsageError');
    expect(error.message).toMatch(/^'pci:nonsense' is no PCI function: it must be a PCI address such as/);
  });
});
