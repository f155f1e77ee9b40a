/** `nc -U PATH`, for machines without it: connects stdin and stdout to a Unix socket. */
import { connect } from 'node:net';

const socket = connect(process.argv[2]);
process.stdin.pipe(socket).pipe(process.stdout);
socket.on('close', () => process.exit());
