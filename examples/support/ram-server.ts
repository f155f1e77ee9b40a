/** The emulator's RAM device, which can migrate, in a process of its own: `ram-server.js PATH`. */
import { RamDevice, serve } from 'vfio-user/emulator';

const path = process.argv[2];
if (path === undefined) throw new TypeError('usage: ram-server.js PATH');

const server = await serve(new RamDevice({ migration: 'pre-copy' }), { path });
process.once('disconnect', () => void server.close());
process.send?.('listening');
