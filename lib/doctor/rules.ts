/** The rules that are looked at: what each demands, and where the specification says so. */

const HEADER = 'Protocol Specification, Header';
const VERSION = 'VFIO_USER_VERSION';
const SIZES = 'Message sizes';
const CONCURRENCY = 'Command Concurrency';
const SECURITY = 'Security Considerations';
const DISCONNECT = 'Client Disconnection';
const REGION_INFO = 'VFIO_USER_DEVICE_GET_REGION_INFO';
const IRQ_INFO = 'VFIO_USER_DEVICE_GET_IRQ_INFO';
const SET_IRQS = 'VFIO_USER_DEVICE_SET_IRQS';
const READ = 'VFIO_USER_REGION_READ';
const WRITE = 'VFIO_USER_REGION_WRITE';
const READ_WRITE = 'Read and Write Operations';
const DMA_MAP = 'VFIO_USER_DMA_MAP';
const DMA_UNMAP = 'VFIO_USER_DMA_UNMAP';
const FEATURE = 'VFIO_USER_DEVICE_FEATURE';
const SOCKET = 'Socket';

export interface Rule {
  /** One sentence. */
  readonly text: string;
  /** The heading in the specification's text. */
  readonly section: string;
}

/** In the order of the report. */
export const RULES = {
  'version.major': rule(VERSION, 'The major version in the reply is the one that was proposed.'),
  'version.minor': rule(VERSION, 'The minor version in the reply is at most the one that was proposed.'),
  'version.subset': rule(VERSION, 'The capabilities in the reply are a subset of those proposed.'),
  'version.json': rule(
    VERSION,
    'The version data is a JSON object whose capabilities have the types of the table.',
  ),
  'version.nul': rule(VERSION, 'The version data ends in NUL.'),
  'version.twin-socket': rule(
    VERSION,
    'twin_socket is answered where it was asked for, with the index of an fd of the reply.',
  ),
  'version.unknown-capability': rule(VERSION, 'A capability that the server does not know is ignored.'),
  'version.optional-data': rule(VERSION, 'The version data is optional in a request.'),
  'version.bad-major': rule(
    'Connection Initiation',
    'A major version that the server does not support is refused, or the connection is closed.',
  ),
  'version.first': rule(VERSION, 'A command before VERSION is not carried out.'),
  'version.once': rule(VERSION, 'A second VERSION does not disturb the session.'),
  'header.id': rule(HEADER, 'A reply has the message id of its command.'),
  'header.command': rule(HEADER, 'A reply has the command number of its command.'),
  'header.type': rule(HEADER, 'A reply has type 1, and no undefined bits in its flags.'),
  'header.id-reuse': rule(HEADER, 'Two commands with one id at the same time are both answered.'),
  'header.no-reply': rule(HEADER, 'A command with No_reply gets no reply.'),
  'header.no-reply-error': rule(HEADER, 'A command with No_reply that fails gets no reply.'),
  'error.bare-header': rule(HEADER, 'An error reply is the header alone.'),
  'error.errno': rule(HEADER, 'The errno of an error reply is 0 or a UNIX errno.'),
  'order.pipelined': rule(CONCURRENCY, 'Pipelined commands are all answered, in their order.'),
  'stream.glued': rule(SOCKET, 'Two messages that arrive in one piece are two messages.'),
  'stream.split-header': rule(SOCKET, 'A message whose header arrives in two pieces is one message.'),
  'stream.split-body': rule(SOCKET, 'A message whose body arrives in two pieces is one message.'),
  'size.short': rule(
    SIZES,
    'A payload shorter than its structure is refused, and the next command is understood.',
  ),
  'size.long': rule(SIZES, 'Bytes after the structure do not put the server out of sync.'),
  'size.argsz-small': rule(
    SIZES,
    'An argsz below the fixed structure is refused, or answered with the size needed.',
  ),
  'size.argsz-cut': rule(
    SIZES,
    'A reply truncated to argsz has the size needed in its argsz, and does not claim what it left out.',
  ),
  'info.reply': rule(
    'VFIO_USER_DEVICE_GET_INFO',
    'The reply has the 16 bytes of the structure, and an argsz of at least that.',
  ),
  'info.pci-regions': rule(
    'Device-Specific Regions',
    'A PCI device has the 9 regions of VFIO_PCI_NUM_REGIONS, or more.',
  ),
  'region.info': rule(REGION_INFO, 'Every region is described, by its own index, in a valid structure.'),
  'region.mmap-fd': rule(REGION_INFO, 'A region with the MMAP flag has a file descriptor.'),
  'region.out-of-range': rule(REGION_INFO, 'An index past the last region is an error.'),
  'irq.info': rule(IRQ_INFO, 'Every interrupt type is described, by its own index, in a valid structure.'),
  'irq.counts': rule(IRQ_INFO, 'The count of MSI and MSI-X is what config space says.'),
  'irq.out-of-range': rule(IRQ_INFO, 'An index past the last interrupt type is an error.'),
  'config.sound': rule(
    'PCI Local Bus Specification 3.0, 6.1',
    'Header and capability lists of config space are valid.',
  ),
  'read.echo': rule(READ, 'The reply repeats offset, region and count, and has count bytes of data.'),
  'read.config-bytes': rule(READ, 'Config space can be read in 1, 2 and 4 bytes.'),
  'read.config-whole': rule(READ, 'Config space can be read whole.'),
  'read.past-end': rule(READ, 'A read that ends past its region is an error.'),
  'read.no-region': rule(READ, 'A read of a region that does not exist is an error.'),
  'read.zero': rule(READ, 'A read of no bytes is an error, or answered with the structure and no data.'),
  'read.too-much': rule(READ_WRITE, 'A count above max_data_xfer_size is refused.'),
  'command.unknown': rule(
    'Commands',
    'An unknown command is answered with an error, and the next command is understood.',
  ),
  'command.unknown-body': rule('Commands', 'The body of an unknown command is read from the stream.'),
  'command.io-fds': rule(
    'VFIO_USER_DEVICE_GET_REGION_IO_FDS',
    'The command is answered, and the next one is understood.',
  ),
  'command.dirty-pages': rule(
    'Commands',
    'The withdrawn DIRTY_PAGES is answered, and the next command is understood.',
  ),
  'command.write-multi': rule(
    'VFIO_USER_REGION_WRITE_MULTI',
    'The command is answered, and the next one is understood.',
  ),
  'command.feature': rule(FEATURE, 'The command is answered, and the next one is understood.'),
  'command.mig-data-read': rule(
    'VFIO_USER_MIG_DATA_READ',
    'The command is answered, and the next one is understood.',
  ),
  'feature.probe': rule(FEATURE, 'The reply to a probe repeats the request.'),
  'io-fds.reply': rule(
    'VFIO_USER_DEVICE_GET_REGION_IO_FDS',
    'The reply is valid: argsz, index, and sub-regions whose fds are in the reply.',
  ),
  'robust.bad-major': rule(SECURITY, 'The server survives a major version that it does not support.'),
  'robust.no-version-data': rule(SECURITY, 'The server survives a VERSION without version data.'),
  'robust.bad-json': rule(SECURITY, 'The server survives version data that is not JSON.'),
  'robust.many-fds': rule(SECURITY, 'The server survives a max_msg_fds of 2,000.'),
  'robust.no-version': rule(SECURITY, 'The server survives a client that does not begin with VERSION.'),
  'robust.version-twice': rule(SECURITY, 'The server survives a second VERSION.'),
  'robust.stray-reply': rule(SECURITY, 'The server survives a reply that it did not wait for.'),
  'robust.bad-type': rule(SECURITY, 'The server survives a message that is neither command nor reply.'),
  'robust.undersized': rule(SECURITY, 'The server survives a header with a size below 16 bytes.'),
  'robust.oversized': rule(SECURITY, 'The server survives a header with a size of 4 GiB.'),
  'robust.eof-in-header': rule(
    DISCONNECT,
    'The server survives a client that disconnects in the middle of a header.',
  ),
  'robust.eof-in-body': rule(
    DISCONNECT,
    'The server survives a client that disconnects in the middle of a body.',
  ),
  'robust.connect-close': rule(DISCONNECT, 'The server survives a client that connects and disconnects.'),
  'robust.second-client': rule(DISCONNECT, 'The server survives a second client while it serves the first.'),
  'robust.config-odd': rule(SECURITY, 'The server survives a config read of 3 bytes.'),
  'robust.huge-count': rule(SECURITY, 'The server survives a read of 4 GiB.'),
  'write.echo': rule(WRITE, 'The reply repeats offset, region and count, and has no data.'),
  'write.past-end': rule(WRITE, 'A write that ends past its region is an error.'),
  'write.large': rule(READ_WRITE, 'A write of max_data_xfer_size arrives as one message.'),
  'reset.reply': rule(
    'VFIO_USER_DEVICE_RESET',
    'A device with the RESET flag is reset, and the reply has no payload.',
  ),
  'dma.map': rule(DMA_MAP, 'Memory is mapped with its fd, and the reply has no payload.'),
  'dma.map-no-fd': rule(DMA_MAP, 'Memory is mapped without an fd, for DMA_READ and DMA_WRITE.'),
  'dma.overlap': rule(DMA_MAP, 'A map over part of an existing region fails with EEXIST.'),
  'dma.identical': rule(DMA_MAP, 'The same map again fails with EEXIST.'),
  'dma.unmap': rule(DMA_UNMAP, 'The reply to an unmap repeats the entry of the request.'),
  'dma.unmap-unknown': rule(DMA_UNMAP, 'An unmap of a range that was never mapped is an error.'),
  'dma.unmap-partial': rule(DMA_UNMAP, 'An unmap of part of a mapping is an error.'),
  'irqs.eventfd': rule(SET_IRQS, 'Eventfds can be assigned, and the reply has no payload.'),
  'irqs.trigger': rule(SET_IRQS, 'A trigger by the client signals the eventfd.'),
  'irqs.deassign': rule(SET_IRQS, 'Eventfds can be de-assigned by a command without fds.'),
  'irqs.disable': rule(SET_IRQS, 'A count of 0 with DATA_NONE disables all interrupts of the index.'),
  'irqs.separate': rule(SET_IRQS, 'Each interrupt type has eventfds of its own.'),
  'irqs.mask-flag': rule(IRQ_INFO, 'MASK is refused for an index without the MASKABLE flag.'),
  'irqs.past-end': rule(SET_IRQS, 'An interrupt past the count of its index is an error.'),
} as const satisfies Record<string, Rule>;

/** The name of a rule, `version.minor`. */
export type RuleId = keyof typeof RULES;

export const RULE_IDS = Object.keys(RULES) as RuleId[];

function rule(section: string, text: string): Rule {
  return { text, section };
}
