/**
 * XML as a tree of elements that know their lines. Files come from strangers: bytes, elements, depth and text are bounded;
 * entities beside XML's own five are refused, and what a DOCTYPE declares is not looked at.
 */
import sax from 'sax';
import { RegisterMapError } from './error.js';

/** What a file may have. The largest public SVD files have 4 MiB and 150,000 elements. */
export const XML_LIMITS = { bytes: 64 << 20, elements: 4_000_000, depth: 64, textLength: 1 << 16 } as const;

/** At most so many characters are handed to the parser at once: it looks at its own bounds only between two of them. */
const CHUNK = 1 << 16;

/** An element. */
export class XmlElement {
  /** Without its namespace's prefix. */
  readonly name: string;
  /** By their names without prefixes. */
  readonly attributes: ReadonlyMap<string, string>;
  /** Where it begins, from 1. */
  readonly line: number;
  readonly children: XmlElement[] = [];
  /** The text between its tags, without that of its children, as it stands. */
  text = '';

  constructor(name: string, attributes: ReadonlyMap<string, string>, line: number) {
    this.name = name;
    this.attributes = attributes;
    this.line = line;
  }

  /** The first child of this name. */
  child(name: string): XmlElement | undefined {
    return this.children.find((child) => child.name === name);
  }

  /** The children of this name. */
  all(name: string): XmlElement[] {
    return this.children.filter((child) => child.name === name);
  }

  /** The text of the first child of this name, with single spaces; undefined where there is none, or none in it. */
  textOf(name: string): string | undefined {
    const text = this.child(name)?.text.replaceAll(/\s+/g, ' ').trim();
    return text === '' ? undefined : text;
  }
}

/** The file's root element. @throws RegisterMapError for what is no XML or goes beyond a bound, with its line. */
export function parseXml(text: string): XmlElement {
  // @types/sax does not know strictEntities.
  const options: sax.SAXOptions & { strictEntities: boolean } = { strictEntities: true, position: true };
  const parser = new sax.SAXParser(true, options);
  const open: XmlElement[] = [];
  let root: XmlElement | undefined;
  let elements = 0;
  const fail = (message: string): never => {
    throw new RegisterMapError(message, parser.line + 1);
  };
  const addText = (more: string): void => {
    const element = open.at(-1);
    if (element === undefined) return;
    if (element.text.length + more.length > XML_LIMITS.textLength) {
      fail(`<${element.name}> has more than ${XML_LIMITS.textLength} characters`);
    }
    element.text += more;
  };
  parser.onerror = (error) => fail(`no XML: ${error.message.split('\n')[0]}`);
  parser.onopentag = (tag) => {
    if (++elements > XML_LIMITS.elements) fail(`more than ${XML_LIMITS.elements} elements`);
    if (open.length >= XML_LIMITS.depth) fail(`more than ${XML_LIMITS.depth} elements deep`);
    const attributes = new Map<string, string>();
    for (const [name, value] of Object.entries(tag.attributes))
      attributes.set(localName(name), String(value));
    const element = new XmlElement(localName(tag.name), attributes, parser.line + 1);
    open.at(-1)?.children.push(element);
    root ??= element;
    open.push(element);
  };
  parser.onclosetag = () => void open.pop();
  parser.ontext = addText;
  parser.oncdata = addText;
  for (let at = 0; at < text.length; at += CHUNK) parser.write(text.slice(at, at + CHUNK));
  parser.close();
  return root ?? fail('no XML: it has no element');
}

function localName(name: string): string {
  return name.slice(name.indexOf(':') + 1);
}

/** The file's text, in the encoding that its first bytes say. @throws RegisterMapError */
export function decodeText(bytes: Uint8Array): string {
  if (bytes.length > XML_LIMITS.bytes) {
    throw new RegisterMapError(`the file has ${bytes.length} bytes; at most ${XML_LIMITS.bytes} are read`);
  }
  const [first, second] = bytes;
  if (first === 0xff && second === 0xfe) return new TextDecoder('utf-16le').decode(bytes);
  const start = Buffer.from(bytes.subarray(0, 200)).toString('latin1');
  const encoding = /^(?:\xef\xbb\xbf)?<\?xml[^>]*\sencoding=["']([\w.-]+)["']/.exec(start)?.[1] ?? 'utf-8';
  try {
    return new TextDecoder(encoding).decode(bytes);
  } catch {
    throw new RegisterMapError(`the encoding ${encoding} is not known`, 1);
  }
}
