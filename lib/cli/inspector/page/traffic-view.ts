/** The stream of messages and interrupts, a page at a time; of a device the newest, unless that is stopped. */
import { get, type EventPage, type LoggedEvent, type Subject } from './api.js';
import { h } from './dom.js';
import { secondsOf, timeline } from './timeline.js';

const POLL_MS = 500;
const PER_PAGE = 200;

export class TrafficView {
  readonly node = h('div');
  readonly #onState: (page: EventPage) => void;
  readonly #follow = h('input', { type: 'checkbox', checked: true });
  readonly #picture = h('div');
  readonly #body = h('tbody');
  readonly #where = h('p', { class: 'aside', role: 'status' });
  readonly #isLive: boolean;
  #from = 0;
  #end = 0;
  #drawn = '';
  #isShown = false;

  constructor({ kind }: Subject, onState: (page: EventPage) => void) {
    this.#onState = onState;
    this.#isLive = kind === 'device';
    this.#follow.checked = this.#isLive;
    const go = (title: string, to: () => number): HTMLElement => {
      const button = h('button', { type: 'button', class: 'do' }, title);
      button.addEventListener('click', () => {
        this.#follow.checked = false;
        this.#from = Math.max(0, to());
        void this.update();
      });
      return button;
    };
    const following = h('label', { class: 'row' }, this.#follow, 'Follow the newest');
    const heads = ['Time', 'From', 'What', 'Says', 'Register'];
    this.node.append(
      h(
        'div',
        { class: 'bar' },
        go('First', () => 0),
        go('Earlier', () => this.#from - PER_PAGE),
        go('Later', () => Math.min(this.#from + PER_PAGE, Math.max(0, this.#end - 1))),
        go('Last', () => this.#end - PER_PAGE),
        this.#isLive ? following : undefined,
      ),
      this.#where,
      this.#picture,
      h(
        'div',
        { class: 'scroll' },
        h(
          'table',
          {},
          h('caption', {}, 'Messages and interrupts, the oldest first'),
          h('thead', {}, h('tr', {}, ...heads.map((text) => h('th', { scope: 'col' }, text)))),
          this.#body,
        ),
      ),
    );
  }

  show(isShown: boolean): void {
    this.#isShown = isShown;
    if (isShown) void this.update();
  }

  /** Asks for what is new, now and then. */
  start(): void {
    const next = (): void => {
      void this.update().finally(() => {
        if (this.#isLive) setTimeout(next, POLL_MS);
      });
    };
    next();
  }

  async update(): Promise<void> {
    if (this.#follow.checked) this.#from = Math.max(0, this.#end - PER_PAGE);
    // Nobody looks: the state is asked for alone.
    const count = this.#isShown && !document.hidden ? PER_PAGE : 0;
    let page: EventPage;
    try {
      page = await get<EventPage>(`api/events?from=${this.#from}&count=${count}`);
    } catch (error) {
      const reason = `the inspector does not answer: ${(error as Error).message}`;
      const state = { isOver: true, reason };
      this.#onState({ first: 0, end: 0, events: [], mappings: [], state });
      return;
    }
    this.#onState(page);
    this.#end = page.end;
    if (count > 0) this.#draw(page);
  }

  #draw({ events, mappings, first, end }: EventPage): void {
    const [oldest, newest] = [events[0]?.number ?? first, events.at(-1)?.number ?? first];
    const drawn = `${oldest} ${newest} ${mappings.length}`;
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const lost = first === 0 ? '' : `; the first ${first} are not kept`;
    this.#where.textContent =
      events.length === 0 ? 'No events.' : `${oldest + 1} to ${newest + 1} of ${end}${lost}`;
    this.#picture.replaceChildren(timeline(events, mappings));
    this.#body.replaceChildren(...events.map(rowOf));
  }
}

function rowOf({ time, kind, direction, what, text, register, errno }: LoggedEvent): HTMLElement {
  const lane = kind === 'interrupt' ? 'interrupt' : direction;
  const arrow = kind === 'interrupt' ? 'interrupt' : direction === 'sent' ? 'client →' : '← server';
  return h(
    'tr',
    { class: errno === undefined ? undefined : 'failed' },
    h('td', { class: 'mono number' }, secondsOf(time)),
    h('td', { class: `${lane} nowrap` }, arrow),
    h('th', { scope: 'row', class: 'mono' }, what),
    h('td', { class: 'mono' }, text),
    h('td', { class: 'mono' }, register ?? ''),
  );
}
