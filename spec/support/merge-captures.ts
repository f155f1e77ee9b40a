/** Makes one capture for a fixture of several: each under a name, with times that begin at 0 and without fd numbers. */
import { CaptureReader, CaptureWriter, isMessage, type TracedEvent } from '../../lib/trace/index.js';

/** `parts` are files by the names that their connections are to have. */
export async function mergeCaptures(parts: Readonly<Record<string, string>>, into: string): Promise<void> {
  const writer = await CaptureWriter.open({ path: into });
  for (const [name, file] of Object.entries(parts)) {
    let start: bigint | undefined;
    for await (const event of new CaptureReader(file).events()) {
      start ??= event.time;
      writer.write(renamed(event, name, event.time - start));
    }
  }
  writer.close();
}

/** The numbers of fds are this process's; how many there are counts. */
function renamed(event: TracedEvent, name: string, time: bigint): TracedEvent {
  const socket = event.socket.endsWith(' (twin)') ? `${name} (twin)` : name;
  if (!isMessage(event)) return { ...event, socket, time };
  return { ...event, socket, time, fds: event.fds.map((_, i) => i + 3) };
}
