// The JavaScript face of a Memory: checks arguments, permissions and the state.
//
//   open ──close()──> closed (every call answers -EBADF)
#pragma once

#include <napi.h>

#include "memory.h"

namespace vfio_user {

class Mapping : public Napi::ObjectWrap<Mapping> {
 public:
  static Napi::Function Define(Napi::Env env);
  /// map(fd, offset, length, readable, writable)
  static Napi::Value Map(const Napi::CallbackInfo& info);
  /// Only from Map: it takes over Environment::handed_over.
  explicit Mapping(const Napi::CallbackInfo& info);
  ~Mapping() override;

 private:
  static napi_value View(napi_env env, napi_callback_info info);
  static napi_value CopyOut(napi_env env, napi_callback_info info);
  static napi_value CopyIn(napi_env env, napi_callback_info info);
  static napi_value MapForDma(napi_env env, napi_callback_info info);
  static napi_value Load(napi_env env, napi_callback_info info);
  static napi_value Store(napi_env env, napi_callback_info info);
  Napi::Value GetLength(const Napi::CallbackInfo& info);
  Napi::Value GetClosed(const Napi::CallbackInfo& info);
  /// The memory for an access of one register; nullptr with an exception pending where there is none.
  uint8_t* Register(napi_env env, napi_value offset, napi_value width, uint64_t* out);
  Napi::Value Remap(const Napi::CallbackInfo& info);
  void Withdraw(const Napi::CallbackInfo& info);
  void CloseMapping(const Napi::CallbackInfo& info);

  Memory* memory_;  // nullptr once closed
  size_t length_;
};

}  // namespace vfio_user
