/** What the inspector's server answers, as far as the page uses it. */

export interface RegionInfo {
  readonly index: number;
  readonly name: string;
  readonly size: number;
  readonly flagNames: readonly string[];
  readonly mmap: readonly { readonly offset: number; readonly size: number }[];
}

export interface RegisterInfo {
  readonly name: string;
  readonly offset: number;
  readonly bits: number;
  readonly access: string;
  readonly description: string;
  readonly isRead: boolean;
  readonly isWritable: boolean;
}

export interface Coverage {
  readonly registers: readonly {
    readonly name: string;
    readonly offset: number;
    readonly reads: number;
    readonly writes: number;
    readonly order?: number;
  }[];
  readonly touched: number;
  readonly outside: number;
}

export interface Subject {
  readonly kind: 'device' | 'capture';
  readonly title: string;
  readonly source: string;
  readonly allowsWrites: boolean;
  readonly problem?: string;
  readonly registers: readonly RegisterInfo[];
  readonly coverage?: Coverage;
  readonly device?: {
    readonly name: string | null;
    readonly vendorId: number | null;
    readonly deviceId: number | null;
    readonly flagNames: readonly string[];
    readonly negotiated: Readonly<Record<string, unknown>> | null;
    readonly regions: readonly RegionInfo[];
    readonly irqs: readonly {
      readonly name: string;
      readonly count: number;
      readonly flagNames: readonly string[];
    }[];
  };
}

export interface Config {
  readonly header: Readonly<Record<string, unknown>>;
  readonly capabilities: readonly Readonly<Record<string, unknown>>[];
  readonly extendedCapabilities: readonly Readonly<Record<string, unknown>>[];
  readonly problems: readonly string[];
  readonly bytes: string;
}

export interface LoggedEvent {
  readonly number: number;
  /** Microseconds. */
  readonly time: number;
  readonly kind: 'request' | 'reply' | 'interrupt';
  readonly direction: 'sent' | 'received';
  readonly what: string;
  readonly text: string;
  readonly register?: string;
  readonly errno?: string;
}

export interface Mapping {
  readonly address: string;
  readonly size: string;
  readonly from: number;
  readonly to?: number;
}

export interface EventPage {
  readonly first: number;
  readonly end: number;
  readonly events: readonly LoggedEvent[];
  readonly mappings: readonly Mapping[];
  readonly state: { readonly isOver: boolean; readonly reason?: string };
}

export interface RegisterValue {
  readonly name: string;
  readonly value: string | null;
  readonly text: string;
}

/** @throws Error with the server's words */
export async function get<T>(name: string): Promise<T> {
  return answerOf<T>(await fetch(name));
}

/** @throws Error with the server's words */
export async function post<T>(name: string, body: object): Promise<T> {
  const headers = { 'content-type': 'application/json' };
  return answerOf<T>(await fetch(name, { method: 'POST', headers, body: JSON.stringify(body) }));
}

async function answerOf<T>(response: Response): Promise<T> {
  const body = (await response.json()) as T & { error?: { message: string } };
  if (!response.ok) throw new Error(body.error?.message ?? `status ${response.status}`);
  return body;
}
