// A listening socket. What it accepts is a bare fd, the caller's at once.
#pragma once

#include "polled-fd.h"

namespace vfio_user {

class Listener : public PolledObject<Listener> {
 public:
  static constexpr const char* kName = "VfioUserListener";

  static Napi::Function Define(Napi::Env env);
  explicit Listener(const Napi::CallbackInfo& info);

 private:
  Napi::Value Accept(const Napi::CallbackInfo& info);
  Napi::Value WatchOn(const Napi::CallbackInfo& info);
  void CloseListener(const Napi::CallbackInfo& info);
  void OnReady(int events) override;
};

}  // namespace vfio_user
