import { native, type NativeSocket } from '../../lib/native.js';

/** One `sendmsg` of these bytes, with fds. What the addon answers. */
export function sendBytes(socket: NativeSocket, bytes: Uint8Array, fds: readonly number[] | null): number {
  return native().send(socket.handle, bytes, bytes.byteLength, null, 0, 0, 0, fds);
}
