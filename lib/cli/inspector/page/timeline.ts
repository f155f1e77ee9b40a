/** Messages, interrupts and DMA regions on one time axis. The table beside it says the same in words. */
import type { LoggedEvent, Mapping } from './api.js';
import { svg } from './dom.js';

const WIDTH = 1_200;
const LEFT = 90;
const LANE = 26;
const TOP = 12;
const TICKS = 6;
const LANES = ['sent', 'received', 'interrupt'] as const;
const TITLES = { sent: 'to the server', received: 'to the client', interrupt: 'interrupts' };
/** More regions are drawn in the last row. */
const MOST_DMA_ROWS = 4;

export function timeline(events: readonly LoggedEvent[], mappings: readonly Mapping[]): SVGElement {
  const from = events[0]?.time ?? 0;
  const to = Math.max(events.at(-1)?.time ?? 0, from + 1);
  const x = (time: number): number => LEFT + ((time - from) / (to - from)) * (WIDTH - LEFT - 16);
  const shown = mappings.filter((one) => one.from <= to && (one.to ?? Infinity) >= from);
  const rows = Math.min(MOST_DMA_ROWS, shown.length);
  const axisAt = TOP + LANE * (LANES.length + rows);
  const parts: SVGElement[] = LANES.map((lane, i) =>
    svg('text', { x: 8, y: TOP + LANE * i + 16 }, TITLES[lane]),
  );
  if (rows > 0) parts.push(svg('text', { x: 8, y: TOP + LANE * LANES.length + 16 }, 'DMA regions'));
  for (const event of events) parts.push(mark(event, x(event.time)));
  shown.forEach((mapping, i) => {
    const y = TOP + LANE * (LANES.length + Math.min(i, rows - 1));
    const begin = Math.max(LEFT, x(mapping.from));
    const end = Math.min(WIDTH - 16, x(mapping.to ?? to));
    const box = {
      x: begin,
      y: y + 5,
      width: Math.max(2, end - begin),
      height: LANE - 10,
      rx: 3,
      class: 'dma',
    };
    parts.push(svg('rect', box, svg('title', {}, `${mapping.address}, ${mapping.size} bytes`)));
  });
  for (let tick = 0; tick <= TICKS; tick++) {
    const time = from + ((to - from) * tick) / TICKS;
    parts.push(svg('line', { class: 'axis', x1: x(time), x2: x(time), y1: TOP, y2: axisAt }));
    const anchor = tick === TICKS ? 'end' : tick === 0 ? 'start' : 'middle';
    parts.push(svg('text', { x: x(time), y: axisAt + 16, 'text-anchor': anchor }, secondsOf(time)));
  }
  const label = `${events.length} events from ${secondsOf(from)} to ${secondsOf(to)}, ${shown.length} DMA regions`;
  return svg('svg', { viewBox: `0 0 ${WIDTH} ${axisAt + 26}`, role: 'img', 'aria-label': label }, ...parts);
}

function mark(event: LoggedEvent, x: number): SVGElement {
  const lane = event.kind === 'interrupt' ? 'interrupt' : event.direction;
  const y = TOP + LANE * LANES.indexOf(lane);
  const title = svg('title', {}, `${secondsOf(event.time)} ${event.what} ${event.kind}`);
  return svg('rect', { x: x - 1, y: y + 4, width: 2, height: LANE - 8, class: lane }, title);
}

export function secondsOf(microseconds: number): string {
  return `${(microseconds / 1e6).toFixed(6)} s`;
}
