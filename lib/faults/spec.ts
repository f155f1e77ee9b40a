/**
 * Faults as they are asked for, in a program or in a file of JSON. Some happen to messages and only a proxy has them; the
 * others say what goes wrong with the device, and an emulated device has them as well as what is behind a proxy.
 */

/** Which way a message goes. */
export type Way = 'to-server' | 'to-client';

/** An integer: a number, a bigint, or, in a file beyond 53 bits, a string of hexadecimal digits after `0x`. */
export type FaultInteger = number | bigint | string;

/** How often a fault happens. Each counts for itself, from 1, over all clients; always where nothing is said. */
export interface FaultCounting {
  /** Only the n-th of what was selected so far. */
  nth?: number;
  /** Each n-th of it. */
  every?: number;
  /** Each of it with this probability, from 0 to 1, by a generator that begins with the seed. */
  probability?: number;
  /** The most that it happens. */
  times?: number;
}

/** Which messages a fault is for: all where nothing is said. */
export interface FaultSelection extends FaultCounting {
  /** From client to server, or back; both where it is not given. */
  direction?: Way;
  /** `main`, or the `twin` socket that the server's own requests go through. */
  socket?: 'main' | 'twin';
  /** A name of the specification (`REGION_READ`) or a number. */
  command?: string | number;
  /** Requests or replies; both where it is not given. */
  kind?: 'request' | 'reply';
}

/** What happens to the message. */
export type FaultAction =
  /** It, and what follows it, arrives so many milliseconds later. */
  | { fault: 'delay'; ms: number }
  /** It does not arrive. */
  | { fault: 'drop' }
  /** It arrives in as many pieces (2), or cut at these offsets, `ms` (10) apart. */
  | { fault: 'split'; pieces?: number; at?: readonly number[]; ms?: number }
  /** It arrives twice, its fds too. */
  | { fault: 'duplicate' }
  /** The byte at `offset` of the message is xored (0xff), or so many random `bits` from `offset` (0) on are turned. */
  | { fault: 'corrupt'; offset?: number; xor?: number; bits?: number }
  /** It arrives without its fd number `fd` (0), or without any (`all`). */
  | { fault: 'withhold-fd'; fd?: number | 'all' }
  /** Requests only: they do not arrive, and are answered with this errno, a name or a number. */
  | { fault: 'errno'; errno: string | number }
  /** The first so many `bytes` (0) of it arrive, and then both sides are disconnected. */
  | { fault: 'disconnect'; bytes?: number };

/** A fault of messages, which only a proxy has. */
export type MessageFault = FaultSelection & FaultAction;

/** Where in the device: a register or field of the plan's map, or a region and an offset in it. */
export interface FaultTarget {
  /** `STATUS`, `STATUS.READY`, `UART0.STATUS.READY`. */
  register?: string;
  /** Its number, or `bar0`, `config`, …. */
  region?: number | string;
  /** In the region, in bytes. */
  offset?: number;
  /** From the offset on: 1 to 8, by default 4. */
  bytes?: number;
}

/** What happens to a register. An access that touches it and others is one access to it. */
export type RegisterFault = FaultTarget &
  FaultCounting &
  (
    | /** Reads give `value` in these bits (`mask`, all where nothing is said), whatever the device says. */
      { fault: 'stuck-bits'; value: FaultInteger; mask?: FaultInteger }
      /** A read gives `value`, or so many random `bits` of it turned. */
    | { fault: 'wrong-value'; value?: FaultInteger; bits?: number }
    /** A write, all of it, does not reach the device, and is answered as though it had. */
    | { fault: 'lost-write' }
  );

/** Which interrupts. */
export interface FaultInterrupt {
  /** Its type: a number, or `intx`, `msi`, `msix`, `err`, `req`. All where nothing is said. */
  irq?: number | string;
  /** Its number within the type; all where nothing is said. */
  vector?: number;
}

/** What happens to an interrupt that the device raises. */
export type InterruptFault = FaultInterrupt &
  FaultCounting &
  /** It does not arrive, arrives so many milliseconds later, or twice. */
  ({ fault: 'lost-interrupt' } | { fault: 'late-interrupt'; ms: number } | { fault: 'doubled-interrupt' });

/** What the device does with the client's memory. */
export interface FaultDma {
  /** Whether the device reads or writes; both where nothing is said. */
  dma?: 'read' | 'write';
  /** Only what touches the range that begins here, at a DMA address, */
  address?: FaultInteger;
  /** and has so many bytes; by default 1. */
  size?: FaultInteger;
}

/** What happens to an access of the device's to the client's memory. */
export type DmaFault = FaultDma &
  FaultCounting &
  (
    | /** So many random `bits` (1) of its data are turned, or the byte at `offset` is xored (0xff). */
      { fault: 'dma-corrupted'; bits?: number; offset?: number; xor?: number }
      /** It is made so many milliseconds later. */
    | { fault: 'dma-delayed'; ms: number }
    /** It is not made, and the device is told so by this errno (EFAULT). */
    | { fault: 'dma-refused'; errno?: string | number }
    /** It is made at another address, `to`, by default the last page of all. */
    | { fault: 'dma-out-of-range'; to?: FaultInteger }
  );

/**
 * When something happens by itself: with each access to a register or a region (`access`, or both), counted as all faults
 * are; or once for each client, so many milliseconds after it has come.
 */
export interface FaultTrigger extends FaultTarget, FaultCounting {
  /** Only reads, or only writes. */
  access?: 'read' | 'write';
  /** Milliseconds from when a client has come. */
  afterMs?: number;
}

/** What happens by itself. */
export type EventFault = FaultTrigger &
  (
    | /** An interrupt that the device did not raise. */
      { fault: 'spurious-interrupt'; irq: number | string; vector?: number }
      /** `count` (1,000) of them, `ms` (1) apart. */
    | { fault: 'interrupt-storm'; irq: number | string; vector?: number; count?: number; ms?: number }
    /**
     * The link is down: reads give ones, writes, interrupts and DMA do not pass. For so many milliseconds, or so many
     * accesses to regions with the one that brought it about, or for good.
     */
    | { fault: 'all-ones'; ms?: number; accesses?: number }
    /** The device has been pulled out: as with all-ones, for good, and a reset fails with ENODEV. */
    | { fault: 'surprise-removal' }
    /** The server is gone, and nobody can connect to it again. */
    | { fault: 'server-killed' }
    /** The server answers nothing, for so many milliseconds or for good. */
    | { fault: 'server-stalled'; ms?: number }
    /** The server is gone, and is there again after so many milliseconds (100); an emulated device has been reset. */
    | { fault: 'server-restarted'; ms?: number }
  );

/** A fault of the device, which emulated devices and proxies have. */
export type DeviceFault = RegisterFault | InterruptFault | DmaFault | EventFault;

/** What is to happen, and to what. */
export type FaultSpec = MessageFault | DeviceFault;

/** Registers by name: a `RegisterPlacement` of `vfio-user/registers` is one. */
export interface FaultRegisters {
  /** The region that they are in. */
  readonly region: number;
  /** The register or field of a name. @throws RangeError where there is none. */
  find(name: string): {
    readonly offset: number;
    readonly register: { readonly bits: number };
    readonly field: { readonly lsb: number; readonly bits: number } | undefined;
  };
}

/** A list of faults and the seed of what is random in them (1). */
export interface FaultPlanSpec {
  /** Default 1. The same seed makes the same choices. */
  seed?: number;
  /** Tried in this order for each message, access or interrupt. */
  faults: readonly FaultSpec[];
  /** What the faults' registers are; files have none. */
  map?: FaultRegisters | undefined;
}
