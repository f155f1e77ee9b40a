/** Elements. All text goes in as text: what a device says is never markup. */

type Child = Node | string | number | undefined;
type Attributes = Readonly<Record<string, string | number | boolean | undefined>>;

/** An element with attributes and children; true sets an attribute without a value, false and undefined leave it out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(name);
  set(element, attributes);
  append(element, children);
  return element;
}

/** The same for SVG. */
export function svg(name: string, attributes: Attributes = {}, ...children: Child[]): SVGElement {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  set(element, attributes);
  append(element, children);
  return element;
}

function set(element: Element, attributes: Attributes): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? '' : String(value));
  }
}

function append(element: Element, children: readonly Child[]): void {
  for (const child of children) {
    if (child !== undefined) element.append(child instanceof Node ? child : String(child));
  }
}

/** The element of the document that has this id. */
export function byId(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the document has no ${id}`);
  return element;
}

/**
 * A table with a caption, which screen readers announce; the first cell of a row is its heading. `isTitled`: a heading above it says
 * the same to the eye.
 */
export function table(
  caption: string,
  heads: readonly string[],
  rows: readonly (readonly Child[])[],
  isTitled = false,
): HTMLElement {
  const head = h('tr', {}, ...heads.map((text) => h('th', { scope: 'col' }, text)));
  const body = rows.map((cells) =>
    h('tr', {}, ...cells.map((cell, i) => (i === 0 ? h('th', { scope: 'row' }, cell) : h('td', {}, cell)))),
  );
  const whole = h(
    'table',
    {},
    h('caption', { class: isTitled ? 'hidden' : undefined }, caption),
    h('thead', {}, head),
    h('tbody', {}, ...body),
  );
  return h('div', { class: 'scroll' }, whole);
}

export function hex(value: number | bigint | string, digits = 1): string {
  if (typeof value === 'string') return value;
  return `0x${value.toString(16).padStart(digits, '0')}`;
}
