/** Errors are recognised across copies of the package and across realms. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { once } from 'node:events';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import * as errors from '../lib/errors.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const CLASSES = [
  'VfioUserError',
  'TransportError',
  'ProtocolError',
  'RemoteError',
  'TimeoutError',
  'UnsupportedError',
  'ClosedError',
  'MigrationError',
  'DmaBatchError',
  'DmaHandlerError',
] as const;

/** The package once more, as a program has it whose dependencies want two versions of it. */
let copy: string;

beforeAll(() => {
  copy = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
  cpSync(path.join(ROOT, 'dist'), path.join(copy, 'dist'), { recursive: true });
  cpSync(path.join(ROOT, 'package.json'), path.join(copy, 'package.json'));
  symlinkSync(path.join(ROOT, 'node_modules'), path.join(copy, 'node_modules'));
});

afterAll(() => rmSync(copy, { recursive: true }));

function distOf(root: string): string {
  return `${pathToFileURL(path.join(root, 'dist')).href}/`;
}

/** What a program prints, as JSON, that has `ours` and `theirs`, the index of the package and of its copy. */
function inProgram(code: string): unknown {
  const [ours, theirs] = [ROOT, copy].map((root) => pathToFileURL(path.join(root, 'dist/index.js')).href);
  const program = `
    import * as ours from '${ours}';
    import * as theirs from '${theirs}';
    ${code}`;
  const args = ['--experimental-vm-modules', '--no-warnings', '--input-type=module', '-e', program];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
}

describe('instanceof', () => {
  test('knows the errors of another copy of the package, each as what it is and nothing else', () => {
    const found = inProgram(`
      const failed = { operation: 'DMA_MAP', iova: 0n, size: 1, error: new Error('x') };
      const made = {
        VfioUserError: new theirs.VfioUserError('ECODE', 'x'),
        TransportError: new theirs.TransportError('connect', 2),
        ProtocolError: new theirs.ProtocolError('x'),
        RemoteError: new theirs.RemoteError('REGION_READ', 22),
        TimeoutError: new theirs.TimeoutError('x', 1),
        UnsupportedError: new theirs.UnsupportedError('x'),
        ClosedError: new theirs.ClosedError(),
        MigrationError: new theirs.MigrationError('x', 'STOP'),
        DmaBatchError: new theirs.DmaBatchError('x', [failed]),
        DmaHandlerError: new theirs.DmaHandlerError(5),
      };
      const names = Object.keys(made);
      const kinds = (error) => names.filter((name) => error instanceof ours[name]);
      console.log(JSON.stringify(Object.fromEntries(names.map((name) => [name, kinds(made[name])]))));`);
    expect(found).toEqual(
      Object.fromEntries(
        CLASSES.map((name) => [name, name === 'VfioUserError' ? [name] : ['VfioUserError', name]]),
      ),
    );
  });

  test('knows those of every entry, and each is what it is and nothing else', () => {
    const found = inProgram(`
      const files = ['nvme/errors', 'nvme/status', 'emulator/device-error', 'emulator/nvme/sqe', 'replay/replay-error',
        'trace/capture-error', 'virtio/errors'];
      const of = async (root) => Object.assign({}, ...(await Promise.all(files.map((file) => import(root + file + '.js')))));
      const mine = await of('${distOf(ROOT)}');
      const other = await of('${distOf(copy)}');
      const made = {
        NvmeControllerError: new other.NvmeControllerError('x'),
        NvmeNamespaceError: new other.NvmeNamespaceError(1, 'x'),
        NvmeResetError: new other.NvmeResetError('read'),
        NvmeStatusError: new other.NvmeStatusError('read', 0x80),
        DeviceError: new other.DeviceError(5),
        DmaError: new other.DmaError(14),
        CommandError: new other.CommandError(2),
        ReplayError: new other.ReplayError('x', {}),
        CaptureError: new other.CaptureError('x'),
        VirtioDeviceError: new other.VirtioDeviceError('x'),
        VirtioResetError: new other.VirtioResetError('read'),
        VirtioStatusError: new other.VirtioStatusError('read', 1, 'IOERR'),
      };
      const names = Object.keys(made);
      const kinds = (error) => names.filter((name) => error instanceof mine[name]);
      const own = Object.values(made).filter((error) => !(error instanceof ours.VfioUserError));
      console.log(JSON.stringify([own.length, Object.fromEntries(names.map((name) => [name, kinds(made[name])]))]));`);
    const each = [
      'NvmeControllerError',
      'NvmeNamespaceError',
      'NvmeResetError',
      'NvmeStatusError',
      'DeviceError',
      'VirtioDeviceError',
      'VirtioResetError',
      'VirtioStatusError',
    ];
    expect(found).toEqual([
      0,
      {
        ...Object.fromEntries(
          [...each, 'CommandError', 'ReplayError', 'CaptureError'].map((name) => [name, [name]]),
        ),
        DmaError: ['DeviceError', 'DmaError'],
      },
    ]);
  });

  test('knows those of another realm', () => {
    const file = path.join(ROOT, 'dist/errors.js');
    const found = inProgram(`
      import { readFileSync } from 'node:fs';
      import vm from 'node:vm';
      const context = vm.createContext({});
      const module = new vm.SourceTextModule(readFileSync('${file}', 'utf8'), { context });
      await module.link(async (name) => {
        const namespace = await import(name.startsWith('.') ? new URL(name, 'file://${file}').href : name);
        return new vm.SyntheticModule(Object.keys(namespace), function () {
          for (const key of Object.keys(namespace)) this.setExport(key, namespace[key]);
        }, { context });
      });
      await module.evaluate();
      const error = new module.namespace.ClosedError('x');
      console.log(JSON.stringify([
        error instanceof Error,
        error instanceof ours.VfioUserError,
        error instanceof ours.ClosedError,
        error instanceof ours.ProtocolError,
        error.code,
      ]));`);
    expect(found).toEqual([false, true, true, false, 'ERR_VFIO_USER_CLOSED']);
  });

  test('takes nothing else for one, and classes that extend one for themselves', () => {
    class OwnError extends errors.ProtocolError {}
    for (const value of [undefined, null, 'x', 1, {}, new Error('x'), Object.create(null)]) {
      expect(value instanceof errors.VfioUserError).toBe(false);
    }
    const own = new OwnError('x');
    expect(own).toBeInstanceOf(OwnError);
    expect(own).toBeInstanceOf(errors.ProtocolError);
    expect(new errors.ProtocolError('x')).not.toBeInstanceOf(OwnError);
    expect(own.name).toBe('ProtocolError');
  });
});

describe('in another thread', () => {
  test('the error that a worker ends with has its code and its fields, and no class', async () => {
    const worker = new Worker(
      new URL(
        `data:text/javascript,${encodeURIComponent(`
          import { NvmeStatusError } from '${distOf(ROOT)}nvme/index.js';
          throw new NvmeStatusError('read', 0x80);`)}`,
      ),
    );
    const [error] = (await once(worker, 'error')) as [errors.VfioUserError];
    expect(error).not.toBeInstanceOf(errors.VfioUserError);
    expect(error).toMatchObject({
      code: 'ERR_NVME_LBA_OUT_OF_RANGE',
      name: 'NvmeStatusError',
      statusName: 'LBA_OUT_OF_RANGE',
      command: 'read',
    });
  });

  test('a clone has the message alone, as all errors have: the code goes beside it', () => {
    const error = new errors.ClosedError('x');
    const clone = structuredClone({ code: error.code, error });
    expect(clone.error).not.toBeInstanceOf(errors.VfioUserError);
    expect(clone.error.code).toBeUndefined();
    expect(clone).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED', error: { message: error.message } });
  });
});

test('every error has a code', () => {
  const failed = { operation: 'DMA_MAP' as const, iova: 0n, size: 1, error: new Error('x') };
  const codes = [
    new errors.TransportError('connect', 2),
    new errors.ProtocolError('x'),
    new errors.RemoteError('REGION_READ', 22),
    new errors.RemoteError('REGION_READ', 0),
    new errors.TimeoutError('x', 1),
    new errors.UnsupportedError('x'),
    new errors.ClosedError(),
    new errors.MigrationError('x', 'STOP'),
    new errors.DmaBatchError('x', [failed]),
    new errors.DmaHandlerError(5),
  ].map(({ code }) => code);
  expect(codes).toEqual([
    'ENOENT',
    'ERR_VFIO_USER_PROTOCOL',
    'EINVAL',
    'ERR_VFIO_USER_REMOTE',
    'ETIMEDOUT',
    'ERR_VFIO_USER_UNSUPPORTED',
    'ERR_VFIO_USER_CLOSED',
    'ERR_VFIO_USER_MIGRATION',
    'ERR_VFIO_USER_DMA_BATCH',
    'EIO',
  ]);
});
