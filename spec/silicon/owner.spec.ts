/** Processes that own a function of vfio-pci: an ordinary user who may lock little, and an owner that is killed in mid-DMA. */
import { expect, test } from '@jest/globals';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { native, type NativeMapping } from '../../lib/native.js';
import { KernelDevice } from '../../lib/vfio/index.js';
import { describePci, openPci } from './pci-subjects.js';
import { cleanup } from './subjects.js';

const LIBRARY = new URL('../../lib/index.js', import.meta.url).href;
const NOBODY = 65_534;
/** A function of another group. */
const OTHER_EDU = '0000:02:00.0';
const [DMA_SOURCE, DMA_DESTINATION, DMA_COUNT, DMA_COMMAND] = [0x80, 0x88, 0x90, 0x98];
const BUFFER = 0x4_0000n;

/** A program on the library, in a process of its own, as the specs in the guest are compiled. */
function program(code: string, options: { prefix?: string; uid?: number } = {}): ChildProcess {
  const source = `import { connect } from '${LIBRARY}';\n${code}`;
  const { prefix = '', uid } = options;
  const child = spawn(
    '/bin/sh',
    ['-c', `${prefix} exec "$0" --input-type=module -e "$1"`, process.execPath, source],
    { stdio: ['ignore', 'pipe', 'pipe'], ...(uid !== undefined && { uid, gid: uid }) },
  );
  cleanup(() => child.kill('SIGKILL'));
  return child;
}

async function outputOf(child: ChildProcess): Promise<string> {
  let text = '';
  child.stdout!.on('data', (chunk) => (text += String(chunk)));
  child.stderr!.on('data', (chunk) => (text += String(chunk)));
  await once(child, 'close');
  return text;
}

describePci('VFIO_USER_TEST_OWNERS', 'an owner', (address) => {
  const group = `/dev/vfio/${path.basename(readlink(`/sys/bus/pci/devices/${address}/iommu_group`))}`;

  test('without the right to the group is told whose it is', async () => {
    const child = program(`await connect('pci:${address}').catch((error) => console.log(error.message));`, {
      uid: NOBODY,
    });
    expect(await outputOf(child)).toMatch(
      /^open \/dev\/vfio\/\d+: EACCES \(it is for user 0, group 0, mode 600; this process runs as user 65534\)\n$/,
    );
  });

  test('who may lock 64 KiB is told what is needed', async () => {
    chownSync(group, NOBODY, NOBODY);
    cleanup(() => chownSync(group, 0, 0));
    const child = program(
      `const device = await connect('pci:${address}', { timeoutMs: 60_000 });
       await device.dma.alloc(65_536).catch((error) => console.log(error.code, error.message));
       console.log(device.config.vendorId > 0);
       await device.close();`,
      { prefix: 'ulimit -l 64;', uid: NOBODY },
    );
    const output = await outputOf(child);
    expect(output).toMatch(
      /^ENOMEM DMA_MAP: .*memory for DMA is locked, and 4194304 bytes are needed \(0 of them are locked now\), but RLIMIT_MEMLOCK is 65536: raise it/,
    );
    expect(output).toMatch(/true\n$/);
  });

  test('whose IOMMU takes few mappings is told how many', async () => {
    const limit = '/sys/module/vfio_iommu_type1/parameters/dma_entry_limit';
    const before = readFileSync(limit, 'utf8').trim();
    writeFileSync(limit, '2');
    cleanup(() => writeFileSync(limit, before));
    const device = await openPci(address);
    expect(device.negotiated.capabilities.maxDmaMaps).toBe(2);
    await device.dma.alloc(8 << 20);
    await device.dma.alloc(8 << 20);
    await expect(device.dma.alloc(8 << 20)).rejects.toThrow(/at most 2 DMA mappings at a time/);
    // The kernel's own answer, to who does not count.
    const kernel = new KernelDevice(OTHER_EDU);
    cleanup(() => kernel.close());
    const fd = native().memfd('spec', 4096, false);
    cleanup(() => native().closeFd(fd));
    const mapping = native().map(fd, 0, 4096, true, true) as NativeMapping;
    cleanup(() => mapping.close());
    const map = (address: bigint) => kernel.hardware.mapDma(mapping, { address, size: 4096n, flags: 3 });
    map(0x1000n);
    map(0x2000n);
    expect(() => map(0x2000n)).toThrow(/the addresses are mapped already$/);
    expect(() => map(0x3000n)).toThrow(/the IOMMU has the 2 mappings that it takes \(dma_entry_limit /);
  });

  test('that is killed in mid-DMA leaves a device that the next one opens', async () => {
    const child = program(`
      const device = await connect('pci:${address}', { timeoutMs: 60_000 });
      await device.enable();
      const buffer = await device.dma.alloc(4096, { addressBits: 28 });
      const bar = device.bar(0);
      await bar.writeUInt64(${DMA_SOURCE}, buffer.iova);
      await bar.writeUInt64(${DMA_DESTINATION}, ${BUFFER}n);
      await bar.writeUInt64(${DMA_COUNT}, 4096n);
      console.log('begun');
      for (;;) { await bar.writeUInt64(${DMA_COMMAND}, 1n); await new Promise(setImmediate); }`);
    await once(child.stdout!, 'data');
    child.kill('SIGKILL');
    await once(child, 'exit');
    const device = await openPci(address);
    await device.enable();
    const buffer = await device.dma.alloc(4096, { addressBits: 28 });
    const bar = device.bar(0);
    const transfer = async (source: bigint, destination: bigint, command: bigint): Promise<void> => {
      await bar.waitFor(DMA_COMMAND, 1n, 0n, { timeoutMs: 60_000 });
      await bar.writeUInt64(DMA_SOURCE, source);
      await bar.writeUInt64(DMA_DESTINATION, destination);
      await bar.writeUInt64(DMA_COUNT, 1024n);
      await bar.writeUInt64(DMA_COMMAND, command);
      await bar.waitFor(DMA_COMMAND, 1n, 0n, { timeoutMs: 60_000 });
    };
    buffer.bytes.fill('next', 0, 1024);
    await transfer(buffer.iova, BUFFER, 1n);
    await transfer(BUFFER, buffer.iova + 1024n, 3n);
    expect(buffer.bytes.subarray(1024, 2048).equals(buffer.bytes.subarray(0, 1024))).toBe(true);
  });
});

/** Where there is none the block is skipped. */
function readlink(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}
