/** The type declarations of the package, as a program of somebody else sees them. Built before, as for the examples. */
import { mkdtempSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import ts from 'typescript';

const ROOT = join(import.meta.dirname, '..');

const IMPORTS = `
import * as main from 'vfio-user';
import * as doctor from 'vfio-user/doctor';
import * as emulator from 'vfio-user/emulator';
import * as nvme from 'vfio-user/nvme';
import * as pci from 'vfio-user/pci';
import * as protocol from 'vfio-user/protocol';
import * as proxy from 'vfio-user/proxy';
import * as registers from 'vfio-user/registers';
import * as replay from 'vfio-user/replay';
import * as testing from 'vfio-user/testing';
import * as jest from 'vfio-user/testing/jest';
import * as nodeTest from 'vfio-user/testing/node-test';
import * as playwright from 'vfio-user/testing/playwright';
import * as vitest from 'vfio-user/testing/vitest';
import * as trace from 'vfio-user/trace';
import * as virtio from 'vfio-user/virtio';
export const entries = [
  main, doctor, emulator, nvme, pci, protocol, proxy, registers, replay, trace,
  testing, jest, nodeTest, playwright, vitest, virtio,
];
`;

/** What a program does with the API, without a cast or a non-null assertion. */
const USES = `
import {
  connect, type Bar, type Capability, type ConfigReader, type ConnectOptions, type Device, type DeviceEvents, type Dial,
  type DmaTransaction, type Endpoint, type ExtendedCapability, type MmapArea, type PciHeader, type ReconnectOptions,
  type TraceOptions, type Vector, type VectorEvents,
} from 'vfio-user';
import { diagnose, type Endpoint as Examined, type Quirks } from 'vfio-user/doctor';
import { EduDevice, serve, type DeviceModel, type RegionModel, type VfioUserError as Why } from 'vfio-user/emulator';
import { NvmeController, type CallOptions, type NvmeData, type Device as NvmeHost } from 'vfio-user/nvme';
import { decodeConfigSpace, findCapability, configReader } from 'vfio-user/pci';
import { Command, MigrationState, PciIrq, decodeRegionIoFds, type SubRegionBase } from 'vfio-user/protocol';

const reconnect: ReconnectOptions = { timeoutMs: undefined };
const traced: TraceOptions = { trace: undefined };
const options: ConnectOptions = { ...traced, reconnect, signal: undefined };
const dial: Dial = async () => { throw new Error('none'); };
const endpoint: Endpoint = { dial };
const device: Device = await connect(endpoint, options);
device.on('lost', (...[reason]: DeviceEvents['lost']) => console.log(reason.code));
device.once('reconnected', () => undefined);

const [vector, ...others] = await device.irqs.byIndex(PciIrq.MSIX).enable({ start: undefined, count: 4 });
const same: Vector = vector;
same.on('interrupt', (...[count]: VectorEvents['interrupt']) => console.log(count + others.length));
same.once('close', () => undefined);

const header: PciHeader = device.config.header;
const bars: readonly Bar[] = header.bars;
const capabilities: readonly Capability[] = device.config.capabilities;
const extended: readonly ExtendedCapability[] = device.config.extendedCapabilities;
const reader: ConfigReader = device.config;
const tableSize: number | undefined = findCapability(capabilities, 'msix')?.tableSize;
const acs: boolean | undefined = findCapability(extended, 'access-control-services')?.control.sourceValidation;
console.log(decodeConfigSpace(reader).problems, decodeConfigSpace(configReader(new Uint8Array(256))), bars, tableSize, acs);

const areas: readonly MmapArea[] = device.bar(0).areas;
const probed: boolean = await device.features.probe(1, { get: undefined, set: true });
const buffers = await device.dma.transaction((tx: DmaTransaction) => [tx.alloc(4096), tx.alloc(4096, {})] as const);
await buffers[0].close({ timeoutMs: 100 });
await device.migration.transition(MigrationState.STOP);
console.log(areas, probed, Command.DMA_MAP);

const host: NvmeHost = device;
const controller = await NvmeController.open(host);
const data: NvmeData = buffers[1];
const call: CallOptions = { timeoutMs: 10 };
await (await controller.createQueue()).readInto(0, data, call);

const examined: Examined = '/run/dev.sock';
const quirks: Quirks = (await diagnose(examined)).quirks;
await connect(examined, { quirks });

const region: RegionModel = { index: 0, size: 4096 };
const model: DeviceModel = { regions: [region], irqs: [] };
const server = await serve(new EduDevice(), { path: '/run/edu.sock' });
const why: Why = await server.closed;
export const all = [model, why, decodeRegionIoFds, {} satisfies Partial<SubRegionBase>];
`;

/** Members that only the library calls. */
const INTERNALS = `
import { connect, Device, DmaBuffer, MappedArea, Region } from 'vfio-user';
const device = await connect('/run/dev.sock');
const buffer = await device.dma.alloc(4096);
// @ts-expect-error it is the library's own
void device.restore;
// @ts-expect-error it is the library's own
void device.dma.restore;
// @ts-expect-error it is the library's own
void buffer.onRelease;
// @ts-expect-error it is the library's own
void buffer.discard;
// @ts-expect-error it is the library's own
void device.bar(0).forHost;
// @ts-expect-error it is the library's own
void device.bar(0).map().onClose;
console.log(Device, DmaBuffer, MappedArea, Region);
`;

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vfio-user-types-'));
  mkdirSync(join(directory, 'node_modules', '@types'), { recursive: true });
  symlinkSync(ROOT, join(directory, 'node_modules', 'vfio-user'));
  symlinkSync(
    join(ROOT, 'node_modules', '@types', 'node'),
    join(directory, 'node_modules', '@types', 'node'),
  );
  writeFileSync(join(directory, 'package.json'), JSON.stringify({ type: 'module' }));
  for (const [name, text] of Object.entries({
    'imports.ts': IMPORTS,
    'uses.ts': USES,
    'internals.ts': INTERNALS,
  }))
    writeFileSync(join(directory, name), text);
});

afterAll(() => rmSync(directory, { recursive: true }));

/** What the compiler says of the files, and of every declaration that they lead to. */
function problems(options: ts.CompilerOptions): string[] {
  const program = ts.createProgram(
    ['imports.ts', 'uses.ts', 'internals.ts'].map((name) => join(directory, name)),
    { ...options, noEmit: true, strict: true, skipLibCheck: false, types: ['node'] },
  );
  return ts.getPreEmitDiagnostics(program).map((diagnostic) => {
    const { file, start = 0, messageText } = diagnostic;
    const line = file === undefined ? 0 : file.getLineAndCharacterOfPosition(start).line + 1;
    return `${file?.fileName ?? ''}:${line}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`;
  });
}

describe('a program that imports all entries, with skipLibCheck off', () => {
  test('compiles with Node resolution and the strictest options', () => {
    const strictest = {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.NodeNext,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      noPropertyAccessFromIndexSignature: true,
    };
    expect(problems(strictest)).toEqual([]);
  });

  test('compiles with the resolution of bundlers', () => {
    const options = {
      target: ts.ScriptTarget.ESNext,
      module: ts.ModuleKind.ESNext,
      moduleResolution: ts.ModuleResolutionKind.Bundler,
    };
    expect(problems(options)).toEqual([]);
  });
});
