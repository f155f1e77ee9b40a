/** A write, which is allowed twice: when the inspector is started, and here. */
import { post, type Subject } from './api.js';
import { h } from './dom.js';

/** `onWritten` is called after each write that was done. */
export function writeForm(
  { allowsWrites, kind }: Subject,
  what: string,
  example: string,
  onWritten: () => void,
): Node {
  if (kind === 'capture') return h('div');
  const title = h('h3', {}, 'Write');
  if (!allowsWrites) {
    const how = 'Writes are refused: the inspector was started without --allow-writes.';
    return h('div', {}, title, h('p', { class: 'aside' }, how));
  }
  const target = h('input', { required: true, placeholder: example, spellcheck: 'false' });
  const value = h('input', { required: true, placeholder: '0x1', spellcheck: 'false' });
  const isAllowed = h('input', { type: 'checkbox' });
  const button = h('button', { class: 'do', disabled: true }, 'Write');
  const said = h('p', { role: 'status' });
  isAllowed.addEventListener('change', () => (button.disabled = !isAllowed.checked));
  const form = h(
    'form',
    {},
    h('label', {}, what, target),
    h('label', {}, 'Value', value),
    h('label', { class: 'row' }, isAllowed, 'Writes may change what the device does'),
    button,
  );
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void write(target.value, value.value, said).then((isDone) => isDone && onWritten());
  });
  return h('div', {}, title, form, said);
}

async function write(target: string, value: string, said: HTMLElement): Promise<boolean> {
  said.textContent = '';
  said.classList.remove('error');
  try {
    await post('api/write', { target, value });
    said.textContent = `Written: ${target} = ${value}`;
    return true;
  } catch (error) {
    said.classList.add('error');
    said.textContent = (error as Error).message;
    return false;
  }
}
