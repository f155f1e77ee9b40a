'use strict';

/**
 * Before each spec file: what an earlier file of the same process left to the garbage collector is collected now, with
 * its file descriptors. Otherwise that happens in the middle of a spec that counts them.
 */
const v8 = require('node:v8');
const vm = require('node:vm');

v8.setFlagsFromString('--expose-gc');
const collect = vm.runInNewContext('gc');

globalThis.beforeAll(async () => {
  for (let i = 0; i < 3; i++) {
    collect();
    // Finalizers run when the loop turns.
    await new Promise((resolve) => setImmediate(resolve));
  }
});
