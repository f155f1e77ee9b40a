/** An archive for a kernel's initramfs, in the "newc" format (Linux: Documentation/driver-api/early-userspace). */

const MAGIC = '070701';
/** A regular file that all can read and run. */
const MODE = 0o100755;
const TRAILER = 'TRAILER!!!';

/** Files by their names. A kernel lays it over the archives before it, which must end at a multiple of 4 bytes. */
export function cpio(files: Readonly<Record<string, string>>): Buffer {
  const entries = Object.entries(files).map(([name, text], i) => entry(name, Buffer.from(text), i + 1, MODE));
  return Buffer.concat([...entries, entry(TRAILER, Buffer.alloc(0), 0, 0)]);
}

/** Padded with zeroes to a multiple of 4 bytes. */
export function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}

function entry(name: string, data: Buffer, inode: number, mode: number): Buffer {
  const [uid, gid, links, time, device] = [0, 0, 1, 0, 0];
  const nameSize = Buffer.byteLength(name) + 1;
  const fields = [
    ...[inode, mode, uid, gid, links, time, data.length],
    ...[device, device, device, device, nameSize, 0],
  ];
  const header = MAGIC + fields.map((field) => field.toString(16).padStart(8, '0')).join('');
  return Buffer.concat([padded(Buffer.from(`${header}${name}\0`)), padded(data)]);
}
