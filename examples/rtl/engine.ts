/**
 * The DMA engine: its model, its RTL in Verilator, its RTL in cocotb on Icarus Verilog, or a device that is there. ENGINE says
 * which, as `model`, `verilator`, `cocotb`, or an endpoint:
 *
 *   ENGINE=verilator npx vfio-user emulate ./engine.ts --socket /tmp/engine.sock
 */
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { openRtl, type DeviceModel, type RtlDevice } from 'vfio-user/emulator';
import type { RigOptions } from 'vfio-user/testing';
import { ID, VECTORS, engineModel } from './engine-model.js';
import { source } from './sources.js';

/** Where what is compiled goes; it is compiled anew where the sources have changed. */
const BUILD = path.resolve(process.env['ENGINE_BUILD'] ?? 'obj_dir');
const PINS = { id: ID, bars: [{ index: 0, size: 4096 }], interrupts: { msix: VECTORS } };

function run(program: string, ...words: string[]): string {
  return execFileSync(program, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();
}

/** What the simulator writes goes into a directory: its waveform and its output. */
function inVerilator(directory: string): Promise<RtlDevice> {
  const optimize = ['-MAKEFLAGS', 'OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O0'];
  const files = [source('dma_engine.v'), source('dma_engine_sim.cc')];
  run('verilator', '--cc', '--exe', '--build', '--trace', ...optimize, '--Mdir', BUILD, ...files);
  return openRtl({
    ...PINS,
    command: [path.join(BUILD, 'Vdma_engine'), '{socket}', path.join(directory, 'waveform.vcd')],
    log: path.join(directory, 'simulator.log'),
  });
}

function inCocotb(directory: string): Promise<RtlDevice> {
  const [config, program] = [
    process.env['COCOTB_CONFIG'] ?? 'cocotb-config',
    path.join(BUILD, 'dma_engine.vvp'),
  ];
  run('mkdir', '-p', BUILD);
  const files = [source('dma_engine.v'), source('waveform.v')];
  run('iverilog', '-g2012', '-o', program, '-s', 'dma_engine', '-s', 'waveform', ...files);
  const [libraries, library] = [run(config, '--lib-dir'), run(config, '--lib-name', 'vpi', 'icarus')];
  const [waveform, python] = [path.join(directory, 'waveform.fst'), run(config, '--python-bin')];
  return openRtl({
    ...PINS,
    command: ['vvp', '-M', libraries, '-m', library, program, '-fst', `+waveform=${waveform}`],
    env: {
      MODULE: 'dma_engine_cocotb',
      TOPLEVEL: 'dma_engine',
      TOPLEVEL_LANG: 'verilog',
      PYTHONPATH: path.dirname(source('dma_engine_cocotb.py')),
      PYTHONDONTWRITEBYTECODE: '1',
      LIBPYTHON_LOC: run(config, '--libpython'),
      PYGPI_PYTHON_BIN: python,
      VIRTUAL_ENV: path.dirname(path.dirname(python)), // where cocotb is, also where that is no virtual environment
      COCOTB_RESULTS_FILE: path.join(directory, 'results.xml'),
      COCOTB_ANSI_OUTPUT: '0',
    },
    log: path.join(directory, 'simulator.log'),
  });
}

/** The engine as a rig has it. */
export function engine(kind = process.env['ENGINE'] ?? 'model'): RigOptions {
  const map = source('dma-engine.json');
  if (kind === 'model') return { map, device: engineModel };
  if (kind === 'verilator') return { map, device: ({ directory }) => inVerilator(directory) };
  if (kind === 'cocotb') return { map, device: ({ directory }) => inCocotb(directory) };
  return { map, endpoint: kind };
}

/** For `vfio-user emulate`: what the simulator writes is here. */
export default async function engineHere(): Promise<DeviceModel> {
  const { device } = engine();
  if (typeof device !== 'function') throw new TypeError('ENGINE must be model, verilator or cocotb');
  return device({ directory: process.cwd() });
}
