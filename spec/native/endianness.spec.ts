/** Machines that store the big end first are refused by name. */
import { spawnSync } from 'node:child_process';
import { expect, test } from '@jest/globals';

const DIST = new URL('../../dist/', import.meta.url).href;

/** What a script prints on a machine that says it is big-endian. */
function onBigEndian(script: string): string {
  const pretend = `
    import os from 'node:os';
    import { syncBuiltinESMExports } from 'node:module';
    os.endianness = () => 'BE';
    syncBuiltinESMExports();
  `;
  const preload = `data:text/javascript,${encodeURIComponent(pretend)}`;
  const node = ['--import', preload, '--input-type=module', '-e', script];
  return spawnSync(process.execPath, node, { encoding: 'utf8' }).stdout;
}

test.each([
  ['the addon', `import { native } from '${DIST}native.js'; const act = async () => native();`],
  [
    'connecting to a socket',
    `import { connect } from '${DIST}index.js'; const act = () => connect('/nowhere');`,
  ],
  [
    'connecting over a stream',
    `import { connect } from '${DIST}index.js'; import { PassThrough } from 'node:stream';
     const act = () => connect({ stream: new PassThrough() });`,
  ],
])('%s is refused', (_, script) => {
  const report =
    'act().then(() => console.log("done"), ({ name, message }) => console.log(name + ": " + message));';
  expect(onBigEndian(script + report)).toMatch(/^UnsupportedError: this machine is big-endian/);
});
