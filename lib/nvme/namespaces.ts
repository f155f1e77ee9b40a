/** The namespaces of a controller (NVM Express Base 2.0, section 5.17.2): which there are, and what each is. */
import { ProtocolError, UnsupportedError, type CallOptions } from '../index.js';
import { oneDeadline, type AdminCommands } from './admin-commands.js';
import { decodeNamespaceIdentity, decodeNamespaceList, NAMESPACES_A_LIST } from './identify.js';
import { NvmeNamespace } from './namespace.js';
import { IdentifyCns } from './opcodes.js';
import { NvmeStatusError } from './status.js';

/** More of them than this are not listed. */
const MOST_NAMESPACES = 1 << 16;

export class Namespaces {
  readonly #admin: AdminCommands;
  /**
   * Those that were asked for and are what they were, by number, the newest last: where one has grown there are several, as
   * queues and callers still have the earlier ones.
   */
  readonly #known = new Map<number, NvmeNamespace[]>();

  readonly #onChanged: (namespace: NvmeNamespace, change: string) => void;

  /** `onChanged` hears of namespaces that are not what they were. */
  constructor(admin: AdminCommands, onChanged: (namespace: NvmeNamespace, change: string) => void) {
    this.#admin = admin;
    this.#onChanged = onChanged;
  }

  /** The identifiers of the active ones. */
  async ids(options: CallOptions = {}, admin = this.#admin): Promise<number[]> {
    const next = oneDeadline('Identify 0x02', options);
    const ids: number[] = [];
    for (let after = 0; ids.length < MOST_NAMESPACES;) {
      const bytes = await admin.identify(IdentifyCns.ACTIVE_NAMESPACES, after, next());
      const list = decodeNamespaceList(bytes);
      for (const id of list) {
        if (id <= after)
          throw new ProtocolError(
            `the list of active namespaces is not in ascending order: ${id} follows ${after}`,
          );
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
    const next = oneDeadline('Identify 0x00', options);
    const nsid = id ?? (await this.ids(next(), admin))[0];
    if (nsid === undefined) throw new UnsupportedError('the controller has no active namespace');
    const known = this.#known.get(nsid)?.at(-1);
    if (known !== undefined && options.refresh !== true) return known;
    const namespace = await this.#identify(admin, nsid, next());
    // Asked for twice at once, it is the first one.
    const other = this.#known.get(nsid)?.at(-1);
    const isSame =
      other !== undefined && other.blocks === namespace.blocks && other.whatDiffers(namespace) === undefined;
    if (isSame) return other;
    this.#keep(nsid, (before) => before.whatDiffers(namespace), namespace);
    return namespace;
  }

  /**
   * Asks for all that are known again: those that are not what they were are given up, with whatever uses them.
   * @throws what commands throw, but for a status: a namespace that cannot be identified is gone.
   */
  async verify(admin: AdminCommands): Promise<void> {
    for (const nsid of [...this.#known.keys()]) {
      try {
        const now = await this.#identify(admin, nsid);
        this.#keep(nsid, (namespace) => namespace.whatDiffers(now));
      } catch (error) {
        if (!(error instanceof NvmeStatusError || error instanceof ProtocolError)) throw error;
        this.#keep(nsid, () => `Identify Namespace: ${error.message}`);
      }
    }
  }

  async #identify(admin: AdminCommands, nsid: number, options?: CallOptions): Promise<NvmeNamespace> {
    const bytes = await admin.identify(IdentifyCns.NAMESPACE, nsid, options);
    return new NvmeNamespace(nsid, decodeNamespaceIdentity(bytes), this);
  }

  /** Gives up those of that number in which there is a `change`; `added` is one more. */
  #keep(nsid: number, change: (known: NvmeNamespace) => string | undefined, ...added: NvmeNamespace[]): void {
    const kept: NvmeNamespace[] = [];
    const given = this.#known.get(nsid) ?? [];
    // Before anybody hears of it.
    this.#known.set(nsid, kept);
    for (const namespace of given) {
      const text = change(namespace);
      if (text === undefined) kept.push(namespace);
      else this.#giveUp(namespace, text);
    }
    kept.push(...added);
    if (kept.length === 0) this.#known.delete(nsid);
  }

  #giveUp(namespace: NvmeNamespace, change: string): void {
    namespace.invalidate(change);
    this.#onChanged(namespace, change);
  }
}
