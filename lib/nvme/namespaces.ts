/** The namespaces of a controller (NVM Express Base 2.0, section 5.17.2): which there are, and what each is. */
import { ProtocolError, UnsupportedError, type CallOptions } from '../index.js';
import type { Admin } from './admin.js';
import { decodeNamespaceIdentity, decodeNamespaceList, NAMESPACES_A_LIST } from './identify-namespace.js';
import { NvmeNamespace } from './namespace.js';
import { IdentifyCns } from './opcodes.js';

/** More of them than this are not listed. */
const MOST_NAMESPACES = 1 << 16;

export class Namespaces {
  readonly #admin: Admin;
  /** Those that were asked for. */
  readonly #known = new Map<number, NvmeNamespace>();

  constructor(admin: Admin) {
    this.#admin = admin;
  }

  /** The identifiers of the active ones. */
  async ids(options?: CallOptions): Promise<number[]> {
    const ids: number[] = [];
    for (let after = 0; ids.length < MOST_NAMESPACES;) {
      const bytes = await this.#admin.identify(IdentifyCns.ACTIVE_NAMESPACES, after, options);
      const list = decodeNamespaceList(bytes);
      for (const id of list) {
        if (id <= after) throw new ProtocolError(`the list of active namespaces has ${id} after ${after}`);
        ids.push((after = id));
      }
      if (list.length < NAMESPACES_A_LIST) break;
    }
    return ids;
  }

  /** One of them; the first active one where no number is given. Asked for once, until `refresh`. */
  async get(id: number | undefined, options: CallOptions & { refresh?: boolean }): Promise<NvmeNamespace> {
    const nsid = id ?? (await this.ids(options))[0];
    if (nsid === undefined) throw new UnsupportedError('the controller has no active namespace');
    const known = this.#known.get(nsid);
    if (known !== undefined && options.refresh !== true) return known;
    const bytes = await this.#admin.identify(IdentifyCns.NAMESPACE, nsid, options);
    const namespace = new NvmeNamespace(nsid, decodeNamespaceIdentity(bytes));
    this.#known.set(nsid, namespace);
    return namespace;
  }
}
