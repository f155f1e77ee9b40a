/** Views as tabs, by the pattern of the ARIA Authoring Practices: arrow keys move, Home and End go to the ends. */
import { byId } from './dom.js';

export function startTabs(onShow: (id: string) => void): void {
  const tabs = [...document.querySelectorAll<HTMLButtonElement>('[role=tab]')];
  const visible = (): HTMLButtonElement[] => tabs.filter((tab) => !tab.hidden);
  const select = (chosen: HTMLButtonElement): void => {
    for (const tab of tabs) {
      const isChosen = tab === chosen;
      tab.setAttribute('aria-selected', String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      byId(tab.getAttribute('aria-controls') ?? '').hidden = !isChosen;
    }
    const id = chosen.id.replace('tab-', '');
    history.replaceState(null, '', `#${id}`);
    onShow(id);
  };
  for (const tab of tabs) {
    tab.addEventListener('click', () => select(tab));
    tab.addEventListener('keydown', (event) => {
      const shown = visible();
      const at = shown.indexOf(tab);
      const next = {
        ArrowRight: shown[(at + 1) % shown.length],
        ArrowLeft: shown.at(at - 1),
        Home: shown[0],
        End: shown.at(-1),
      }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      next.focus();
      select(next);
    });
  }
  const wanted = tabs.find((tab) => tab.id === `tab-${location.hash.slice(1)}` && !tab.hidden);
  const first = wanted ?? visible()[0];
  if (first !== undefined) select(first);
}
