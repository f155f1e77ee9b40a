/** DMA_MAP and DMA_UNMAP: memory of this process is offered, and nothing is in it. */
import { native } from '../../native.js';
import {
  Command,
  DMA_MAP_FLAG_READ,
  DMA_MAP_FLAG_WRITE,
  DMA_UNMAP_FLAG_ALL,
} from '../../protocol/constants.js';
import { words } from '../raw-messages.js';
import type { Examination, Probe } from '../probe.js';
import type { RuleId } from '../rules.js';
import { inWords, isError, isGood, shortly, type Answer, type RawConnection } from '../raw-connection.js';

/** 2 MiB, and aligned: some servers register nothing else. */
const SIZE = 2 << 20;
const ADDRESS = 0x1_0000_0000n;
const PAGE = 4096;
const EEXIST = 17;
const READ_WRITE = DMA_MAP_FLAG_READ | DMA_MAP_FLAG_WRITE;

function mapPayload(address: bigint, size: number): Buffer {
  return words(32, READ_WRITE, 0n, address, BigInt(size));
}

function unmapPayload(address: bigint, size: number, flags = 0): Buffer {
  return words(24, flags, address, BigInt(size));
}

/** The memory goes with each map; the fd is closed when the probe is over. */
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
  async run(examination) {
    const connection = await examination.session();
    if (!connection.passesFds) {
      for (const id of shared.rules) examination.judge(id, 'not applicable', 'no fds can be passed here');
      return;
    }
    await withMemory(async (fd) => {
      const map = (address: bigint, size: number): Promise<Answer> =>
        connection.ask(Command.DMA_MAP, mapPayload(address, size), { fds: [fd] });
      let mark = connection.mark();
      const first = await map(ADDRESS, SIZE);
      const isMapped = isGood(first) && first.payload.length === 0;
      examination.check('dma.map', isMapped, inWords(first), connection.since(mark));
      if (!isGood(first)) return;
      mark = connection.mark();
      exists(examination, 'dma.overlap', await map(ADDRESS + BigInt(PAGE), SIZE - PAGE), connection, mark);
      if (connection.isOver) return;
      mark = connection.mark();
      exists(examination, 'dma.identical', await map(ADDRESS, SIZE), connection, mark);
      await unmaps(examination, connection);
    });
  },
};

function exists(
  examination: Examination,
  rule: RuleId,
  answer: Answer,
  connection: RawConnection,
  mark: number,
): void {
  examination.check(
    rule,
    isError(answer) && answer.errno === EEXIST,
    inWords(answer),
    connection.since(mark),
  );
}

async function unmaps(examination: Examination, connection: RawConnection): Promise<void> {
  const refused: [RuleId, bigint, number][] = [
    ['dma.unmap-partial', ADDRESS, PAGE],
    ['dma.unmap-unknown', ADDRESS + 0x1000_0000n, PAGE],
  ];
  for (const [rule, address, size] of refused) {
    if (connection.isOver) return;
    const mark = connection.mark();
    const answer = await connection.ask(Command.DMA_UNMAP, unmapPayload(address, size));
    examination.check(rule, isError(answer), inWords(answer), connection.since(mark));
  }
  if (connection.isOver) return;
  const mark = connection.mark();
  const request = unmapPayload(ADDRESS, SIZE);
  const answer = await connection.ask(Command.DMA_UNMAP, request);
  const isEcho =
    isGood(answer) && answer.payload.length === 24 && answer.payload.subarray(8).equals(request.subarray(8));
  examination.check('dma.unmap', isEcho, inWords(answer), connection.since(mark));
}

const unshared: Probe = {
  name: 'dma-no-fd',
  harm: 'server',
  changes: true,
  rules: ['dma.map-no-fd'],
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const answer = await connection.ask(Command.DMA_MAP, mapPayload(ADDRESS, SIZE));
    const inStep = await examination.isInStep(connection);
    const detail = `${inWords(answer)}; ${inStep ? 'then in step' : 'then lost'}`;
    examination.check('dma.map-no-fd', isGood(answer) && inStep, detail, connection.since(mark));
  },
};

const unmapAll: Probe = {
  name: 'dma-unmap-all',
  harm: 'server',
  changes: true,
  rules: [],
  async run(examination) {
    const connection = await examination.session();
    if (!connection.passesFds) return;
    await withMemory(async (fd) => {
      await connection.ask(Command.DMA_MAP, mapPayload(ADDRESS, SIZE), { fds: [fd] });
      const mark = connection.mark();
      const answer = await connection.ask(Command.DMA_UNMAP, unmapPayload(0n, 0, DMA_UNMAP_FLAG_ALL));
      const value = isGood(answer) ? 'understood as flag 2' : shortly(answer);
      examination.trait('dma.unmap-all', 'DMA_UNMAP of everything (flag ALL)', value, connection.since(mark));
    });
  },
};

export const dmaProbes: readonly Probe[] = [shared, unshared, unmapAll];
