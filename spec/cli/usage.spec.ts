import { describe, expect, jest, test } from '@jest/globals';
import { readFileSync, writeFileSync } from 'node:fs';
import { Scratch, vfioUser } from './cli.js';

jest.setTimeout(60_000);

/** No test of this file gets as far as connecting. */
const NOWHERE = '/nonexistent/socket';

async function misuse(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await vfioUser(...args);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toMatch(/^vfio-user: [^\n]+\n$/);
  return stderr;
}

describe('wrong usage is one line and exit status 2', () => {
  test('a verb that does not exist, with the one that was meant', async () => {
    expect(await misuse('reed', NOWHERE)).toMatch(/unknown command 'reed' \(Did you mean read\?\)/);
  });

  test('an option that does not exist', async () => {
    expect(await misuse('info', NOWHERE, '--jsno')).toMatch(/unknown option '--jsno'/);
  });

  test('a missing argument, one too many', async () => {
    expect(await misuse('info')).toMatch(/missing required argument 'SOCKET'/);
    expect(await misuse('info', NOWHERE, 'again')).toMatch(/too many arguments/);
  });

  test('an offset that is no number, a region that is none', async () => {
    expect(await misuse('read', NOWHERE, 'bar0', 'zz')).toMatch(/'zz' is invalid for argument 'OFFSET'/);
    expect(await misuse('read', NOWHERE, 'mmio', '0')).toMatch(/'mmio' is invalid for argument 'REGION'/);
    await misuse('read', NOWHERE, 'bar0', '-1');
  });

  test('a length of 0, a width of 3, a length that the width does not divide', async () => {
    await misuse('read', NOWHERE, 'bar0', '0', '0');
    await misuse('read', NOWHERE, 'bar0', '0', '--width', '3');
    await misuse('read', NOWHERE, 'bar0', '0', '6', '--width', '4');
  });

  test('a format that does not exist', async () => {
    expect(await misuse('read', NOWHERE, 'bar0', '0', '--format', 'xml')).toMatch(/hex, dump, raw, json/);
  });

  test('a value that does not fit its width', async () => {
    expect(await misuse('write', NOWHERE, 'bar0', '0', '0x100000000')).toMatch(
      /0x100000000 does not fit 4 bytes/,
    );
    await misuse('write', NOWHERE, 'bar0', '0', '256', '--width', '1');
  });

  test('nothing to write, or two things', async () => {
    await misuse('write', NOWHERE, 'bar0', '0');
    await misuse('write', NOWHERE, 'bar0', '0', '1', '--input', '/dev/null');
  });

  test('a file to write that is empty or no file', async () => {
    const scratch = new Scratch();
    try {
      writeFileSync(scratch.path('empty'), '');
      expect(await misuse('write', NOWHERE, 'bar0', '0', '--input', scratch.path('empty'))).toMatch(
        /is empty/,
      );
      expect(await misuse('write', NOWHERE, 'bar0', '0', '--input', '/')).toMatch(/not a regular file/);
    } finally {
      scratch.remove();
    }
  });

  test('a timeout that is none', async () => {
    expect(await misuse('info', NOWHERE, '--timeout', '0')).toMatch(
      /'--timeout <ms>' argument '0' is invalid/,
    );
  });

  test('a mapping policy that does not exist', async () => {
    expect(await misuse('info', NOWHERE, '--mmap', 'sometimes')).toMatch(/always, sealed, never/);
  });

  test('an address that is none', async () => {
    expect(await misuse('info', 'tcp:host:port')).toMatch(/'tcp:host:port' is no address/);
  });

  test('a device that cannot be emulated, or nowhere to listen', async () => {
    expect(await misuse('emulate', 'toaster', '--socket', NOWHERE)).toMatch(
      /It is edu, ram, nvme, virtio-blk, virtio-scsi, virtio-rng, or a module/,
    );
    expect(await misuse('emulate', 'edu')).toMatch(/--socket <path>/);
  });

  test('no verb at all prints the help, on stderr', async () => {
    const { status, stdout, stderr } = await vfioUser();
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(/^Usage: vfio-user/);
  });
});

describe('help', () => {
  test('of a verb within a verb; what is none is wrong usage', async () => {
    const { status, stdout, stderr } = await vfioUser('help', 'nvme', 'read');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/^Usage: vfio-user nvme read /);
    expect(await misuse('help', 'nvme', 'reed')).toMatch(/has no verb 'reed'; see vfio-user nvme --help\n$/);
    expect(await misuse('help', 'reed')).toMatch(/has no verb 'reed'; see vfio-user --help\n$/);
  });

  test('wrong usage names the help of the verb that it is of', async () => {
    expect(await misuse('nvme', 'read')).toMatch(/; see vfio-user nvme read --help\n$/);
    expect(await misuse('info', NOWHERE, '--jsno')).toMatch(/; see vfio-user info --help\n$/);
    expect(await misuse('reed')).toMatch(/; see vfio-user --help\n$/);
  });

  test('a newcomer finds every verb, the forms of SOCKET, and something to try', async () => {
    const { status, stdout, stderr } = await vfioUser('--help');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    for (const verb of ['info', 'lspci', 'read', 'write', 'emulate']) {
      expect(stdout).toMatch(new RegExp(`^ {2}${verb} `, 'm'));
    }
    expect(stdout).toMatch(/@name/);
    expect(stdout).toMatch(/\$ vfio-user emulate edu --socket/);
    expect(stdout).toMatch(/Exit status: 0 success, 1 failure, 2 wrong usage/);
  });

  test.each(['info', 'lspci', 'read', 'write', 'emulate'])(
    'of %s has examples and the global options',
    async (verb) => {
      const { status, stdout } = await vfioUser(verb, '--help');
      expect(status).toBe(0);
      expect(stdout).toMatch(new RegExp(`Usage: vfio-user ${verb} `));
      expect(stdout).toMatch(/Examples:/);
      expect(stdout).toMatch(/--timeout <ms>/);
    },
  );

  test('the version is that of the package', async () => {
    const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    expect(await vfioUser('--version')).toMatchObject({ status: 0, stdout: `${manifest.version}\n` });
  });
});
