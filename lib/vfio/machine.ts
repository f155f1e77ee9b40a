/**
 * What Linux says of a machine in its file systems: /sys, /proc, /dev, /run. All of them below a root, which is another one in
 * specs. What is not there, or may not be read, is undefined, and no error.
 */
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';

export class Machine {
  readonly root: string;

  constructor(root = '/') {
    this.root = realpathSync(root);
  }

  /** Where a file of the machine is. */
  path(...parts: string[]): string {
    return path.join(this.root, ...parts);
  }

  /** A file's text without the space around it. */
  text(...parts: string[]): string | undefined {
    return this.bytes(...parts)
      ?.toString('utf8')
      .trim();
  }

  bytes(...parts: string[]): Buffer | undefined {
    try {
      return readFileSync(this.path(...parts));
    } catch {
      return undefined;
    }
  }

  /** A number, as sysfs has them: decimal, or hexadecimal after 0x. */
  number(...parts: string[]): number | undefined {
    const text = this.text(...parts);
    return text !== undefined && /^(?:\d+|0x[\da-f]+)$/i.test(text) ? Number(text) : undefined;
  }

  /** The last name of where a link leads, which is what sysfs says by links. */
  link(...parts: string[]): string | undefined {
    const target = this.target(...parts);
    return target === undefined ? undefined : path.basename(target);
  }

  /** What a link says. */
  target(...parts: string[]): string | undefined {
    try {
      return readlinkSync(this.path(...parts));
    } catch {
      return undefined;
    }
  }

  /** Where links lead in the end. */
  real(...parts: string[]): string | undefined {
    try {
      return realpathSync(this.path(...parts));
    } catch {
      return undefined;
    }
  }

  /** The names in a directory, in order. */
  list(...parts: string[]): string[] {
    try {
      return readdirSync(this.path(...parts)).sort();
    } catch {
      return [];
    }
  }

  has(...parts: string[]): boolean {
    return existsSync(this.path(...parts));
  }

  /** Tells the kernel something, by a file of its own. @throws what it says. */
  tell(text: string, ...parts: string[]): void {
    // Such files are for writing alone, and must not be made where they are not there.
    const fd = openSync(this.path(...parts), constants.O_WRONLY);
    try {
      writeSync(fd, text);
    } finally {
      closeSync(fd);
    }
  }

  /** Keeps a file, in directories that are made. @throws what the file system says. */
  keep(text: string, ...parts: string[]): void {
    const file = this.path(...parts);
    mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 });
    writeFileSync(file, text, { mode: 0o644 });
  }

  forget(...parts: string[]): void {
    rmSync(this.path(...parts), { force: true });
  }
}
