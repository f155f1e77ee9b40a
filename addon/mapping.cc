#include "mapping.h"

#include <cerrno>
#include <utility>

#include "arguments.h"
#include "environment.h"
#include "vfio.h"

namespace vfio_user {

namespace {

/// The largest ArrayBuffer that every supported Node makes.
constexpr uint64_t kMaxView = uint64_t{1} << 32;

}  // namespace

Napi::Function Mapping::Define(Napi::Env env) {
  return DefineClass(env, "Mapping",
                     {
                         InstanceAccessor("length", &Mapping::GetLength, nullptr),
                         InstanceAccessor("closed", &Mapping::GetClosed, nullptr),
                         ClassMethod("view", View),
                         ClassMethod("copyOut", CopyOut),
                         ClassMethod("copyIn", CopyIn),
                         ClassMethod("mapForDma", MapForDma),
                         InstanceMethod("remap", &Mapping::Remap),
                         InstanceMethod("close", &Mapping::CloseMapping),
                     });
}

Napi::Value Mapping::Map(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  uint64_t offset;
  uint64_t length;
  if (!ReadFd(env, info[0], &fd) || !ReadInteger(env, info[1], "offset", &offset) ||
      !ReadInteger(env, info[2], "length", &length)) {
    return {};
  }
  Memory* memory = Memory::Map(fd, offset, length, info[3].ToBoolean(), info[4].ToBoolean());
  if (memory == nullptr) return Napi::Number::New(env, -errno);
  const auto environment = Environment::Of(env);
  environment->handed_over = memory;
  try {
    return environment->mapping_constructor.New({});
  } catch (...) {
    // The worker is being terminated, before or after the object took the memory over.
    if (Memory* left = std::exchange(environment->handed_over, nullptr)) left->Release();
    throw;
  }
}

Mapping::Mapping(const Napi::CallbackInfo& info)
    : ObjectWrap(info), memory_(std::exchange(Environment::Of(info.Env())->handed_over, nullptr)) {
  if (memory_ == nullptr) throw Napi::TypeError::New(info.Env(), "a Mapping is made by map()");
  length_ = memory_->length();
}

Mapping::~Mapping() {
  if (memory_ != nullptr) memory_->Release();
}

napi_value Mapping::View(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  auto* self = ReadCall<Mapping>(env, info, arguments);
  uint64_t offset;
  uint64_t length;
  if (self == nullptr || !ReadInteger(env, arguments[0], "offset", &offset) ||
      !ReadInteger(env, arguments[1], "length", &length, kMaxView)) {
    return nullptr;
  }
  if (!IsWithin(offset, length, self->length_)) {
    ThrowRangeError(env, "the view", "outside the mapping");
    return nullptr;
  }
  const Memory* memory = self->memory_;
  if (memory == nullptr) return MakeNumber(env, -EBADF);
  // A load or store that the mapping does not permit would kill the process.
  if (!memory->readable() || !memory->writable()) return MakeNumber(env, -EACCES);
  if (length == 0) {
    napi_value empty = nullptr;
    napi_create_arraybuffer(env, 0, nullptr, &empty);
    return empty;
  }
  return self->memory_->MakeView(env, offset, length);
}

/// mapForDma(container, iova, flags): all of the mapping.
napi_value Mapping::MapForDma(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  auto* self = ReadCall<Mapping>(env, info, arguments);
  int container;
  uint64_t iova;
  uint64_t flags;
  if (self == nullptr || !ReadFd(env, arguments[0], &container) ||
      !ReadAddress(env, arguments[1], "iova", &iova) ||
      !ReadInteger(env, arguments[2], "flags", &flags, UINT32_MAX)) {
    return nullptr;
  }
  if (self->memory_ == nullptr) return MakeNumber(env, -EBADF);
  const auto wanted = static_cast<uint32_t>(flags);
  return MakeNumber(env, MapDma(container, self->memory_->base(), iova, self->length_, wanted));
}

napi_value Mapping::CopyOut(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  auto* self = ReadCall<Mapping>(env, info, arguments);
  uint64_t offset;
  Bytes into;
  if (self == nullptr || !ReadInteger(env, arguments[0], "offset", &offset) ||
      !ReadRange(env, arguments[1], arguments[2], arguments[3], "into", &into)) {
    return nullptr;
  }
  if (!IsWithin(offset, into.length, self->length_)) {
    ThrowRangeError(env, "the source", "outside the mapping");
    return nullptr;
  }
  const Memory* memory = self->memory_;
  if (memory == nullptr) return MakeNumber(env, -EBADF);
  if (!memory->readable()) return MakeNumber(env, -EACCES);
  const int result = memory->CopyOut(offset, into.data, into.length);
  return MakeNumber(env, result < 0 ? result : static_cast<int64_t>(into.length));
}

napi_value Mapping::CopyIn(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  auto* self = ReadCall<Mapping>(env, info, arguments);
  uint64_t offset;
  Bytes from;
  if (self == nullptr || !ReadInteger(env, arguments[0], "offset", &offset) ||
      !ReadRange(env, arguments[1], arguments[2], arguments[3], "from", &from)) {
    return nullptr;
  }
  if (!IsWithin(offset, from.length, self->length_)) {
    ThrowRangeError(env, "the destination", "outside the mapping");
    return nullptr;
  }
  const Memory* memory = self->memory_;
  if (memory == nullptr) return MakeNumber(env, -EBADF);
  if (!memory->writable()) return MakeNumber(env, -EACCES);
  const int result = memory->CopyIn(offset, from.data, from.length);
  return MakeNumber(env, result < 0 ? result : static_cast<int64_t>(from.length));
}

Napi::Value Mapping::GetLength(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(length_));
}

Napi::Value Mapping::GetClosed(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), memory_ == nullptr);
}

Napi::Value Mapping::Remap(const Napi::CallbackInfo& info) {
  int fd;
  uint64_t offset;
  if (!ReadFd(info.Env(), info[0], &fd) || !ReadInteger(info.Env(), info[1], "offset", &offset)) return {};
  return Napi::Number::New(info.Env(), memory_ == nullptr ? -EBADF : memory_->Remap(fd, offset));
}

void Mapping::CloseMapping(const Napi::CallbackInfo& /*info*/) {
  if (memory_ != nullptr) std::exchange(memory_, nullptr)->Close();
}

}  // namespace vfio_user
