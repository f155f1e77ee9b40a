/** The emulator's edu device in a process of its own: `edu-server.js PATH`. Ends with whoever started it. */
import { EduDevice, serve } from 'vfio-user/emulator';

const path = process.argv[2];
if (path === undefined) throw new TypeError('usage: edu-server.js PATH');

const server = await serve(new EduDevice(), { path });
process.once('disconnect', () => void server.close());
process.send?.('listening');
