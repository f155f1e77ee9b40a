'use strict';

/**
 * Runs jest with the flags that ES modules need there; arguments go on to jest, the exit code is jest's.
 *
 *     node tools/jest.cjs spec/pci -t 'capabilities'
 */
const { spawn } = require('node:child_process');
const { constants } = require('node:os');
const path = require('node:path');

const root = path.join(__dirname, '..');
const jest = path.join(path.dirname(require.resolve('jest/package.json')), 'bin', 'jest.js');
const flags = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'];

const child = spawn(process.execPath, [...flags, jest, '--rootDir', root, ...process.argv.slice(2)], {
  cwd: root,
  stdio: 'inherit',
});

// The terminal sends ^C to both; jest says what it has to say, and its exit code is ours.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => child.kill('SIGTERM'));

child.on('exit', (code, signal) => {
  if (signal !== null) {
    console.error(`jest was ended by ${signal}`);
    process.exitCode = 128 + constants.signals[signal];
  } else {
    process.exitCode = code;
  }
});
