-- A Wireshark dissector for the vfio-user protocol, as captures of the vfio-user library and proxy carry it.
--
--   tshark -X lua_script:vfio-user.lua -r device.pcapng
--
-- Put it into Wireshark's plugin folder to have it at hand ("About Wireshark", "Folders", "Personal Lua Plugins").
-- Names are those of the specification; every field can be filtered for: vfio_user.region_access.offset == 0x1c.
--
-- Where to start reading: `dissect` at the end takes a message apart, `requests` and `replies` have a function for each
-- command's payload, `declare` says what a structure is made of.

local proto = Proto("vfio_user", "vfio-user protocol")

local HEADER_SIZE = 16
local TYPE_REPLY = 1
local DIRECTION_INBOUND = 1

-- Names ---------------------------------------------------------------------------------------------------------------

local COMMANDS = {
  [1] = "VERSION",
  [2] = "DMA_MAP",
  [3] = "DMA_UNMAP",
  [4] = "DEVICE_GET_INFO",
  [5] = "DEVICE_GET_REGION_INFO",
  [6] = "DEVICE_GET_REGION_IO_FDS",
  [7] = "DEVICE_GET_IRQ_INFO",
  [8] = "DEVICE_SET_IRQS",
  [9] = "REGION_READ",
  [10] = "REGION_WRITE",
  [11] = "DMA_READ",
  [12] = "DMA_WRITE",
  [13] = "DEVICE_RESET",
  [14] = "DIRTY_PAGES",
  [15] = "REGION_WRITE_MULTI",
  [16] = "DEVICE_FEATURE",
  [17] = "MIG_DATA_READ",
  [18] = "MIG_DATA_WRITE",
}

local TYPES = { [0] = "command", [1] = "reply" }

local PCI_REGIONS = {
  [0] = "PCI BAR0", [1] = "PCI BAR1", [2] = "PCI BAR2", [3] = "PCI BAR3", [4] = "PCI BAR4", [5] = "PCI BAR5",
  [6] = "PCI ROM", [7] = "PCI config space", [8] = "PCI VGA", [9] = "migration of old servers",
}

local PCI_IRQS = { [0] = "PCI INTx", [1] = "PCI MSI", [2] = "PCI MSI-X", [3] = "PCI ERR", [4] = "PCI REQ" }

local REGION_CAPABILITIES = {
  [1] = "SPARSE_MMAP",
  [2] = "TYPE",
  [3] = "MSIX_MAPPABLE",
  [16] = "SPARSE_MMAP_FDS (first code)",
  [0x8001] = "SPARSE_MMAP_FDS",
}

local IO_FD_TYPES = { [0] = "IOEVENTFD", [1] = "IOREGIONFD", [2] = "IOEVENTFD_SHADOW" }

local FEATURES = {
  [1] = "MIGRATION",
  [2] = "MIG_DEVICE_STATE",
  [6] = "DMA_LOGGING_START",
  [7] = "DMA_LOGGING_STOP",
  [8] = "DMA_LOGGING_REPORT",
}

local MIGRATION_STATES = {
  [0] = "ERROR", [1] = "STOP", [2] = "RUNNING", [3] = "STOP_COPY",
  [4] = "RESUMING", [5] = "RUNNING_P2P", [6] = "PRE_COPY", [7] = "PRE_COPY_P2P",
}

-- Linux's numbers: the protocol is spoken on one machine. EDEADLOCK, EWOULDBLOCK and EOPNOTSUPP are others' doubles.
local ERRNOS = {
  [0] = "none", [1] = "EPERM", [2] = "ENOENT", [3] = "ESRCH", [4] = "EINTR", [5] = "EIO", [6] = "ENXIO", [7] = "E2BIG",
  [8] = "ENOEXEC", [9] = "EBADF", [10] = "ECHILD", [11] = "EAGAIN", [12] = "ENOMEM", [13] = "EACCES",
  [14] = "EFAULT", [15] = "ENOTBLK", [16] = "EBUSY", [17] = "EEXIST", [18] = "EXDEV", [19] = "ENODEV",
  [20] = "ENOTDIR", [21] = "EISDIR", [22] = "EINVAL", [23] = "ENFILE", [24] = "EMFILE", [25] = "ENOTTY",
  [26] = "ETXTBSY", [27] = "EFBIG", [28] = "ENOSPC", [29] = "ESPIPE", [30] = "EROFS", [31] = "EMLINK",
  [32] = "EPIPE", [33] = "EDOM", [34] = "ERANGE", [35] = "EDEADLK", [36] = "ENAMETOOLONG", [37] = "ENOLCK",
  [38] = "ENOSYS", [39] = "ENOTEMPTY", [40] = "ELOOP", [42] = "ENOMSG", [43] = "EIDRM", [44] = "ECHRNG",
  [45] = "EL2NSYNC", [46] = "EL3HLT", [47] = "EL3RST", [48] = "ELNRNG", [49] = "EUNATCH", [50] = "ENOCSI",
  [51] = "EL2HLT", [52] = "EBADE", [53] = "EBADR", [54] = "EXFULL", [55] = "ENOANO", [56] = "EBADRQC",
  [57] = "EBADSLT", [59] = "EBFONT", [60] = "ENOSTR", [61] = "ENODATA", [62] = "ETIME", [63] = "ENOSR",
  [64] = "ENONET", [65] = "ENOPKG", [66] = "EREMOTE", [67] = "ENOLINK", [68] = "EADV", [69] = "ESRMNT",
  [70] = "ECOMM", [71] = "EPROTO", [72] = "EMULTIHOP", [73] = "EDOTDOT", [74] = "EBADMSG", [75] = "EOVERFLOW",
  [76] = "ENOTUNIQ", [77] = "EBADFD", [78] = "EREMCHG", [79] = "ELIBACC", [80] = "ELIBBAD", [81] = "ELIBSCN",
  [82] = "ELIBMAX", [83] = "ELIBEXEC", [84] = "EILSEQ", [85] = "ERESTART", [86] = "ESTRPIPE", [87] = "EUSERS",
  [88] = "ENOTSOCK", [89] = "EDESTADDRREQ", [90] = "EMSGSIZE", [91] = "EPROTOTYPE", [92] = "ENOPROTOOPT",
  [93] = "EPROTONOSUPPORT", [94] = "ESOCKTNOSUPPORT", [95] = "ENOTSUP", [96] = "EPFNOSUPPORT",
  [97] = "EAFNOSUPPORT", [98] = "EADDRINUSE", [99] = "EADDRNOTAVAIL", [100] = "ENETDOWN", [101] = "ENETUNREACH",
  [102] = "ENETRESET", [103] = "ECONNABORTED", [104] = "ECONNRESET", [105] = "ENOBUFS", [106] = "EISCONN",
  [107] = "ENOTCONN", [108] = "ESHUTDOWN", [109] = "ETOOMANYREFS", [110] = "ETIMEDOUT", [111] = "ECONNREFUSED",
  [112] = "EHOSTDOWN", [113] = "EHOSTUNREACH", [114] = "EALREADY", [115] = "EINPROGRESS", [116] = "ESTALE",
  [117] = "EUCLEAN", [118] = "ENOTNAM", [119] = "ENAVAIL", [120] = "EISNAM", [121] = "EREMOTEIO",
  [122] = "EDQUOT", [123] = "ENOMEDIUM", [124] = "EMEDIUMTYPE", [125] = "ECANCELED", [126] = "ENOKEY",
  [127] = "EKEYEXPIRED", [128] = "EKEYREVOKED", [129] = "EKEYREJECTED", [130] = "EOWNERDEAD",
  [131] = "ENOTRECOVERABLE", [132] = "ERFKILL", [133] = "EHWPOISON", [524] = "ENOTSUPP",
}

-- What structures are made of -----------------------------------------------------------------------------------------

local fields = {}

local function add_field(abbreviation, field)
  fields[#fields + 1] = field
  return { field = field, name = abbreviation:match("[^.]+$") }
end

-- Describes a structure. A member is { offset, size, name, what = ... }, little-endian:
--   dec      shown in decimal (else hexadecimal)
--   names    names of values
--   flags    { { mask, name }, ... }, shown below the member by their names
local function declare(prefix, members)
  local structure = {}
  for _, member in ipairs(members) do
    local offset, size, name = member[1], member[2], member[3]
    local abbreviation = "vfio_user." .. prefix .. name
    local display = member.dec and base.DEC or base.HEX
    local constructor = ({ [2] = ProtoField.uint16, [4] = ProtoField.uint32, [8] = ProtoField.uint64 })[size]
    local entry = add_field(abbreviation, constructor(abbreviation, name, display, member.names))
    entry.offset, entry.size, entry.dec, entry.names = offset, size, member.dec, member.names
    entry.quiet = member.quiet
    if member.flags then
      entry.flags = {}
      for i, flag in ipairs(member.flags) do
        local flag_name = abbreviation .. "." .. flag[2]:lower()
        -- The names stand for single bits of the lowest 32.
        entry.flags[i] = add_field(flag_name, ProtoField.bool(flag_name, flag[2], 32, nil, flag[1]))
        entry.flags[i].mask, entry.flags[i].label = flag[1], flag[2]
      end
    end
    structure[#structure + 1] = entry
  end
  return structure
end

local ARGSZ = { 0, 4, "argsz", dec = true }

local S = {
  version = declare("version.", { { 0, 2, "major", dec = true }, { 2, 2, "minor", dec = true } }),
  dma_map = declare("dma_map.", {
    ARGSZ,
    { 4, 4, "flags", flags = { { 1, "READ" }, { 2, "WRITE" }, { 4, "MMAP" }, { 8, "FILE_IO" } } },
    { 8, 8, "offset" },
    { 16, 8, "address" },
    { 24, 8, "size" },
  }),
  dma_unmap = declare("dma_unmap.", {
    ARGSZ,
    { 4, 4, "flags", flags = { { 1, "GET_DIRTY_BITMAP" }, { 2, "ALL" } } },
    { 8, 8, "address" },
    { 16, 8, "size" },
  }),
  dma_unmap_bitmap = declare("dma_unmap.bitmap.", { { 0, 8, "pgsize" }, { 8, 8, "size" } }),
  device_info = declare("device_info.", {
    ARGSZ,
    {
      4, 4, "flags",
      flags = {
        { 1, "RESET" }, { 2, "PCI" }, { 4, "PLATFORM" }, { 8, "AMBA" }, { 0x10, "CCW" }, { 0x20, "AP" },
        { 0x40, "FSL_MC" }, { 0x80, "CAPS" }, { 0x100, "CDX" },
      },
    },
    { 8, 4, "num_regions", dec = true },
    { 12, 4, "num_irqs", dec = true },
  }),
  region_info = declare("region_info.", {
    ARGSZ,
    { 4, 4, "flags", flags = { { 1, "READ" }, { 2, "WRITE" }, { 4, "MMAP" }, { 8, "CAPS" } } },
    { 8, 4, "index", dec = true, names = PCI_REGIONS },
    { 12, 4, "cap_offset", dec = true },
    { 16, 8, "size" },
    { 24, 8, "offset" },
  }),
  capability = declare("region_info.capability.", {
    { 0, 2, "id", names = REGION_CAPABILITIES },
    { 2, 2, "version", dec = true },
    { 4, 4, "next", dec = true },
  }),
  sparse_mmap = declare("region_info.sparse_mmap.", { { 8, 4, "nr_areas", dec = true } }),
  sparse_mmap_area = declare("region_info.sparse_mmap.", { { 0, 8, "offset" }, { 8, 8, "size" } }),
  region_type = declare("region_info.type.", { { 8, 4, "type" }, { 12, 4, "subtype" } }),
  sparse_mmap_fds = declare("region_info.sparse_mmap_fds.", { { 8, 4, "nr_areas", dec = true } }),
  sparse_mmap_fds_area = declare("region_info.sparse_mmap_fds.", {
    { 0, 8, "offset" },
    { 8, 8, "fd_offset" },
    { 16, 8, "size" },
    { 24, 4, "fd_index", dec = true },
  }),
  region_io_fds = declare("region_io_fds.", {
    ARGSZ,
    { 4, 4, "flags" },
    { 8, 4, "index", dec = true, names = PCI_REGIONS },
    { 12, 4, "count", dec = true },
  }),
  sub_region = declare("region_io_fds.sub_regions.", {
    { 0, 8, "offset" },
    { 8, 8, "size" },
    { 16, 4, "fd_index", dec = true },
    { 20, 4, "type", dec = true, names = IO_FD_TYPES },
  }),
  ioeventfd_flags = declare("region_io_fds.sub_regions.", {
    {
      24, 4, "flags",
      flags = { { 1, "DATAMATCH" }, { 2, "PIO" }, { 4, "DEASSIGN" }, { 8, "VIRTIO_CCW_NOTIFY" } },
    },
  }),
  ioregionfd_flags = declare("region_io_fds.sub_regions.", {
    { 24, 4, "flags", flags = { { 1, "PIO" }, { 2, "POSTED_WRITES" } } },
  }),
  datamatch_short = declare("region_io_fds.sub_regions.", { { 32, 8, "datamatch" } }),
  datamatch = declare("region_io_fds.sub_regions.", { { 40, 8, "datamatch" } }),
  user_data = declare("region_io_fds.sub_regions.", { { 32, 8, "user_data" } }),
  shadow = declare("region_io_fds.sub_regions.", {
    { 28, 4, "shadow_mem_fd_index", dec = true },
    { 32, 8, "shadow_offset" },
  }),
  irq_info = declare("irq_info.", {
    ARGSZ,
    { 4, 4, "flags", flags = { { 1, "EVENTFD" }, { 2, "MASKABLE" }, { 4, "AUTOMASKED" }, { 8, "NORESIZE" } } },
    { 8, 4, "index", dec = true, names = PCI_IRQS },
    { 12, 4, "count", dec = true },
  }),
  set_irqs = declare("set_irqs.", {
    ARGSZ,
    {
      4, 4, "flags",
      flags = {
        { 1, "DATA_NONE" }, { 2, "DATA_BOOL" }, { 4, "DATA_EVENTFD" },
        { 8, "ACTION_MASK" }, { 0x10, "ACTION_UNMASK" }, { 0x20, "ACTION_TRIGGER" },
      },
    },
    { 8, 4, "index", dec = true, names = PCI_IRQS },
    { 12, 4, "start", dec = true },
    { 16, 4, "count", dec = true },
  }),
  region_access = declare("region_access.", {
    { 0, 8, "offset" },
    { 8, 4, "region", dec = true, names = PCI_REGIONS },
    { 12, 4, "count", dec = true },
  }),
  dma_access = declare("dma_access.", { { 0, 8, "address" }, { 8, 8, "count", dec = true } }),
  dirty_pages = declare("dirty_pages.", {
    ARGSZ,
    { 4, 4, "flags", flags = { { 1, "START" }, { 2, "STOP" }, { 4, "GET_BITMAP" } } },
  }),
  dirty_pages_range = declare("dirty_pages.", { { 8, 8, "iova" }, { 16, 8, "size" } }),
  dirty_pages_bitmap = declare("dirty_pages.bitmap.", { { 24, 8, "pgsize" }, { 32, 8, "size" } }),
  region_write_multi = declare("region_write_multi.", { { 0, 8, "wr_cnt", dec = true } }),
  wr = declare("region_write_multi.wrs.", {
    { 0, 8, "offset" },
    { 8, 4, "region", dec = true, names = PCI_REGIONS },
    { 12, 4, "count", dec = true },
  }),
  device_feature = declare("device_feature.", {
    ARGSZ,
    { 4, 2, "feature", dec = true, names = FEATURES },
    { 4, 4, "flags", flags = { { 0x10000, "GET" }, { 0x20000, "SET" }, { 0x40000, "PROBE" } } },
  }),
  migration = declare("device_feature.migration.", {
    { 0, 8, "flags", flags = { { 1, "STOP_COPY" }, { 2, "P2P" }, { 4, "PRE_COPY" } } },
  }),
  mig_device_state = declare("device_feature.mig_device_state.", {
    { 0, 4, "device_state", dec = true, names = MIGRATION_STATES },
    { 4, 4, "data_fd", dec = true, quiet = true },
  }),
  dma_logging = declare("device_feature.dma_logging.", {
    { 0, 8, "page_size" },
    { 8, 4, "num_ranges", dec = true },
  }),
  dma_logging_range = declare("device_feature.dma_logging.ranges.", { { 0, 8, "iova" }, { 8, 8, "length" } }),
  dma_logging_report = declare("device_feature.dma_logging_report.", {
    { 0, 8, "iova" },
    { 8, 8, "length" },
    { 16, 8, "page_size" },
  }),
  mig_data = declare("mig_data.", { ARGSZ, { 4, 4, "size", dec = true } }),
}

local F = {
  id = ProtoField.uint16("vfio_user.id", "Message ID", base.DEC),
  command = ProtoField.uint16("vfio_user.command", "Command", base.DEC, COMMANDS),
  size = ProtoField.uint32("vfio_user.size", "Message size", base.DEC),
  flags = ProtoField.uint32("vfio_user.flags", "Flags", base.HEX),
  flags_type = ProtoField.uint32("vfio_user.flags.type", "Type", base.DEC, TYPES, 0xf),
  flags_no_reply = ProtoField.bool("vfio_user.flags.no_reply", "No_reply", 32, nil, 0x10),
  flags_error = ProtoField.bool("vfio_user.flags.error", "Error", 32, nil, 0x20),
  errno = ProtoField.uint32("vfio_user.errno", "Error", base.DEC, ERRNOS),
  version_data = ProtoField.string("vfio_user.version.version_data", "version_data"),
  wr_data = ProtoField.bytes("vfio_user.region_write_multi.wrs.data", "data"),
  data = ProtoField.bytes("vfio_user.data", "Data"),
  data_length = ProtoField.uint32("vfio_user.data_length", "Bytes of data", base.DEC),
  fds = ProtoField.string("vfio_user.fds", "File descriptors"),
  fd_count = ProtoField.uint32("vfio_user.fd_count", "Number of file descriptors", base.DEC),
  request_in = ProtoField.framenum("vfio_user.request_in", "Request in", base.NONE, frametype.REQUEST),
  response_in = ProtoField.framenum("vfio_user.response_in", "Response in", base.NONE, frametype.RESPONSE),
  time = ProtoField.relative_time("vfio_user.time", "Response time"),
}
for _, field in pairs(F) do
  fields[#fields + 1] = field
end
proto.fields = fields

local E = {
  malformed = ProtoExpert.new(
    "vfio_user.malformed", "Malformed message", expert.group.MALFORMED, expert.severity.ERROR),
  error = ProtoExpert.new("vfio_user.error", "Error reply", expert.group.RESPONSE_CODE, expert.severity.NOTE),
  cut = ProtoExpert.new(
    "vfio_user.cut", "Message not captured whole", expert.group.UNDECODED, expert.severity.NOTE),
}
proto.experts = { E.malformed, E.error, E.cut }

-- Reading -------------------------------------------------------------------------------------------------------------

-- What is wrong with a message is thrown as { malformed = reason } and caught in `dissect`.
local function malformed(reason)
  error({ malformed = reason }, 0)
end

local function at_least(tvb, size, what)
  if tvb:len() < size then
    malformed(string.format("the payload is %d bytes, %s takes %d", tvb:len(), what, size))
  end
end

local function exactly(tvb, size, what)
  if tvb:len() ~= size then
    malformed(string.format("the payload is %d bytes, %s is exactly %d", tvb:len(), what, size))
  end
end

local function u16(tvb, at)
  return tvb(at, 2):le_uint()
end

local function u32(tvb, at)
  return tvb(at, 4):le_uint()
end

-- A 64-bit size as a number: more than 2^53 bytes are nowhere.
local function u64(tvb, at)
  local value = tvb(at, 8):le_uint64()
  if value:higher() > 0x1fffff then
    malformed("a size of 0x" .. value:tohex() .. " is above 2^53-1")
  end
  return value:tonumber()
end

local function hex64(range)
  local digits = range:le_uint64():tohex():lower():gsub("^0+", "")
  return digits == "" and "0x0" or "0x" .. digits
end

-- A value as the Info column shows it.
local function shown(entry, range)
  if entry.flags then
    local value, names = range(0, math.min(entry.size, 4)):le_uint(), {}
    for _, flag in ipairs(entry.flags) do
      if bit32.band(value, flag.mask) ~= 0 then
        names[#names + 1] = flag.label
      end
    end
    return #names == 0 and "0" or table.concat(names, "|")
  end
  if entry.size == 8 then
    return entry.dec and tostring(range:le_uint64()) or hex64(range)
  end
  local value = range:le_uint()
  if entry.names and entry.names[value] and not entry.names[value]:find(" ") then
    return entry.names[value]
  end
  return entry.dec and tostring(value) or string.format("0x%x", value)
end

-- Adds a structure's members, which the caller knows to be there. Returns their words for the Info column.
local function add(tree, structure, tvb, at)
  local words = {}
  for _, entry in ipairs(structure) do
    local range = tvb(at + entry.offset, entry.size)
    local item = tree:add_le(entry.field, range)
    if entry.flags then
      local bits = tvb(at + entry.offset, 4)
      for _, flag in ipairs(entry.flags) do
        item:add_le(flag.field, bits)
      end
    end
    if not entry.quiet then
      words[#words + 1] = entry.name .. "=" .. shown(entry, range)
    end
  end
  return table.concat(words, " ")
end

local PREVIEW = 32

local function add_data(tree, range)
  if range:len() == 0 then
    return ""
  end
  tree:add(F.data, range)
  tree:add(F.data_length, range(0, 0), range:len()):set_generated()
  local cut = range:len() > PREVIEW
  local bytes = tostring(range(0, cut and PREVIEW or range:len()):bytes()):lower()
  return " data=" .. bytes .. (cut and string.format("... (%d bytes)", range:len()) or "")
end

-- What lies behind `at`, if anything.
local function add_rest(tree, tvb, at)
  if tvb:len() <= at then
    return ""
  end
  return add_data(tree, tvb(at))
end

-- Payloads: each function adds what the payload says to `tree` and returns words for the Info column -----------------

local requests, replies = {}, {}

local json = Dissector.get("json")

local function version(tvb, tree, pinfo)
  at_least(tvb, 4, "the version structure")
  local info = add(tree, S.version, tvb, 0)
  if tvb:len() == 4 then
    return info
  end
  local length = tvb:len() - 4
  if tvb(tvb:len() - 1, 1):uint() == 0 then
    length = length - 1
  end
  if length == 0 then
    return info
  end
  local text = tvb(4, length)
  tree:add(F.version_data, text)
  if json then
    json:call(text:tvb(), pinfo, tree)
  end
  return info .. " version_data=" .. text:string(ENC_UTF_8)
end
requests[1], replies[1] = version, version

requests[2] = function(tvb, tree)
  exactly(tvb, 32, "the DMA map structure")
  return add(tree, S.dma_map, tvb, 0)
end

local function dma_unmap(tvb, tree)
  at_least(tvb, 24, "the DMA unmap structure")
  local info = add(tree, S.dma_unmap, tvb, 0)
  if tvb:len() == 24 then
    return info
  end
  at_least(tvb, 40, "the DMA unmap structure with a bitmap")
  return info .. " bitmap={" .. add(tree, S.dma_unmap_bitmap, tvb, 24) .. "}"
end
requests[3] = function(tvb, tree)
  local info = dma_unmap(tvb, tree)
  exactly(tvb, bit32.band(u32(tvb, 4), 1) ~= 0 and 40 or 24, "the DMA unmap structure")
  return info
end
replies[3] = function(tvb, tree)
  if tvb:len() == 0 then
    return ""
  end
  local info = dma_unmap(tvb, tree)
  if tvb:len() >= 40 then
    exactly(tvb, 40 + u64(tvb, 32), "the DMA unmap structure with its bitmap")
  end
  return info .. add_rest(tree, tvb, 40)
end

local function device_info(tvb, tree)
  at_least(tvb, 16, "the device info structure")
  return add(tree, S.device_info, tvb, 0)
end
requests[4], replies[4] = device_info, device_info

local function capability_areas(tree, tvb, at, head, area, area_size)
  if at + 16 > tvb:len() then
    malformed("a capability does not fit the payload")
  end
  local words = { add(tree, head, tvb, at) }
  local count = u32(tvb, at + 8)
  if count > (tvb:len() - at - 16) / area_size then
    malformed(string.format("nr_areas is %d, more than the payload has room for", count))
  end
  for i = 0, count - 1 do
    local entry = at + 16 + i * area_size
    local branch = tree:add(tvb(entry, area_size), string.format("Area %d", i))
    words[#words + 1] = "{" .. add(branch, area, tvb, entry) .. "}"
  end
  return table.concat(words, " ")
end

local function region_type(tree, tvb, at)
  if at + 16 > tvb:len() then
    malformed("a capability does not fit the payload")
  end
  return add(tree, S.region_type, tvb, at)
end

local function capability(tree, tvb, at)
  local id = u16(tvb, at)
  local name = REGION_CAPABILITIES[id] or string.format("capability 0x%x", id)
  local branch = tree:add(tvb(at, 8), "Capability: " .. name)
  add(branch, S.capability, tvb, at)
  if id == 1 then
    return name .. "={" .. capability_areas(branch, tvb, at, S.sparse_mmap, S.sparse_mmap_area, 16) .. "}"
  elseif id == 2 then
    return name .. "={" .. region_type(branch, tvb, at) .. "}"
  elseif id == 0x8001 or id == 16 then
    return "SPARSE_MMAP_FDS={"
      .. capability_areas(branch, tvb, at, S.sparse_mmap_fds, S.sparse_mmap_fds_area, 32)
      .. "}"
  end
  return name
end

-- The chain's offsets count from the structure's start; each may occur once.
local function capabilities(tree, tvb, at)
  local words, seen, count = {}, {}, 0
  while at ~= 0 do
    if at < 32 or at % 4 ~= 0 or at + 8 > tvb:len() then
      malformed(string.format("capability offset %d, the payload is %d bytes", at, tvb:len()))
    elseif seen[at] or count == 64 then
      malformed(string.format("the capability chain does not end at offset %d", at))
    end
    seen[at], count = true, count + 1
    words[#words + 1] = capability(tree, tvb, at)
    at = u32(tvb, at + 4)
  end
  return table.concat(words, " ")
end

local function region_info(tvb, tree)
  at_least(tvb, 32, "the region info structure")
  return add(tree, S.region_info, tvb, 0)
end
requests[5] = region_info
replies[5] = function(tvb, tree)
  local info = region_info(tvb, tree)
  local argsz = u32(tvb, 0)
  if argsz < 32 then
    malformed(string.format("argsz is %d, the region info structure takes 32", argsz))
  elseif argsz > tvb:len() then
    return info .. " (cut: ask again with argsz)"
  end
  if bit32.band(u32(tvb, 4), 8) == 0 then
    return info
  end
  return info .. " " .. capabilities(tree, tvb(0, argsz):tvb(), u32(tvb, 12))
end

local function region_io_fds(tvb, tree)
  at_least(tvb, 16, "the region IO FD structure")
  return add(tree, S.region_io_fds, tvb, 0)
end
requests[6] = region_io_fds

local function sub_region(tree, tvb, at, stride)
  local kind = u32(tvb, at + 20)
  local words = { add(tree, S.sub_region, tvb, at) }
  if kind == 0 then
    words[2] = add(tree, S.ioeventfd_flags, tvb, at)
    words[3] = add(tree, stride < 48 and S.datamatch_short or S.datamatch, tvb, at)
  elseif kind == 1 then
    words[2] = add(tree, S.ioregionfd_flags, tvb, at)
    words[3] = add(tree, S.user_data, tvb, at)
  elseif kind == 2 and stride >= 48 then
    words[2] = add(tree, S.ioeventfd_flags, tvb, at)
    words[3] = add(tree, S.shadow, tvb, at)
    words[4] = add(tree, S.datamatch, tvb, at)
  else
    malformed(string.format("sub-region of type %d and %d bytes", kind, stride))
  end
  return table.concat(words, " ")
end

-- Entries have the size that argsz and count give them: 40 bytes by the text, 48 from libvfio-user.
replies[6] = function(tvb, tree)
  local info = region_io_fds(tvb, tree)
  local argsz, count = u32(tvb, 0), u32(tvb, 12)
  if count == 0 then
    return info
  end
  local stride = (argsz - 16) / count
  if stride < 40 or stride % 1 ~= 0 then
    malformed(string.format("argsz %d and count %d give no whole entries", argsz, count))
  elseif argsz > tvb:len() then
    return info .. " (cut: ask again with argsz)"
  end
  local words = { info }
  for i = 0, count - 1 do
    local at = 16 + i * stride
    local branch = tree:add(tvb(at, stride), string.format("Sub-region %d", i))
    words[#words + 1] = "{" .. sub_region(branch, tvb, at, stride) .. "}"
  end
  return table.concat(words, " ")
end

local function irq_info(tvb, tree)
  at_least(tvb, 16, "the IRQ info structure")
  return add(tree, S.irq_info, tvb, 0)
end
requests[7], replies[7] = irq_info, irq_info

requests[8] = function(tvb, tree)
  at_least(tvb, 20, "the IRQ set structure")
  local info = add(tree, S.set_irqs, tvb, 0)
  local due = bit32.band(u32(tvb, 4), 2) ~= 0 and u32(tvb, 16) or 0
  exactly(tvb, 20 + due, "the IRQ set structure with its data")
  return info .. add_rest(tree, tvb, 20)
end

-- A structure of 16 bytes, then `count` bytes of data where the message brings them.
local function access(structure, count_of, with_data)
  return function(tvb, tree)
    at_least(tvb, 16, "the access structure")
    local info = add(tree, structure, tvb, 0)
    exactly(tvb, 16 + (with_data and count_of(tvb) or 0), "the access with its data")
    return info .. add_rest(tree, tvb, 16)
  end
end

local function region_count(tvb)
  return u32(tvb, 12)
end

local function dma_count(tvb)
  return u64(tvb, 8)
end

requests[9] = access(S.region_access, region_count, false)
replies[9] = access(S.region_access, region_count, true)
requests[10] = access(S.region_access, region_count, true)
replies[10] = access(S.region_access, region_count, false)
requests[11] = access(S.dma_access, dma_count, false)
replies[11] = access(S.dma_access, dma_count, true)
requests[12] = access(S.dma_access, dma_count, true)
replies[12] = access(S.dma_access, dma_count, false)

local function dirty_pages(tvb, tree)
  at_least(tvb, 8, "the dirty pages structure")
  local info = add(tree, S.dirty_pages, tvb, 0)
  -- A reply whose bitmap did not fit is cut, and says in argsz what it would take.
  if bit32.band(u32(tvb, 4), 4) == 0 or tvb:len() == 8 then
    return info
  end
  at_least(tvb, 40, "the bitmap range")
  info = info .. " " .. add(tree, S.dirty_pages_range, tvb, 0)
  return info .. " bitmap={" .. add(tree, S.dirty_pages_bitmap, tvb, 0) .. "}"
end
requests[14] = dirty_pages
replies[14] = function(tvb, tree)
  if tvb:len() == 0 then
    return ""
  end
  local info = dirty_pages(tvb, tree)
  if tvb:len() >= 40 and u32(tvb, 0) <= tvb:len() then
    exactly(tvb, 40 + u64(tvb, 32), "the bitmap range with its bitmap")
    return info .. add_rest(tree, tvb, 40)
  end
  return info
end

requests[15] = function(tvb, tree)
  at_least(tvb, 8, "wr_cnt")
  local words = { add(tree, S.region_write_multi, tvb, 0) }
  local count = u64(tvb, 0)
  exactly(tvb, 8 + count * 24, string.format("a message of %d writes", count))
  for i = 0, count - 1 do
    local at = 8 + i * 24
    local length = u32(tvb, at + 12)
    if length < 1 or length > 8 then
      malformed(string.format("count is %d, a single write has 1 to 8 bytes", length))
    end
    local branch = tree:add(tvb(at, 24), string.format("Write %d", i))
    local word = add(branch, S.wr, tvb, at)
    branch:add(F.wr_data, tvb(at + 16, length))
    words[#words + 1] = "{" .. word .. " data=" .. tostring(tvb(at + 16, length):bytes()):lower() .. "}"
  end
  return table.concat(words, " ")
end
replies[15] = function(tvb, tree)
  exactly(tvb, 8, "wr_cnt")
  return add(tree, S.region_write_multi, tvb, 0)
end

local function dma_logging(tvb, tree)
  at_least(tvb, 16, "the control structure")
  local words = { add(tree, S.dma_logging, tvb, 0) }
  local count = u32(tvb, 8)
  exactly(tvb, 16 + count * 16, string.format("the control structure with %d ranges", count))
  for i = 0, count - 1 do
    local branch = tree:add(tvb(16 + i * 16, 16), string.format("Range %d", i))
    words[#words + 1] = "{" .. add(branch, S.dma_logging_range, tvb, 16 + i * 16) .. "}"
  end
  return " dma_logging={" .. table.concat(words, " ") .. "}"
end

local GET, SET, PROBE = 0x10000, 0x20000, 0x40000

-- The data of features that have some: GET brings it in the reply, SET in both.
local function feature_data(feature, flags, is_reply, tvb, tree)
  local is_set = bit32.band(flags, SET) ~= 0
  local is_got = is_reply and bit32.band(flags, GET) ~= 0
  if bit32.band(flags, PROBE) ~= 0 then
    return add_rest(tree, tvb, 0)
  elseif feature == 1 and is_got then
    exactly(tvb, 8, "the migration feature")
    return " migration={" .. add(tree, S.migration, tvb, 0) .. "}"
  elseif feature == 2 and (is_got or is_set) then
    exactly(tvb, 8, "the migration state")
    if MIGRATION_STATES[u32(tvb, 0)] == nil then
      malformed(string.format("device_state is %d, 0 to 7 are defined", u32(tvb, 0)))
    end
    return " mig_device_state={" .. add(tree, S.mig_device_state, tvb, 0) .. "}"
  elseif (feature == 6 or feature == 7) and is_set and tvb:len() > 0 then
    return dma_logging(tvb, tree)
  elseif feature == 8 and not is_set then
    at_least(tvb, 24, "the report structure")
    return " dma_logging_report={" .. add(tree, S.dma_logging_report, tvb, 0) .. "}" .. add_rest(tree, tvb, 24)
  end
  return add_rest(tree, tvb, 0)
end

local function device_feature(is_reply)
  return function(tvb, tree)
    at_least(tvb, 8, "the device feature structure")
    local info = add(tree, S.device_feature, tvb, 0)
    local flags = u32(tvb, 4)
    if tvb:len() == 8 then
      return info
    end
    return info .. feature_data(bit32.band(flags, 0xffff), flags, is_reply, tvb(8):tvb(), tree)
  end
end
requests[16], replies[16] = device_feature(false), device_feature(true)

local function mig_data(tvb, tree)
  at_least(tvb, 8, "the migration data structure")
  return add(tree, S.mig_data, tvb, 0)
end
requests[17] = function(tvb, tree)
  exactly(tvb, 8, "the migration data structure")
  return mig_data(tvb, tree)
end
-- A reply may be padded to the size that was wanted: its own says how much counts.
replies[17] = function(tvb, tree)
  local info = mig_data(tvb, tree)
  local size = u32(tvb, 4)
  at_least(tvb, 8 + size, "the migration data with its data")
  return size == 0 and info or info .. add_data(tree, tvb(8, size))
end
requests[18] = function(tvb, tree)
  local info = mig_data(tvb, tree)
  exactly(tvb, 8 + u32(tvb, 4), "the migration data with its data")
  return info .. add_rest(tree, tvb, 8)
end

-- Replies without payload, and commands that nothing is known of.
local function nothing_known(tvb, tree)
  return add_rest(tree, tvb, 0)
end

-- Request and reply ---------------------------------------------------------------------------------------------------

local interface_of = Field.new("frame.interface_id")
local direction_of = Field.new("frame.packet_flags_direction")
local comments_of = Field.new("frame.comment")

-- Requests that wait: by interface, direction and id. What was found is kept by frame number.
local waiting, request_of, response_of

function proto.init()
  waiting, request_of, response_of = {}, {}, {}
end

local function is_inbound()
  local direction = direction_of()
  return direction ~= nil and direction.value == DIRECTION_INBOUND
end

-- Each side numbers its own requests, so a reply looks for one of the other direction.
local function remember(pinfo, id, is_reply, no_reply)
  local interface = interface_of()
  local asked_inbound = is_inbound() ~= is_reply
  local key = string.format("%s/%s/%d", interface and interface.value or 0, asked_inbound, id)
  if not is_reply then
    waiting[key] = not no_reply and { number = pinfo.number, time = pinfo.rel_ts } or nil
    return
  end
  local request = waiting[key]
  if request then
    waiting[key] = nil
    request_of[pinfo.number] = { number = request.number, time = pinfo.rel_ts - request.time }
    response_of[request.number] = pinfo.number
  end
end

local function add_links(tree, pinfo)
  local response = response_of[pinfo.number]
  if response then
    tree:add(F.response_in, response):set_generated()
  end
  local request = request_of[pinfo.number]
  if request then
    tree:add(F.request_in, request.number):set_generated()
    local seconds = math.floor(request.time)
    local nanoseconds = math.floor((request.time - seconds) * 1e9 + 0.5)
    tree:add(F.time, NSTime.new(seconds, nanoseconds)):set_generated()
  end
end

-- The fds are in the packet's comment: `fds: 3,4`.
local function add_fds(tree)
  for _, comment in ipairs({ comments_of() }) do
    local list = tostring(comment.value):match("^fds: ([%d,]+)$")
    if list then
      local _, commas = list:gsub(",", "")
      tree:add(F.fds, list):set_generated()
      tree:add(F.fd_count, commas + 1):set_generated()
      return " fds=[" .. list:gsub(",", " ") .. "]"
    end
  end
  return ""
end

-- A message -----------------------------------------------------------------------------------------------------------

local function add_header(tree, tvb)
  local header = tree:add(tvb(0, HEADER_SIZE), "Header")
  header:add_le(F.id, tvb(0, 2))
  header:add_le(F.command, tvb(2, 2))
  header:add_le(F.size, tvb(4, 4))
  local flags = header:add_le(F.flags, tvb(8, 4))
  flags:add_le(F.flags_type, tvb(8, 4))
  flags:add_le(F.flags_no_reply, tvb(8, 4))
  flags:add_le(F.flags_error, tvb(8, 4))
  header:add_le(F.errno, tvb(12, 4))
end

local function add_payload(tree, tvb, pinfo, command, is_reply, is_error)
  if tvb:len() == HEADER_SIZE then
    local known = (is_reply and replies or requests)[command]
    -- Where a payload is due, its absence is worth a word; an error reply has none.
    if known and not is_error and not (is_reply and (command == 3 or command == 14)) then
      malformed("the payload is missing")
    end
    return ""
  end
  local payload = tvb(HEADER_SIZE):tvb()
  local known = not is_error and (is_reply and replies or requests)[command] or nothing_known
  local branch = tree:add(tvb(HEADER_SIZE), "Payload")
  return known(payload, branch, pinfo)
end

-- The words of the payload, or of what is wrong with it.
local function payload_words(tree, tvb, pinfo, command, is_reply, is_error)
  if tvb:len() < tvb:reported_len() then
    tree:add_proto_expert_info(E.cut, string.format("%d of %d bytes captured", tvb:len(), tvb:reported_len()))
    return " (not captured whole)"
  end
  local ok, result = pcall(function()
    local size, kind = u32(tvb, 4), bit32.band(u32(tvb, 8), 0xf)
    if size ~= tvb:len() then
      malformed(string.format("the header says %d bytes, these are %d", size, tvb:len()))
    elseif kind > TYPE_REPLY then
      malformed(string.format("the message type is %d, neither command nor reply", kind))
    end
    return add_payload(tree, tvb, pinfo, command, is_reply, is_error)
  end)
  if ok then
    return (result == "" or result:sub(1, 1) == " ") and result or " " .. result
  end
  local reason = type(result) == "table" and result.malformed or tostring(result)
  tree:add_proto_expert_info(E.malformed, reason)
  return " MALFORMED (" .. reason .. ")"
end

local function dissect(tvb, pinfo, tree)
  local branch = tree:add(proto, tvb())
  if tvb:len() < HEADER_SIZE then
    branch:add_proto_expert_info(E.malformed, "a message has at least the 16 bytes of its header")
    pinfo.cols.info = "MALFORMED (no whole header)"
    return
  end
  local id, command, flags = u16(tvb, 0), u16(tvb, 2), u32(tvb, 8)
  local is_reply = bit32.band(flags, 0xf) == TYPE_REPLY
  local no_reply = bit32.band(flags, 0x10) ~= 0
  local is_error = bit32.band(flags, 0x20) ~= 0
  local name = COMMANDS[command] or string.format("command %d", command)
  local words = string.format("#%d %s%s", id, name, is_reply and " reply" or "")
  if no_reply then
    words = words .. " NO_REPLY"
  end
  add_header(branch, tvb)
  if is_error then
    local errno = u32(tvb, 12)
    local errno_name = errno == 0 and "error without errno" or ERRNOS[errno] or string.format("errno %d", errno)
    branch:add_proto_expert_info(E.error, name .. ": " .. errno_name)
    words = words .. " " .. errno_name
  end
  words = words .. payload_words(branch, tvb, pinfo, command, is_reply, is_error) .. add_fds(branch)
  if not pinfo.visited then
    remember(pinfo, id, is_reply, no_reply)
  end
  add_links(branch, pinfo)
  branch:append_text(", " .. name .. (is_reply and " reply" or "") .. string.format(", ID %d", id))
  return words
end

function proto.dissector(tvb, pinfo, tree)
  local words = dissect(tvb, pinfo, tree)
  -- Behind the JSON of VERSION, whose dissector has a say in the columns too.
  pinfo.cols.protocol = "vfio-user"
  if words then
    pinfo.cols.info = words
  end
  -- Who captures is the client, or stands in its place.
  pinfo.cols.src = is_inbound() and "server" or "client"
  pinfo.cols.dst = is_inbound() and "client" or "server"
  return tvb:len()
end

-- Interrupts, which no message shows: whoever captured had the eventfd. ------------------------------------------------

local irq = Proto("vfio_user_irq", "vfio-user interrupt")
local irq_fields = {
  ProtoField.uint32("vfio_user_irq.index", "Index"),
  ProtoField.uint32("vfio_user_irq.subindex", "Subindex"),
  ProtoField.uint64("vfio_user_irq.count", "Count"),
}
irq.fields = irq_fields

function irq.dissector(tvb, pinfo, tree)
  if tvb:len() < 16 then
    return 0
  end
  local branch = tree:add(irq, tvb())
  branch:add_le(irq_fields[1], tvb(0, 4))
  branch:add_le(irq_fields[2], tvb(4, 4))
  branch:add_le(irq_fields[3], tvb(8, 8))
  pinfo.cols.protocol = "vfio-user"
  pinfo.cols.info = string.format("interrupt index=%d subindex=%d count=%s", u32(tvb, 0), u32(tvb, 4), tostring(tvb(8, 8):le_uint64()))
  pinfo.cols.src = "server"
  pinfo.cols.dst = "client"
  return tvb:len()
end
