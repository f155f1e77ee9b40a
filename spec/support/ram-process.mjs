/**
 * The emulator's RAM device in a process of its own, for specs that kill it: `ram-process.mjs PATH OPTIONS`, OPTIONS being
 * JSON. It loads, says `ready`, waits for any message, listens, and says `listening`.
 *
 * OPTIONS: `device` ('ram', or a device of the same shape: 'other' with another id, 'subsystem' with another subsystem), `ram` (RamOptions), `serve`
 * (EmulatorOptions), `fill` (what every dword of the shared BAR is), `greet` (false: accepts and never
 * answers), `delayMs` (each command is carried out so much later).
 */
import { RamDevice, serve } from '../../dist/emulator/index.js';

const [path, json = '{}'] = process.argv.slice(2);
const {
  device: kind = 'ram',
  ram = {},
  serve: options = {},
  fill = 0,
  greet = true,
  clients = 'one',
  delayMs = 0,
} = JSON.parse(json);

/** Config space of another device: every read of the dword that tells says so. */
class OtherDevice extends RamDevice {
  constructor() {
    super(ram);
    const read = this.config.read.bind(this.config);
    this.config.read = (offset, count) => {
      const bytes = Buffer.from(read(offset, count));
      const at = kind === 'other' ? 0 : 0x2c;
      if (offset <= at && offset + count >= at + 4) bytes.writeUInt16LE(0x5242, at - offset + 2);
      return bytes;
    };
  }
}

const device = kind !== 'ram' ? new OtherDevice() : new RamDevice(ram);
const shared = device.shared?.bytes;
for (let at = 0; shared !== undefined && at < shared.length; at += 4) shared.writeUInt32LE(fill, at);

process.once('message', () => {
  const slow = delayMs > 0 ? () => ({ delayMs }) : undefined;
  const intercept = greet ? slow : () => 'drop';
  serve(device, { ...options, path, intercept, clients }).then(
    () => process.send('listening'),
    (error) => process.send(String(error)),
  );
});
process.once('disconnect', () => process.exit());
process.send('ready');
