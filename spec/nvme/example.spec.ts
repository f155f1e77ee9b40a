/** The example runs, against an emulated controller in its own process. */
import { expect, jest, test } from '@jest/globals';
import { runExample } from '../support/example.js';

jest.setTimeout(60_000);

test('examples/nvme.ts', async () => {
  const { status, stdout, stderr } = await runExample('nvme');
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(stdout.split('\n').slice(1)).toEqual([
    'read back: "written by a driver in TypeScript"',
    'compared with zeroes: COMPARE_FAILURE',
    '1000 reads by polling',
    '',
  ]);
});
