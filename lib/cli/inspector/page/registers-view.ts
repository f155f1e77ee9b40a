/** Registers by name: those that reading does not change, at a rate that is chosen; writes where they are allowed. */
import { post, type Coverage, type RegisterInfo, type RegisterValue, type Subject } from './api.js';
import { h, hex, table } from './dom.js';
import { writeForm } from './write-form.js';

const RATES: readonly [ms: number, title: string][] = [
  [0, 'not by itself'],
  [2_000, 'every 2 s'],
  [500, 'every 500 ms'],
  [100, 'every 100 ms'],
];
/** As many as are read at once. */
const MOST_SHOWN = 256;

export class RegistersView {
  readonly node = h('div');
  readonly #registers: readonly RegisterInfo[];
  readonly #cells = new Map<string, HTMLElement>();
  readonly #body = h('tbody');
  readonly #filter = h('input', { type: 'search', spellcheck: 'false' });
  readonly #rate = h('select', {}, ...RATES.map(([ms, title]) => h('option', { value: ms }, title)));
  readonly #note = h('p', { class: 'aside', role: 'status' });
  #isShown = false;
  #isReading = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(subject: Subject) {
    this.#registers = subject.registers;
    if (subject.coverage !== undefined) this.node.append(coverageView(subject.coverage));
    else if (this.#registers.length === 0)
      this.node.append(h('p', {}, 'Registers have names where the inspector is started with --map.'));
    else this.#build(subject);
  }

  /** Nothing is read while nobody looks. */
  show(isShown: boolean): void {
    this.#isShown = isShown && this.#cells.size > 0;
    if (this.#isShown) void this.#read();
    this.#schedule();
  }

  #build(subject: Subject): void {
    const now = h('button', { type: 'button', class: 'do' }, 'Read now');
    now.addEventListener('click', () => void this.#read());
    this.#filter.addEventListener('input', () => this.#list());
    this.#rate.addEventListener('change', () => this.#schedule());
    const heads = ['Register', 'Offset', 'Access', 'Value'];
    this.node.append(
      h(
        'div',
        { class: 'bar' },
        h('label', {}, 'Names that contain', this.#filter),
        h('label', {}, 'Read', this.#rate),
        now,
      ),
      this.#note,
      h(
        'div',
        { class: 'scroll' },
        h(
          'table',
          {},
          h('caption', {}, 'Registers of the map. Those that change by being read are not read.'),
          h('thead', {}, h('tr', {}, ...heads.map((text) => h('th', { scope: 'col' }, text)))),
          this.#body,
        ),
      ),
      writeForm(subject, 'Register or field', 'CTRL.START', () => void this.#read()),
    );
    this.#list();
  }

  #list(): void {
    const wanted = this.#filter.value.toLowerCase();
    const found = this.#registers.filter(({ name }) => name.toLowerCase().includes(wanted));
    this.#cells.clear();
    const rows = found.slice(0, MOST_SHOWN).map((register) => {
      const { name, offset, access, description, isRead } = register;
      const value = h('td', { class: 'mono' }, isRead ? '' : 'not read');
      if (isRead) this.#cells.set(name, value);
      const title = h('th', { scope: 'row', class: 'mono', title: description || undefined }, name);
      return h('tr', {}, title, h('td', { class: 'mono' }, hex(offset, 2)), h('td', {}, access), value);
    });
    this.#body.replaceChildren(...rows);
    const more = found.length - rows.length;
    this.#say(more > 0 ? `${more} more registers are not shown: say more of their names` : '');
    if (this.#isShown) void this.#read();
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    const ms = Number(this.#rate.value);
    if (ms === 0 || !this.#isShown) return;
    this.#timer = setTimeout(() => void this.#read().then(() => this.#schedule()), ms);
  }

  async #read(): Promise<void> {
    if (this.#isReading || document.hidden) return;
    this.#isReading = true;
    try {
      const names = [...this.#cells.keys()];
      const values = await post<readonly RegisterValue[]>('api/registers', { names });
      for (const { name, text } of values) this.#put(name, text);
      if (this.#note.classList.contains('error')) this.#say('');
    } catch (error) {
      this.#say((error as Error).message, true);
    } finally {
      this.#isReading = false;
    }
  }

  #put(name: string, text: string): void {
    const cell = this.#cells.get(name);
    if (cell === undefined || cell.textContent === text) return;
    const isFirst = cell.textContent === '';
    cell.textContent = text;
    if (isFirst) return;
    cell.classList.add('changed');
    setTimeout(() => cell.classList.remove('changed'), 1_200);
  }

  #say(text: string, isError = false): void {
    this.#note.textContent = text;
    this.#note.classList.toggle('error', isError);
  }
}

function coverageView({ registers, touched, outside }: Coverage): Node {
  const rows = registers.map(({ name, offset, reads, writes, order }) => [
    name,
    hex(offset, 2),
    order === undefined ? '–' : `#${order}`,
    reads,
    writes,
  ]);
  const caption = `${touched} of ${registers.length} registers were touched; ${outside} accesses were outside the map.`;
  return table(caption, ['Register', 'Offset', 'First', 'Reads', 'Writes'], rows);
}
