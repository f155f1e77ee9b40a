// An eventfd that a peer shares: it can clear O_NONBLOCK behind our back, so no read or write relies on the
// flag.
#pragma once

#include "polled-fd.h"

namespace vfio_user {

class EventFd : public PolledObject<EventFd> {
 public:
  static constexpr const char* kName = "VfioUserEventFd";

  static Napi::Function Define(Napi::Env env);
  explicit EventFd(const Napi::CallbackInfo& info);

 private:
  static napi_value Read(napi_env env, napi_callback_info info);
  static napi_value Signal(napi_env env, napi_callback_info info);
  Napi::Value WatchOn(const Napi::CallbackInfo& info);
  void CloseEventFd(const Napi::CallbackInfo& info);
  void OnReady(int events) override;

  /// The count, at most 2^53 - 1, or -errno.
  int64_t TakeCount();
  int64_t Add(uint64_t value) const;

  /// Whether the kernel lets preadv2 promise not to block here.
  bool has_nowait_ = true;
};

}  // namespace vfio_user
