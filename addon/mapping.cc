#include "mapping.h"

#include <cerrno>
#include <utility>

#include "arguments.h"
#include "environment.h"
#include "registers.h"
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
                         ClassMethod("load", Load),
                         ClassMethod("store", Store),
                         InstanceMethod("remap", &Mapping::Remap),
                         InstanceMethod("withdraw", &Mapping::Withdraw),
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

uint8_t* Mapping::Register(napi_env env, napi_value offset, napi_value width, uint64_t* bytes) {
  uint64_t at;
  if (!ReadInteger(env, offset, "offset", &at) || !ReadInteger(env, width, "width", bytes, 8)) return nullptr;
  const bool is_width = *bytes == 1 || *bytes == 2 || *bytes == 4 || *bytes == 8;
  if (!is_width || at % *bytes != 0 || !IsWithin(at, *bytes, length_)) {
    ThrowRangeError(env, "the register", "outside the mapping, or not aligned");
    return nullptr;
  }
  if (memory_ == nullptr || !memory_->readable() || !memory_->writable()) {
    ThrowRangeError(env, "the mapping", "closed, or not for registers");
    return nullptr;
  }
  return memory_->base() + at;
}

/// load(offset, width): a number, of 8 bytes a bigint.
napi_value Mapping::Load(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  auto* self = ReadCall<Mapping>(env, info, arguments);
  uint64_t width;
  if (self == nullptr) return nullptr;
  const uint8_t* at = self->Register(env, arguments[0], arguments[1], &width);
  if (at == nullptr) return nullptr;
  if (width == 8) {
    napi_value result = nullptr;
    napi_create_bigint_uint64(env, LoadRegister<uint64_t>(at), &result);
    return result;
  }
  if (width == 4) return MakeNumber(env, LoadRegister<uint32_t>(at));
  return MakeNumber(env, width == 2 ? LoadRegister<uint16_t>(at) : LoadRegister<uint8_t>(at));
}

/// store(offset, width, value): as `load` gives it.
napi_value Mapping::Store(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  auto* self = ReadCall<Mapping>(env, info, arguments);
  uint64_t width;
  if (self == nullptr) return nullptr;
  uint8_t* at = self->Register(env, arguments[0], arguments[1], &width);
  uint64_t value;
  if (at == nullptr) return nullptr;
  if (width == 8) {
    if (ReadAddress(env, arguments[2], "value", &value)) StoreRegister<uint64_t>(at, value);
    return nullptr;
  }
  if (!ReadInteger(env, arguments[2], "value", &value, (uint64_t{1} << (8 * width)) - 1)) return nullptr;
  if (width == 4) StoreRegister<uint32_t>(at, static_cast<uint32_t>(value));
  if (width == 2) StoreRegister<uint16_t>(at, static_cast<uint16_t>(value));
  if (width == 1) StoreRegister<uint8_t>(at, static_cast<uint8_t>(value));
  return nullptr;
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

void Mapping::Withdraw(const Napi::CallbackInfo& /*info*/) {
  if (memory_ != nullptr) memory_->Withdraw();
}

void Mapping::CloseMapping(const Napi::CallbackInfo& /*info*/) {
  if (memory_ != nullptr) std::exchange(memory_, nullptr)->Close();
}

}  // namespace vfio_user
