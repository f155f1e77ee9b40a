/** Plots as SVG, and text in HTML. */
import { compile, type TopLevelSpec } from 'vega-lite';
import { View, parse } from 'vega';

export async function svg(spec: TopLevelSpec): Promise<string> {
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  const picture = await view.toSVG();
  view.finalize();
  return picture;
}

export function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
