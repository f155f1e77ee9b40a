/** What a device does beside region accesses by message: DMA, mapped memory, interrupts, opening and closing, a proxy. */
import { driver } from './driver-trial.js';
import { atLeast } from './goal.js';
import { reference } from './rivals.js';
import type { Workload } from './workload.js';

const DMA_BYTES = 4 << 20;

function dma(size: number, requests: number, quickRequests: number): (quick: boolean) => Workload {
  return (quick) => ({
    name: `dma-${size}`,
    title: `DMA by message served to the server, ${size} bytes a request`,
    server: { kind: 'target', dmaSize: size, dmaCount: quick ? quickRequests : requests },
    measuredByServer: true,
    ours: driver('dma', String(DMA_BYTES)),
    rivals: [
      {
        name: 'C floor that serves it',
        goal: atLeast(0.9),
        trial: (socket) => ({ command: reference('floor'), args: [socket, 'dma', String(DMA_BYTES)] }),
      },
    ],
    limits:
      'The server asks for one piece after another and waits for each: every request wakes Node’s event loop, where ' +
      'the floor sleeps in a receive of its own.',
  });
}

const MAPPED_LIMITS =
  'A plain access is one load or store and the check of an index; an ordered one is an atomic instruction, of which ' +
  'a store waits for all stores before it.';

/** `quick` is a part of what the reference target is started with. */
export function deviceWorkloads(quick: boolean): Workload[] {
  return [
    dma(4096, 50_000, 5_000)(quick),
    dma(1 << 20, 2_000, 200)(quick),
    ...(['plain', 'ordered'] as const).map((how): Workload => ({
      name: `mapped-${how}`,
      title:
        how === 'plain'
          ? 'mapped 4-byte access, plain typed array, reads and writes'
          : 'mapped 4-byte access, ordered accessors, reads and writes',
      server: { kind: 'emulator', args: ['emulate', 'ram', '--socket', '{socket}'] },
      ours: driver('mapped', how),
      rivals: [],
      goal: { measure: 'nsPerAccess', most: how === 'plain' ? 5 : 15 },
      limits: MAPPED_LIMITS,
    })),
    {
      name: 'interrupt',
      title: 'interrupt, from eventfd to callback',
      server: { kind: 'emulator', args: ['emulate', 'edu', '--socket', '{socket}'] },
      ours: driver('interrupt'),
      rivals: [],
      limits:
        'A write to the eventfd, an epoll_wait and a read of it: three system calls, and a turn of the loop.',
    },
    {
      name: 'open-close',
      title: 'open and close',
      server: { kind: 'target' },
      ours: driver('open-close'),
      rivals: [],
      limits: 'A round trip for the version, the device, each region and each interrupt index.',
    },
    {
      name: 'request-path',
      title: '4-byte read beside a bare send and receive by the addon',
      server: { kind: 'target' },
      ours: driver('request-path'),
      rivals: [],
      limits: 'What is added is composing and checking messages in JavaScript.',
    },
    inProcess('sync', 'synchronous'),
    inProcess('awaited', 'awaited'),
    {
      name: 'proxy',
      title: '4-byte read through vfio-user proxy, beside the same without it',
      server: { kind: 'target' },
      ours: driver('proxy'),
      rivals: [],
      limits:
        'A process more that has to be woken for each message, where it does not spin; three that spin or work share ' +
        'the processors, where it does.',
    },
  ];
}

/** A device model in the process, beside the same behind a socket. */
function inProcess(how: 'sync' | 'awaited', words: string): Workload {
  return {
    name: `in-process-${how}`,
    title: `4-byte ${words} read of the educational device in this process, beside the same by socket`,
    server: { kind: 'emulator', args: ['emulate', 'edu', '--socket', '{socket}'] },
    ours: driver('in-process', 'model', how),
    rivals: [{ name: 'the same device by socket', trial: driver('in-process', 'socket', how) }],
    limits:
      'The device model itself, which answers a read with bigints, and messages that are composed and checked.',
  };
}
