#include "vfio.h"

#include <linux/vfio.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "arguments.h"
#include "environment.h"

namespace vfio_user {

namespace {

using Info = Napi::CallbackInfo;

/// More interrupts than any index of a PCI device has.
constexpr uint64_t kMostInterrupts = 2048;

Napi::Value Number(const Info& info, int64_t value) {
  return Napi::Number::New(info.Env(), static_cast<double>(value));
}

/// ioctl(2), which answers -errno.
template <typename Argument>
int Ioctl(int fd, unsigned long request, Argument argument) {
  int result;
  do {
    result = ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : result;
}

/// A structure that the kernel fills: it begins with argsz, and says there how much it would take. The answer is that.
template <typename Header>
Napi::Value Describe(const Info& info, int fd, unsigned long request, const Bytes& into,
                     const Header& header) {
  memcpy(into.data, &header, sizeof(header));
  const int result = Ioctl(fd, request, into.data);
  if (result < 0) return Number(info, result);
  uint32_t needed;
  memcpy(&needed, into.data, sizeof(needed));
  return Number(info, needed);
}

/// Room for a structure, as argsz says it; false with an exception where there is too little.
bool ReadRoom(const Info& info, size_t index, size_t least, Bytes* into) {
  if (!ReadBytes(info.Env(), info[index], "into", into)) return false;
  if (into->length < least) return ThrowRangeError(info.Env(), "into", "too short for the structure");
  if (into->length > UINT32_MAX) return ThrowRangeError(info.Env(), "into", "too long");
  return true;
}

/// A call that takes an fd and nothing else.
template <unsigned long request>
Napi::Value Plain(const Info& info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) return {};
  return Number(info, Ioctl(fd, request, 0UL));
}

Napi::Value CheckExtension(const Info& info) {
  int container;
  uint64_t extension;
  if (!ReadFd(info.Env(), info[0], &container) ||
      !ReadInteger(info.Env(), info[1], "extension", &extension, INT32_MAX)) {
    return {};
  }
  return Number(info, Ioctl(container, VFIO_CHECK_EXTENSION, static_cast<unsigned long>(extension)));
}

Napi::Value GroupStatus(const Info& info) {
  int group;
  if (!ReadFd(info.Env(), info[0], &group)) return {};
  vfio_group_status status = {};
  status.argsz = sizeof(status);
  const int result = Ioctl(group, VFIO_GROUP_GET_STATUS, &status);
  return Number(info, result < 0 ? result : static_cast<int64_t>(status.flags));
}

Napi::Value SetContainer(const Info& info) {
  int group;
  int container;
  if (!ReadFd(info.Env(), info[0], &group) || !ReadFd(info.Env(), info[1], &container)) return {};
  return Number(info, Ioctl(group, VFIO_GROUP_SET_CONTAINER, &container));
}

Napi::Value SetIommu(const Info& info) {
  int container;
  uint64_t type;
  if (!ReadFd(info.Env(), info[0], &container) || !ReadInteger(info.Env(), info[1], "type", &type, INT32_MAX))
    return {};
  return Number(info, Ioctl(container, VFIO_SET_IOMMU, static_cast<unsigned long>(type)));
}

Napi::Value IommuInfo(const Info& info) {
  int container;
  Bytes into;
  if (!ReadFd(info.Env(), info[0], &container) || !ReadRoom(info, 1, sizeof(vfio_iommu_type1_info), &into)) {
    return {};
  }
  vfio_iommu_type1_info header = {};
  header.argsz = static_cast<uint32_t>(into.length);
  return Describe(info, container, VFIO_IOMMU_GET_INFO, into, header);
}

Napi::Value OpenDevice(const Info& info) {
  int group;
  if (!ReadFd(info.Env(), info[0], &group)) return {};
  if (!info[1].IsString()) {
    ThrowTypeError(info.Env(), "name", "a string");
    return {};
  }
  const std::string name = info[1].As<Napi::String>().Utf8Value();
  const int fd = Ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name.c_str());
  return Number(info, Environment::Of(info.Env())->Lend(fd));
}

Napi::Value DeviceInfo(const Info& info) {
  int device;
  Bytes into;
  if (!ReadFd(info.Env(), info[0], &device) || !ReadRoom(info, 1, sizeof(vfio_device_info), &into)) return {};
  vfio_device_info header = {};
  header.argsz = static_cast<uint32_t>(into.length);
  return Describe(info, device, VFIO_DEVICE_GET_INFO, into, header);
}

/// Structures that begin with argsz and flags, and then have an index.
template <typename Header, unsigned long request>
Napi::Value IndexedInfo(const Info& info) {
  int device;
  uint64_t index;
  Bytes into;
  if (!ReadFd(info.Env(), info[0], &device) ||
      !ReadInteger(info.Env(), info[1], "index", &index, UINT32_MAX) ||
      !ReadRoom(info, 2, sizeof(Header), &into)) {
    return {};
  }
  Header header = {};
  header.argsz = static_cast<uint32_t>(into.length);
  header.index = static_cast<uint32_t>(index);
  return Describe(info, device, request, into, header);
}

/// VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, whose argsz stays what it was given: the answer is how many functions follow the header.
Napi::Value HotResetInfo(const Info& info) {
  int device;
  Bytes into;
  if (!ReadFd(info.Env(), info[0], &device) || !ReadRoom(info, 1, sizeof(vfio_pci_hot_reset_info), &into)) {
    return {};
  }
  vfio_pci_hot_reset_info header = {};
  header.argsz = static_cast<uint32_t>(into.length);
  memcpy(into.data, &header, sizeof(header));
  const int result = Ioctl(device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, into.data);
  if (result < 0) return Number(info, result);
  memcpy(&header, into.data, sizeof(header));
  return Number(info, header.count);
}

/// VFIO_DEVICE_PCI_HOT_RESET of a device whose functions belong to one group.
Napi::Value HotReset(const Info& info) {
  int device;
  int32_t group;
  if (!ReadFd(info.Env(), info[0], &device) || !ReadFd(info.Env(), info[1], &group)) return {};
  uint8_t memory[sizeof(vfio_pci_hot_reset) + sizeof(group)];
  vfio_pci_hot_reset header = {};
  header.argsz = sizeof(memory);
  header.count = 1;
  memcpy(memory, &header, sizeof(header));
  memcpy(memory + sizeof(header), &group, sizeof(group));
  return Number(info, Ioctl(device, VFIO_DEVICE_PCI_HOT_RESET, memory));
}

Napi::Value UnmapDma(const Info& info) {
  int container;
  uint64_t iova;
  uint64_t size;
  if (!ReadFd(info.Env(), info[0], &container) || !ReadAddress(info.Env(), info[1], "iova", &iova) ||
      !ReadInteger(info.Env(), info[2], "size", &size)) {
    return {};
  }
  vfio_iommu_type1_dma_unmap unmap = {};
  unmap.argsz = sizeof(unmap);
  unmap.iova = iova;
  unmap.size = size;
  const int result = Ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap);
  return Number(info, result < 0 ? result : static_cast<int64_t>(unmap.size));
}

/// The elements of an array of fds, where -1 is none.
bool ReadEventFds(const Info& info, const Napi::Value& value, std::vector<int32_t>* out) {
  if (!value.IsArray()) return ThrowTypeError(info.Env(), "fds", "an array or null");
  const auto array = value.As<Napi::Array>();
  const uint32_t length = array.Length();
  if (length > kMostInterrupts) return ThrowRangeError(info.Env(), "fds", "too many");
  for (uint32_t i = 0; i < length; i++) {
    const Napi::Value element = array[i];
    double number;
    if (napi_get_value_double(info.Env(), element, &number) != napi_ok)
      return ThrowTypeError(info.Env(), "fd", "a number");
    if (!(number >= -1 && number <= INT32_MAX)) return ThrowRangeError(info.Env(), "fd", "out of range");
    out->push_back(static_cast<int32_t>(number));
  }
  return true;
}

/// SET_IRQS with `fds` (DATA_EVENTFD), or with none of them (DATA_NONE).
Napi::Value SetIrqs(const Info& info) {
  int device;
  uint64_t index;
  uint64_t start;
  uint64_t count;
  uint64_t action;
  if (!ReadFd(info.Env(), info[0], &device) ||
      !ReadInteger(info.Env(), info[1], "index", &index, UINT32_MAX) ||
      !ReadInteger(info.Env(), info[2], "start", &start, kMostInterrupts) ||
      !ReadInteger(info.Env(), info[3], "count", &count, kMostInterrupts) ||
      !ReadInteger(info.Env(), info[4], "action", &action, VFIO_IRQ_SET_ACTION_TYPE_MASK)) {
    return {};
  }
  std::vector<int32_t> fds;
  const bool has_fds = !IsNothing(info.Env(), info[5]);
  if (has_fds && !ReadEventFds(info, info[5], &fds)) return {};
  if (has_fds && fds.size() != count) {
    ThrowRangeError(info.Env(), "fds", "not as many as count");
    return {};
  }
  std::vector<uint8_t> memory(sizeof(vfio_irq_set) + fds.size() * sizeof(int32_t));
  vfio_irq_set header = {};
  header.argsz = static_cast<uint32_t>(memory.size());
  header.flags =
      static_cast<uint32_t>(action) | (has_fds ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE);
  header.index = static_cast<uint32_t>(index);
  header.start = static_cast<uint32_t>(start);
  header.count = static_cast<uint32_t>(count);
  memcpy(memory.data(), &header, sizeof(header));
  if (!fds.empty()) memcpy(memory.data() + sizeof(header), fds.data(), fds.size() * sizeof(int32_t));
  return Number(info, Ioctl(device, VFIO_DEVICE_SET_IRQS, memory.data()));
}

}  // namespace

bool ReadAddress(napi_env env, napi_value value, const char* what, uint64_t* out) {
  bool lossless = false;
  if (napi_get_value_bigint_uint64(env, value, out, &lossless) != napi_ok)
    return ThrowTypeError(env, what, "a bigint");
  return lossless || ThrowRangeError(env, what, "not of 64 bits");
}

int MapDma(int container, const void* base, uint64_t iova, uint64_t size, uint32_t flags) {
  vfio_iommu_type1_dma_map map = {};
  map.argsz = sizeof(map);
  map.flags = flags;
  map.vaddr = reinterpret_cast<uintptr_t>(base);
  map.iova = iova;
  map.size = size;
  return Ioctl(container, VFIO_IOMMU_MAP_DMA, &map);
}

void ExportVfio(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, auto function) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("vfioApiVersion", Plain<VFIO_GET_API_VERSION>);
  add("vfioCheckExtension", CheckExtension);
  add("vfioGroupStatus", GroupStatus);
  add("vfioSetContainer", SetContainer);
  add("vfioSetIommu", SetIommu);
  add("vfioIommuInfo", IommuInfo);
  add("vfioOpenDevice", OpenDevice);
  add("vfioDeviceInfo", DeviceInfo);
  add("vfioRegionInfo", IndexedInfo<vfio_region_info, VFIO_DEVICE_GET_REGION_INFO>);
  add("vfioIrqInfo", IndexedInfo<vfio_irq_info, VFIO_DEVICE_GET_IRQ_INFO>);
  add("vfioSetIrqs", SetIrqs);
  add("vfioReset", Plain<VFIO_DEVICE_RESET>);
  add("vfioHotResetInfo", HotResetInfo);
  add("vfioHotReset", HotReset);
  add("vfioUnmapDma", UnmapDma);
}

}  // namespace vfio_user
