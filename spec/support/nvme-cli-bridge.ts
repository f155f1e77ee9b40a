/** nvme(1) of nvme-cli on a controller of this library's: its ioctls come over a socket (nvme-device.c). */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { NvmeStatusError, type NvmeController, type RawCommand } from '../../lib/nvme/index.js';
import { outcomeOf, type Outcome } from '../cli/cli.js';

const HEADER = 52;
const EINVAL = 22;
const IO = 2;
const RESET = 3;
const RESCAN = 4;
/** Fabrics commands, of which Property Get is one: nvme asks for registers by it where it cannot map them. */
const FABRICS = 0x7f;
const PROPERTY_GET = 4;
const INVALID_FIELD = 2;

/** A command as nvme gave it to the kernel. */
export interface Asked {
  kind: number;
  opcode: number;
  namespace: number;
  dwords: number[];
  dataLength: number;
  metadataLength: number;
}

export class NvmeCliBridge {
  /** What nvme asked for, in order. */
  readonly asked: Asked[] = [];
  readonly #controller: NvmeController;
  readonly #library: string;
  readonly #path: string;
  readonly #server: Server;

  private constructor(controller: NvmeController, library: string, path: string, server: Server) {
    this.#controller = controller;
    this.#library = library;
    this.#path = path;
    this.#server = server;
    server.on('connection', (socket) => void this.#serve(socket).catch(() => socket.destroy()));
  }

  static async open(controller: NvmeController, library: string, path: string): Promise<NvmeCliBridge> {
    const server = createServer({ pauseOnConnect: false });
    server.listen(path);
    await once(server, 'listening');
    return new NvmeCliBridge(controller, library, path, server);
  }

  /** Runs `nvme VERB /dev/null …` to its end. */
  run(nvme: string, [verb, ...rest]: readonly string[], input?: Buffer): Promise<Outcome> {
    const env = { ...process.env, LC_ALL: 'C', LD_PRELOAD: this.#library, VFIO_USER_NVME_SOCKET: this.#path };
    const child = spawn(nvme, [verb!, '/dev/null', ...rest], { env, stdio: 'pipe' });
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    return outcomeOf(child);
  }

  close(): void {
    this.#server.close();
  }

  async #serve(socket: Socket): Promise<void> {
    const bytes = new Bytes(socket);
    for (;;) {
      const head = await bytes.take(HEADER);
      const word = (index: number) => head.readUInt32LE(4 * index);
      const asked: Asked = {
        ...{
          kind: word(0),
          opcode: word(1),
          namespace: word(2),
          dataLength: word(5),
          metadataLength: word(6),
        },
        dwords: Array.from({ length: 6 }, (_, i) => word(7 + i)),
      };
      this.asked.push(asked);
      const isOut = (asked.opcode & 1) !== 0 && asked.opcode !== FABRICS;
      const send = isOut ? await bytes.take(asked.dataLength) : undefined;
      const sendMetadata = isOut ? await bytes.take(asked.metadataLength) : undefined;
      const { status, result, data } = await this.#answer(asked, send, sendMetadata);
      const reply = Buffer.alloc(16);
      reply.writeBigInt64LE(BigInt(status), 0);
      reply.writeBigUInt64LE(result, 8);
      socket.write(Buffer.concat([reply, data]));
    }
  }

  async #answer(
    asked: Asked,
    send?: Buffer,
    sendMetadata?: Buffer,
  ): Promise<{ status: number; result: bigint; data: Buffer }> {
    const none = { status: 0, result: 0n, data: Buffer.alloc(0) };
    try {
      if (asked.kind === RESET) await this.#controller.reset();
      if (asked.kind === RESET || asked.kind === RESCAN) return none;
      if (asked.opcode === FABRICS) return await this.#property(asked);
      const [cdw10, cdw11, cdw12, cdw13, cdw14, cdw15] = asked.dwords as [
        number,
        number,
        number,
        number,
        number,
        number,
      ];
      const command: RawCommand = {
        ...{ opcode: asked.opcode, namespace: asked.namespace },
        ...{ cdw10, cdw11, cdw12, cdw13, cdw14, cdw15 },
      };
      const receive = (asked.opcode & 2) === 0 ? 0 : asked.dataLength;
      const outgoing = send === undefined || send.length === 0 ? {} : { send };
      if (asked.kind !== IO) {
        const { result, data } = await this.#controller.adminCommand({ ...command, ...outgoing, receive });
        return { status: 0, result: BigInt(result), data };
      }
      const metadata = sendMetadata === undefined || sendMetadata.length === 0 ? {} : { sendMetadata };
      const receiveMetadata = (asked.opcode & 2) === 0 ? 0 : asked.metadataLength;
      const answer = await this.#controller.ioCommand({
        ...command,
        ...outgoing,
        receive,
        ...metadata,
        receiveMetadata,
      });
      return {
        status: 0,
        result: BigInt(answer.result),
        data: Buffer.concat([answer.data, answer.metadata]),
      };
    } catch (error) {
      if (!(error instanceof NvmeStatusError)) return { ...none, status: -EINVAL };
      const { sct, sc, dnr, more } = error;
      return { ...none, status: sc | (sct << 8) | (Number(more) << 13) | (Number(dnr) << 14) };
    }
  }

  async #property({ namespace, dwords }: Asked): Promise<{ status: number; result: bigint; data: Buffer }> {
    // What is the command's type of a fabrics command stands where NSID does.
    const [size, offset] = dwords as [number, number];
    const data = Buffer.alloc(0);
    const bar = this.#controller.device.bar(0);
    if ((namespace & 0xff) !== PROPERTY_GET || offset + 8 > bar.size)
      return { status: INVALID_FIELD, result: 0n, data };
    const low = await bar.readUInt32(offset);
    const high = (size & 7) === 1 ? await bar.readUInt32(offset + 4) : 0;
    return { status: 0, result: (BigInt(high) << 32n) | BigInt(low), data };
  }
}

/** A socket's bytes, so many at a time. */
class Bytes {
  readonly #parts: AsyncIterator<Buffer>;
  #held = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.#parts = (socket as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  }

  async take(count: number): Promise<Buffer> {
    while (this.#held.length < count) {
      const { value, done } = await this.#parts.next();
      if (done === true) throw new Error('the other end has closed');
      this.#held = Buffer.concat([this.#held, value]);
    }
    const taken = this.#held.subarray(0, count);
    this.#held = this.#held.subarray(count);
    return taken;
  }
}
