/** What a SCSI host is, as its driver, queues and units share it, and how commands get to it. */
import { ProtocolError } from '../index.js';
import type { DriverSetup } from './driver-setup.js';
import { VirtioDeviceError, VirtioStatusError } from './errors.js';
import type { RequestMemory, RequestShape } from './request-memory.js';
import { RequestQueue } from './request-queue.js';
import { VirtioRequest } from './request.js';
import { UNWRITTEN } from './requests-in-flight.js';
import type { VirtioScsiConfig } from './scsi-config.js';
import { ScsiError, ScsiStatus, scsiResponseName } from './scsi-error.js';
import { decodeSense, SenseKey } from './scsi-sense.js';
import { NOT_WRITTEN } from './virtqueue.js';

/** struct virtio_scsi_req_cmd (section 5.6.6.1): what stands before the command descriptor block. */
const ADDRESS_BYTES = 19;
const ID_AT = 8;
/** What the device writes first; sense data follows. */
const RESPONSE_BYTES = 12;
const Response = { SENSE_LENGTH: 0, RESIDUAL: 4, STATUS: 10, RESPONSE: 11 } as const;
/** A response that is not OK, as a status of a request: above all statuses of SCSI. */
const RESPONSE_STATUS = 0x100;
const SECTOR = 512;
const FIRST_QUEUE = 2;

export interface ScsiAddress {
  readonly target: number;
  readonly lun: number;
}

export class ScsiRequest extends VirtioRequest {
  /** Bytes of its data that were not transferred. */
  residual = 0;
  /** It is not carried out where anything is missing: what is in the rest is not known. */
  isWhole = false;
}

export class ScsiHost {
  config!: VirtioScsiConfig;
  shape!: RequestShape;
  queues: readonly RequestQueue[] = [];
  readonly #wantedTransfer: number;
  #nextId = 0n;
  #nextQueue = 0;

  constructor(maxTransferBytes: number) {
    this.#wantedTransfer = maxTransferBytes;
  }

  /** @throws VirtioDeviceError where requests do not fit any more. */
  update(config: VirtioScsiConfig): void {
    const shape = this.#shapeOf(config);
    const before = this.shape as RequestShape | undefined;
    if (before !== undefined) {
      const { headerBytes, tailBytes, maxTransferBytes } = shape;
      if (headerBytes !== before.headerBytes || tailBytes !== before.tailBytes)
        throw new VirtioDeviceError('cdb_size or sense_size of the device is not what it was');
      if (maxTransferBytes < before.maxTransferBytes)
        throw new VirtioDeviceError(
          `the device takes transfers of ${maxTransferBytes} bytes, and took ${before.maxTransferBytes}`,
        );
    } else this.shape = shape;
    this.config = config;
  }

  async makeQueues(setup: DriverSetup, wanted: number): Promise<RequestQueue[]> {
    const there = Math.max(1, (await setup.transport.queueCount()) - FIRST_QUEUE);
    const count = Math.min(wanted, this.config.queues, there);
    const made: RequestQueue[] = [];
    try {
      for (let i = 0; i < count; i++) made.push(await this.#makeQueue(setup, FIRST_QUEUE + i));
    } catch (error) {
      for (const queue of made) await queue.free().catch(() => undefined);
      throw error;
    }
    this.queues = made;
    return made;
  }

  /** The queues take turns. */
  nextQueue(): RequestQueue {
    const queue = this.queues[this.#nextQueue]!;
    this.#nextQueue = (this.#nextQueue + 1) % this.queues.length;
    return queue;
  }

  request(name: string, { target, lun }: ScsiAddress, cdb: Uint8Array, retries: number): ScsiRequest {
    const header = Buffer.alloc(this.shape.headerBytes);
    header[0] = 1;
    header[1] = target;
    // Flat space addressing (SAM-5, section 4.7.7.4), which LUNs below 256 have as well.
    header.writeUInt16BE(0x4000 | lun, 2);
    header.writeBigUInt64LE(BigInt.asUintN(64, ++this.#nextId), ID_AT);
    header.set(cdb, ADDRESS_BYTES);
    const request = new ScsiRequest(name, header);
    request.retries = retries;
    return request;
  }

  /** @throws ProtocolError. */
  #shapeOf({ maxSectors, senseBytes, cdbBytes }: VirtioScsiConfig): RequestShape {
    const most =
      maxSectors === 0 ? this.#wantedTransfer : Math.min(this.#wantedTransfer, maxSectors * SECTOR);
    if (most < SECTOR) throw new ProtocolError(`max_sectors is ${maxSectors}: no request has room for data`);
    return {
      headerBytes: ADDRESS_BYTES + cdbBytes,
      tailBytes: RESPONSE_BYTES + senseBytes,
      isTailFirst: true,
      // Data is contiguous: one segment, whatever seg_max.
      segmentBytes: 1 << 30,
      maxSegments: 1,
      maxTransferBytes: most,
    };
  }

  #makeQueue(setup: DriverSetup, index: number): Promise<RequestQueue> {
    const { senseBytes } = this.config;
    const responseBytes = RESPONSE_BYTES + senseBytes;
    // Of the request whose completion is being taken: read once, as the device can still write to it.
    const response = Buffer.alloc(responseBytes);
    const readStatus = (
      memory: RequestMemory,
      slot: number,
      usedLength: number,
      expected: number,
    ): number => {
      const at = memory.tailAt(slot);
      response.set(memory.heads.subarray(at, at + responseBytes));
      return statusOf(response, usedLength, expected);
    };
    return RequestQueue.allocate(setup, {
      index,
      shape: this.shape,
      readStatus,
      statusError: () => (request, status) => errorOf(request.name, status, response),
      check: (request) => {
        const residual = response.readUInt32LE(Response.RESIDUAL);
        if (residual <= request.length) return noteResidual(request as ScsiRequest, residual);
        const error = new VirtioDeviceError(
          `${request.name}: the device left ${residual} bytes, of ${request.length} that there were`,
        );
        setup.host.fail(error);
        return error;
      },
    });
  }
}

/** NOT_WRITTEN for what no device that was sound would answer. */
function statusOf(response: Buffer, usedLength: number, expected: number): number {
  const code = response[Response.RESPONSE]!;
  if (code === UNWRITTEN || usedLength < RESPONSE_BYTES) return NOT_WRITTEN;
  if (code !== 0) return RESPONSE_STATUS + code;
  const status = response[Response.STATUS]!;
  if (status === ScsiStatus.CHECK_CONDITION) {
    if (response.readUInt32LE(Response.SENSE_LENGTH) > response.length - RESPONSE_BYTES) return NOT_WRITTEN;
    const sense = decodeSense(senseOf(response));
    if (sense?.key !== SenseKey.RECOVERED_ERROR || sense.isDeferred) return status;
    // The unit has had trouble, and carried it out all the same.
  } else if (status !== ScsiStatus.GOOD) return status;
  // Data that the residual does not say is missing has to be there. (A residual that is too large is looked at later.)
  const missing = response.readUInt32LE(Response.RESIDUAL);
  const isShort = expected > 0 && missing <= expected && usedLength < response.length + expected - missing;
  if (isShort) return NOT_WRITTEN;
  return ScsiStatus.GOOD;
}

function noteResidual(request: ScsiRequest, residual: number): Error | undefined {
  request.residual = residual;
  if (residual === 0 || !request.isWhole) return undefined;
  return new ProtocolError(
    `${request.name}: ${residual} of ${request.length} bytes were not transferred, and the unit says that all is well`,
  );
}

function senseOf(response: Buffer): Buffer {
  return response.subarray(RESPONSE_BYTES, RESPONSE_BYTES + response.readUInt32LE(Response.SENSE_LENGTH));
}

function errorOf(name: string, status: number, response: Buffer): Error {
  if (status >= RESPONSE_STATUS) {
    const code = status - RESPONSE_STATUS;
    return new VirtioStatusError(name, code, scsiResponseName(code));
  }
  const hasSense = status === ScsiStatus.CHECK_CONDITION;
  return new ScsiError(name, status, hasSense ? senseOf(response) : Buffer.alloc(0));
}
