/** What the documents refer to is there: files, headings, and paths that they name. */
import { describe, expect, test } from '@jest/globals';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { ROOT } from './programs.js';

const DOCUMENTS = [
  ...['', 'docs', 'docs/doctor', 'addon', 'fuzz', 'examples', 'tools/wireshark'].flatMap((directory) =>
    existsSync(path.join(ROOT, directory))
      ? readdirSync(path.join(ROOT, directory))
          .filter((name) => name.endsWith('.md'))
          .map((name) => path.join(directory, name))
      : [],
  ),
];

const read = (name: string): string => readFileSync(path.join(ROOT, name), 'utf8');

/** As GitHub makes them. */
function anchors(text: string): Set<string> {
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading!);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

describe.each(DOCUMENTS)('%s', (name) => {
  const text = read(name).replaceAll(/^```[^]*?^```/gm, '');

  test('its links lead somewhere', () => {
    const broken: string[] = [];
    for (const [, link] of text.matchAll(/\]\((?!\w+:)([^)\s]+)\)/g)) {
      const [file, anchor] = link!.split('#') as [string, string | undefined];
      const target = file === '' ? name : path.join(path.dirname(name), file);
      if (!existsSync(path.join(ROOT, target))) broken.push(link!);
      else if (anchor !== undefined && !anchors(read(target)).has(anchor)) broken.push(link!);
    }
    expect(broken).toEqual([]);
  });

  test('the paths that it names are there', () => {
    const named = [...text.matchAll(/`((?:lib|spec|addon|bench|examples|tools|docs|fuzz)\/[\w./-]*)`/g)];
    const places = [ROOT, path.join(ROOT, path.dirname(name))];
    const missing = named
      .map(([, file]) => file!)
      .filter((file) => !places.some((place) => existsSync(path.join(place, file))));
    expect(missing).toEqual([]);
  });
});
