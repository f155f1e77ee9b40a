/** The page: what is inspected is asked for once, its views are filled, and what is new is asked for now and then. */
import { get, type Config, type EventPage, type Subject } from './api.js';
import { configView, deviceView } from './device-view.js';
import { byId, h } from './dom.js';
import { memoryView } from './memory-view.js';
import { RegistersView } from './registers-view.js';
import { startTabs } from './tabs.js';
import { TrafficView } from './traffic-view.js';

const status = byId('status');

function say(text: string, isBad = false): void {
  if (status.textContent !== text) status.textContent = text;
  status.classList.toggle('bad', isBad);
}

function titleOf({ kind, title, device }: Subject): string {
  if (kind === 'capture') return title;
  const { vendorId, deviceId, name } = device ?? {};
  const digits = (id: number): string => id.toString(16).padStart(4, '0');
  const ids = vendorId != null && deviceId != null ? `${digits(vendorId)}:${digits(deviceId)}` : 'a device';
  return name == null ? ids : `${ids} ${name}`;
}

async function start(): Promise<void> {
  const subject = await get<Subject>('api/device');
  const title = titleOf(subject);
  document.title = `${title} – vfio-user inspect`;
  byId('title').textContent = title;
  byId('subtitle').textContent = subject.source;
  if (subject.kind === 'capture') for (const id of ['config', 'memory']) byId(`tab-${id}`).hidden = true;
  byId('device').append(deviceView(subject));
  byId('memory').append(memoryView(subject));
  const registers = new RegistersView(subject);
  byId('registers').append(registers.node);
  const traffic = new TrafficView(subject, (page: EventPage) => {
    const { isOver, reason } = page.state;
    if (isOver) say(`disconnected: ${reason ?? ''}`, true);
    else say(subject.kind === 'capture' ? `${page.end} events` : 'connected');
  });
  byId('traffic').append(traffic.node);
  startTabs((id) => {
    registers.show(id === 'registers');
    traffic.show(id === 'traffic');
    if (id === 'config') void showConfig();
  });
  traffic.start();
}

/** Each time: the shadow follows what was written. */
async function showConfig(): Promise<void> {
  const place = byId('config');
  try {
    place.replaceChildren(configView(await get<Config | null>('api/config')));
  } catch (error) {
    place.replaceChildren(h('p', { class: 'error' }, (error as Error).message));
  }
}

start().catch((error: unknown) => say((error as Error).message, true));
