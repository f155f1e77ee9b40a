/** Where the files beside these programs are, also when they run compiled, from build/. */
import { existsSync } from 'node:fs';
import path from 'node:path';

const HERE = import.meta.dirname;
const SOURCES = existsSync(path.join(HERE, 'dma_engine.v'))
  ? HERE
  : path.join(HERE, '../../../../examples/rtl');

export function source(name: string): string {
  return path.join(SOURCES, name);
}
