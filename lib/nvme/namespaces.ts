/** The namespaces of a controller (NVM Express Base 2.0, section 5.17.2): which there are, and what each is. */
import { ProtocolError, UnsupportedError, type CallOptions } from '../index.js';
import type { Admin } from './admin.js';
import { decodeNamespaceIdentity, decodeNamespaceList, NAMESPACES_A_LIST } from './identify-namespace.js';
import { NvmeNamespace } from './namespace.js';
import { IdentifyCns } from './opcodes.js';
import { NvmeStatusError } from './status.js';

/** More of them than this are not listed. */
const MOST_NAMESPACES = 1 << 16;

export class Namespaces {
  readonly #admin: Admin;
  /** Those that were asked for. */
  readonly #known = new Map<number, NvmeNamespace>();

  readonly #onChanged: (namespace: NvmeNamespace, change: string) => void;

  /** `onChanged` hears of namespaces that are not what they were. */
  constructor(admin: Admin, onChanged: (namespace: NvmeNamespace, change: string) => void) {
    this.#admin = admin;
    this.#onChanged = onChanged;
  }

  /** The identifiers of the active ones. */
  async ids(options?: CallOptions, admin = this.#admin): Promise<number[]> {
    const ids: number[] = [];
    for (let after = 0; ids.length < MOST_NAMESPACES;) {
      const bytes = await admin.identify(IdentifyCns.ACTIVE_NAMESPACES, after, options);
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
  async get(
    id: number | undefined,
    options: CallOptions & { refresh?: boolean },
    admin = this.#admin,
  ): Promise<NvmeNamespace> {
    const nsid = id ?? (await this.ids(options, admin))[0];
    if (nsid === undefined) throw new UnsupportedError('the controller has no active namespace');
    const known = this.#known.get(nsid);
    if (known !== undefined && options.refresh !== true) return known;
    const namespace = await this.#identify(admin, nsid, options);
    // Asked for twice at once, it is the first one.
    const other = this.#known.get(nsid);
    const isSame =
      other !== undefined && other.blocks === namespace.blocks && other.whatDiffers(namespace) === undefined;
    if (isSame) return other;
    if (other !== undefined) this.#replace(other, namespace);
    this.#known.set(nsid, namespace);
    return namespace;
  }

  /**
   * Asks for all that are known again: those that are not what they were are given up, with whatever uses them.
   * @throws what commands throw, but for a status: a namespace that cannot be identified is gone.
   */
  async verify(admin: Admin): Promise<void> {
    for (const [nsid, namespace] of [...this.#known]) {
      let change: string | undefined;
      try {
        change = namespace.whatDiffers(await this.#identify(admin, nsid));
      } catch (error) {
        if (!(error instanceof NvmeStatusError || error instanceof ProtocolError)) throw error;
        change = `Identify Namespace: ${error.message}`;
      }
      if (change === undefined) continue;
      this.#known.delete(nsid);
      this.#giveUp(namespace, change);
    }
  }

  async #identify(admin: Admin, nsid: number, options?: CallOptions): Promise<NvmeNamespace> {
    const bytes = await admin.identify(IdentifyCns.NAMESPACE, nsid, options);
    return new NvmeNamespace(nsid, decodeNamespaceIdentity(bytes), this);
  }

  /** A refresh has shown `after` in the place of `before`. */
  #replace(before: NvmeNamespace, after: NvmeNamespace): void {
    const change = before.whatDiffers(after);
    if (change !== undefined) this.#giveUp(before, change);
  }

  #giveUp(namespace: NvmeNamespace, change: string): void {
    namespace.invalidate(change);
    this.#onChanged(namespace, change);
  }
}
