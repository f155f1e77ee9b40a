/** What a device has done, as OpenMetrics text. */
import type { DeviceCounters, RequestObserver } from '../connection/index.js';
import { MetricsWriter } from '../open-metrics.js';
import type { Irqs } from './irqs.js';

interface Measured {
  /** Where the server is. */
  peer: string;
  isConnected: boolean;
  counters: DeviceCounters;
  irqs: Irqs;
  observer: RequestObserver;
}

export function deviceMetrics({ peer, isConnected, counters, irqs, observer }: Measured): string {
  const writer = new MetricsWriter({ device: peer });
  writer.gauge({ name: 'vfio_user_connected', help: '1 while the device can be used.' }, isConnected ? 1 : 0);
  writeTraffic(writer, counters);
  return writer
    .counter({ name: 'vfio_user_server_requests', help: "The server's own requests." }, [
      [{ outcome: 'served' }, counters.served],
      [{ outcome: 'refused' }, counters.refused],
    ])
    .counter(
      { name: 'vfio_user_interrupts', help: 'Interrupts that were counted, by index.' },
      interruptsOf(irqs),
    )
    .durations(
      {
        name: 'vfio_user_request_duration_seconds',
        help: 'From a request to its answer, failed ones included; measured from the first scrape on.',
      },
      'command',
      observer.durations,
    )
    .end();
}

function writeTraffic(writer: MetricsWriter, counters: DeviceCounters): void {
  const { sent, received, bytesSent, bytesReceived, inFlight, queued, late, tombstones } = counters;
  writer
    .counter({ name: 'vfio_user_messages', help: 'Messages of this connection.' }, [
      [{ direction: 'sent' }, sent],
      [{ direction: 'received' }, received],
    ])
    .counter({ name: 'vfio_user_message_bytes', help: 'Bytes of these messages, headers included.' }, [
      [{ direction: 'sent' }, bytesSent],
      [{ direction: 'received' }, bytesReceived],
    ])
    .gauge({ name: 'vfio_user_requests_in_flight', help: 'Commands that wait for their replies.' }, inFlight)
    .gauge({ name: 'vfio_user_requests_queued', help: 'Messages that wait for room in flight.' }, queued)
    .gauge(
      { name: 'vfio_user_requests_abandoned', help: 'Calls that were given up and are not answered yet.' },
      tombstones,
    )
    .counter({ name: 'vfio_user_replies_late', help: 'Replies to calls that had been given up.' }, late)
    .counter(
      { name: 'vfio_user_replies_unknown', help: 'Replies that no call waited for.' },
      counters.unknown,
    )
    .counter(
      { name: 'vfio_user_posted_write_errors', help: 'Error replies to posted writes.' },
      counters.postedErrors,
    );
}

/** By index: there may be thousands of vectors. */
function interruptsOf(irqs: Irqs): [{ index: string }, number][] {
  return [...irqs].map(({ name, signalled }) => [{ index: name }, signalled]);
}
