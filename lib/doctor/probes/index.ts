/** All probes, in the order in which they run: the harmless ones first, those that may cost the server last. */
import type { Harm, Probe } from '../probe.js';
import { clientProbes } from './clients.js';
import { commandProbes } from './commands.js';
import { dmaProbes } from './dma.js';
import { framingProbes } from './framing.js';
import { handshakeProbes } from './handshake.js';
import { irqProbes } from './irqs.js';
import { readProbes } from './reads.js';
import { survey } from './survey.js';
import { writeProbes } from './writes.js';

const ORDER: readonly Harm[] = ['none', 'connection', 'server'];

const all: readonly Probe[] = [
  ...handshakeProbes,
  ...commandProbes,
  ...readProbes,
  ...writeProbes,
  ...dmaProbes,
  ...irqProbes,
  ...framingProbes,
  ...clientProbes,
];

/** What every diagnosis begins with: the others build on what it learns. */
export { survey };

/** The others. */
export const PROBES: readonly Probe[] = ORDER.flatMap((harm) => all.filter((probe) => probe.harm === harm));
