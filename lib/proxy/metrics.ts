/** What went through a proxy, as OpenMetrics text. */
import { MetricsWriter, type Labels } from '../open-metrics.js';
import type { ProxyCounters } from './proxy-options.js';

export function proxyMetrics(address: string, counters: ProxyCounters): string {
  const { clients, open, refused, toServer, toClient, faults, interrupts } = counters;
  const both = (member: keyof typeof toServer): [Labels, number][] => [
    [{ direction: 'to_server' }, toServer[member]],
    [{ direction: 'to_client' }, toClient[member]],
  ];
  return new MetricsWriter({ listen: address })
    .gauge({ name: 'vfio_user_proxy_clients', help: 'Clients that are connected.' }, open)
    .counter({ name: 'vfio_user_proxy_connections', help: 'Clients that came.' }, clients)
    .counter(
      { name: 'vfio_user_proxy_refused', help: 'Clients for whom the server could not be reached.' },
      refused,
    )
    .counter({ name: 'vfio_user_proxy_messages', help: 'Messages passed on.' }, both('messages'))
    .counter({ name: 'vfio_user_proxy_bytes', help: 'Bytes passed on.' }, both('bytes'))
    .counter({ name: 'vfio_user_proxy_fds', help: 'File descriptors passed on.' }, both('fds'))
    .counter(
      { name: 'vfio_user_proxy_dropped_fds', help: 'File descriptors that the other side cannot take.' },
      both('droppedFds'),
    )
    .counter({ name: 'vfio_user_proxy_faults', help: 'Faults that were injected.' }, faults)
    .counter({ name: 'vfio_user_proxy_interrupts', help: 'Interrupts passed on.' }, interrupts)
    .end();
}
