/** Bytes of a region, read where somebody says so: reading registers may change them. */
import { post, type Subject } from './api.js';
import { dump } from './device-view.js';
import { h } from './dom.js';
import { writeForm } from './write-form.js';

export function memoryView(subject: Subject): Node {
  const regions = (subject.device?.regions ?? []).filter(({ size }) => size > 0);
  if (regions.length === 0) return h('p', {}, 'There are no regions.');
  const region = h('select', {}, ...regions.map(({ name }) => h('option', {}, name)));
  const offset = h('input', { value: '0x0', spellcheck: 'false', size: 10 });
  const length = h('input', { value: '0x40', spellcheck: 'false', size: 8 });
  const width = h(
    'select',
    {},
    ...[4, 1, 2, 8].map((bytes) => h('option', { value: bytes }, `${bytes} bytes`)),
  );
  const said = h('p', { class: 'error', role: 'alert' });
  const result = h('div');
  const read = async (): Promise<void> => {
    said.textContent = '';
    try {
      const from = numberOf('offset', offset.value);
      const range = { offset: from, length: numberOf('length', length.value), width: Number(width.value) };
      const { hex } = await post<{ hex: string }>('api/memory', { region: region.value, ...range });
      result.replaceChildren(dump(hex, from));
    } catch (error) {
      result.replaceChildren();
      said.textContent = (error as Error).message;
    }
  };
  const form = h(
    'form',
    {},
    h('label', {}, 'Region', region),
    h('label', {}, 'Offset', offset),
    h('label', {}, 'Length', length),
    h('label', {}, 'Each access', width),
    h('button', { class: 'do' }, 'Read'),
  );
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void read();
  });
  const warning = 'Reading a register may change the device. Nothing here is read by itself.';
  const again = (): void => void (result.hasChildNodes() && read());
  return h(
    'div',
    {},
    h('p', { class: 'aside' }, warning),
    form,
    said,
    result,
    writeForm(subject, 'Region and offset', 'bar0:0x10.l', again),
  );
}

function numberOf(name: string, text: string): number {
  const value = /^(?:\d+|0x[\da-f]+)$/i.test(text.trim()) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value)) throw new Error(`${name} must be a number, decimal or 0x hexadecimal`);
  return value;
}
