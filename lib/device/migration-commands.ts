/** The messages of migration, one function each (specification: Device Features, VFIO_USER_MIG_DATA_READ and _WRITE). */
import type { CallOptions, Connection } from '../connection/index.js';
import {
  Command,
  DEVICE_FEATURE_GET,
  DEVICE_FEATURE_SET,
  type MigrationState,
} from '../protocol/constants.js';
import {
  decodeMigDataReadReply,
  decodeMigStateReply,
  decodeMigrationReply,
  encodeGetMigState,
  encodeGetMigration,
  encodeMigDataRead,
  encodeMigDataWrite,
  encodeSetMigState,
} from '../protocol/migration.js';

export class MigrationCommands {
  readonly #connection: Connection;

  /** Of one connection: what was begun on it does not go on upon another. */
  constructor(connection: Connection) {
    this.#connection = connection;
  }

  get connection(): Connection {
    return this.#connection;
  }

  /** `MIGRATION_…` bits. */
  flags(options?: CallOptions): Promise<number> {
    return this.#feature(
      encodeGetMigration(),
      (bytes, start, end) => decodeMigrationReply(bytes, start, end),
      options,
    );
  }

  state(options?: CallOptions): Promise<MigrationState> {
    return this.#feature(
      encodeGetMigState(),
      (bytes, start, end) => decodeMigStateReply(bytes, start, end, DEVICE_FEATURE_GET),
      options,
    );
  }

  /** Resolves with the state that the device is in then, as the server says. */
  setState(state: MigrationState, options?: CallOptions): Promise<MigrationState> {
    return this.#feature(
      encodeSetMigState(state),
      (bytes, start, end) => decodeMigStateReply(bytes, start, end, DEVICE_FEATURE_SET),
      options,
    );
  }

  /** At most `size` bytes of the stream; fewer end it. */
  read(size: number, options?: CallOptions): Promise<Buffer> {
    return this.#connection.call(
      Command.MIG_DATA_READ,
      encodeMigDataRead(size),
      null,
      (bytes, start, end) => decodeMigDataReadReply(bytes, start, end, size),
      options,
    );
  }

  write(data: Uint8Array, options?: CallOptions): Promise<void> {
    return this.#connection.call(
      Command.MIG_DATA_WRITE,
      encodeMigDataWrite(data),
      null,
      () => undefined,
      options,
    );
  }

  #feature<T>(payload: Buffer, decode: Parameters<Connection['call']>[3], options?: CallOptions): Promise<T> {
    return this.#connection.call(Command.DEVICE_FEATURE, payload, null, decode, options) as Promise<T>;
  }
}
