'use strict';

const { writeSync } = require('node:fs');

/**
 * Says the outcome in one line that programs can read:
 * `Tests: N passed, N failed, N skipped`.
 *
 * Todo tests count as skipped. A suite that could not run counts as one failed test, so that a spec file that does
 * not even load is never taken for a pass. The line leaves in the process's exit handler because jest prints its own
 * summary, and warnings about open handles, after the reporters have been told that the run is complete.
 */
class TestsLineReporter {
  onRunComplete(_contexts, results) {
    const passed = results.numPassedTests;
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites;
    const skipped = results.numPendingTests + results.numTodoTests;
    process.once('exit', () => print(`Tests: ${passed} passed, ${failed} failed, ${skipped} skipped\n`));
  }
}

/**
 * Writes to the fd itself: with --bail, jest has made `process.stdout.write` a no-op by the time of the exit handlers.
 * The fd may be a full non-blocking pipe, whose reader gets a few seconds.
 */
function print(line) {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let attempt = 0; attempt < 500; attempt++) {
    try {
      writeSync(1, line);
      return;
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(pause, 0, 0, 10);
    }
  }
}

module.exports = TestsLineReporter;
