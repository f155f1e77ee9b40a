/** What a proxy has to say, for people. */
import type { ProxyCounters, ProxyEvent, WayCounters } from '../proxy/index.js';
import { counted } from './format-text.js';

export function describeEvent(event: ProxyEvent): string {
  switch (event.type) {
    case 'connected':
      return `client ${event.client} connected`;
    case 'ended':
      return `client ${event.client} ended: ${event.reason}`;
    case 'fault':
      return event.client === undefined
        ? `${event.fault}: ${event.message}`
        : `client ${event.client}: ${event.fault}: ${event.message}`;
    case 'notice':
      return event.client === undefined
        ? `vfio-user: ${event.text}`
        : `client ${event.client}: ${event.text}`;
  }
}

/** Lines, without the last line break. */
export function summaryOf(counters: ProxyCounters): string {
  const { clients, refused, toServer, toClient, interrupts } = counters;
  const refusals = refused > 0 ? `, ${refused} of them refused` : '';
  const lines = [
    `${counted(clients, 'client')}${refusals}`,
    `to the server: ${way(toServer)}`,
    `to the client: ${way(toClient)}`,
  ];
  if (interrupts > 0) lines.push(counted(interrupts, 'interrupt'));
  return lines.join('\n');
}

function way({ messages, bytes, fds, droppedFds }: WayCounters): string {
  const parts = [counted(messages, 'message'), counted(bytes, 'byte'), counted(fds, 'fd')];
  if (droppedFds > 0) parts.push(`${counted(droppedFds, 'fd')} not passed`);
  return parts.join(', ');
}
