/**
 * What is made of foreign bytes for people: a message described and as a line, a config space decoded and dumped. None of
 * it throws, and no line has a character that steers a terminal.
 */
import { configReader, decodeConfigSpace, lspciDump } from '../../lib/pci/index.js';
import { LineFormatter } from '../../lib/trace/index.js';
import { promise, type Target } from '../engine/target.js';

// eslint-disable-next-line no-control-regex
const STEERING = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/;

export const text: Target = {
  name: 'text',
  run(input) {
    const isConfig = ((input[0] ?? 0) & 1) === 1;
    const bytes = input.subarray(1);
    if (isConfig) {
      decodeConfigSpace(configReader(bytes));
      if (bytes.length > 0 && bytes.length <= 4096) lspciDump(bytes);
      return;
    }
    const line = new LineFormatter().format({
      direction: ((input[0] ?? 0) & 2) === 0 ? 'received' : 'sent',
      fds: [],
      bytes,
      size: bytes.length,
      time: 0n,
      socket: 'fuzzer',
    });
    promise(!STEERING.test(line), 'a line steers no terminal');
  },
};
