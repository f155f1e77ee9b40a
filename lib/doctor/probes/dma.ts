/** DMA_MAP and DMA_UNMAP: the server gets memory of this process that holds zeros. */
import { native } from '../../native.js';
import {
  Command,
  DMA_MAP_FLAG_READ,
  DMA_MAP_FLAG_WRITE,
  DMA_UNMAP_FLAG_ALL,
} from '../../protocol/constants.js';
import { words } from '../raw-messages.js';
import type { Probe, ProbeContext } from '../probe.js';
import type { RuleId } from '../rules.js';
import {
  describeAnswer,
  isError,
  isGood,
  shortAnswer,
  type Answer,
  type RawConnection,
} from '../raw-connection.js';
import { EEXIST } from '../../system-numbers.js';

/** 2 MiB, and aligned: some servers register nothing else. */
const SIZE = 2 << 20;
const ADDRESS = 0x1_0000_0000n;
const UNMAPPED_ADDRESS = ADDRESS + 0x1000_0000n;
const PAGE = 4096;
const READ_WRITE = DMA_MAP_FLAG_READ | DMA_MAP_FLAG_WRITE;

function mapPayload(address: bigint, size: number): Buffer {
  return words(32, READ_WRITE, 0n, address, BigInt(size));
}

function unmapPayload(address: bigint, size: number, flags = 0): Buffer {
  return words(24, flags, address, BigInt(size));
}

/** Each map passes the memory's fd, which is closed when the probe is over. */
async function withMemory(work: (fd: number) => Promise<void>): Promise<void> {
  const fd = native().memfd('vfio-user-doctor', SIZE, false);
  if (fd < 0) throw new Error(`no memory for the probe: errno ${-fd}`);
  try {
    await work(fd);
  } finally {
    native().closeFd(fd);
  }
}

const shared: Probe = {
  name: 'dma-map',
  harm: 'connection',
  changes: true,
  rules: ['dma.map', 'dma.overlap', 'dma.identical', 'dma.unmap-partial', 'dma.unmap-unknown', 'dma.unmap'],
  async run(context, connection) {
    if (!connection.passesFds) {
      for (const id of shared.rules) context.judge(id, 'not applicable', 'no fds can be passed here');
      return;
    }
    await withMemory(async (fd) => {
      const map = (address: bigint, size: number): Promise<Answer> =>
        connection.ask(Command.DMA_MAP, mapPayload(address, size), { fds: [fd] });
      const first = await map(ADDRESS, SIZE);
      context.check('dma.map', isGood(first) && first.payload.length === 0, describeAnswer(first));
      if (!isGood(first)) return;
      connection.mark();
      checkExists(context, 'dma.overlap', await map(ADDRESS + BigInt(PAGE), SIZE - PAGE));
      if (connection.isOver) return;
      connection.mark();
      checkExists(context, 'dma.identical', await map(ADDRESS, SIZE));
      await unmap(context, connection);
    });
  },
};

function checkExists(context: ProbeContext, rule: RuleId, answer: Answer): void {
  context.check(rule, isError(answer) && answer.errno === EEXIST, describeAnswer(answer));
}

async function unmap(context: ProbeContext, connection: RawConnection): Promise<void> {
  const refused: [RuleId, bigint, number][] = [
    ['dma.unmap-partial', ADDRESS, PAGE],
    ['dma.unmap-unknown', UNMAPPED_ADDRESS, PAGE],
  ];
  for (const [rule, address, size] of refused) {
    if (connection.isOver) return;
    connection.mark();
    const answer = await connection.ask(Command.DMA_UNMAP, unmapPayload(address, size));
    context.check(rule, isError(answer), describeAnswer(answer));
  }
  if (connection.isOver) return;
  connection.mark();
  const request = unmapPayload(ADDRESS, SIZE);
  const answer = await connection.ask(Command.DMA_UNMAP, request);
  const isEcho =
    isGood(answer) && answer.payload.length === 24 && answer.payload.subarray(8).equals(request.subarray(8));
  context.check('dma.unmap', isEcho, describeAnswer(answer));
}

const unshared: Probe = {
  name: 'dma-no-fd',
  harm: 'server',
  changes: true,
  rules: ['dma.map-no-fd'],
  async run(context, connection) {
    const answer = await connection.ask(Command.DMA_MAP, mapPayload(ADDRESS, SIZE));
    const { isInSync, detail } = await context.followUp(connection, answer);
    context.check('dma.map-no-fd', isGood(answer) && isInSync, detail);
  },
};

const unmapAll: Probe = {
  name: 'dma-unmap-all',
  harm: 'server',
  changes: true,
  rules: [],
  async run(context, connection) {
    if (!connection.passesFds) return;
    await withMemory(async (fd) => {
      await connection.ask(Command.DMA_MAP, mapPayload(ADDRESS, SIZE), { fds: [fd] });
      connection.mark();
      const answer = await connection.ask(Command.DMA_UNMAP, unmapPayload(0n, 0, DMA_UNMAP_FLAG_ALL));
      const value = isGood(answer) ? 'understood as flag 2' : shortAnswer(answer);
      context.trait('dma.unmap-all', 'DMA_UNMAP of everything (flag ALL)', value);
    });
  },
};

export const dmaProbes: readonly Probe[] = [shared, unshared, unmapAll];
