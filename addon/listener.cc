#include "listener.h"

#include <sys/socket.h>

#include <cerrno>

namespace vfio_user {

Napi::Function Listener::Define(Napi::Env env) {
  return DefineClass(env, "Listener",
                     {
                         InstanceAccessor("fd", &Listener::GetFd, nullptr),
                         InstanceMethod("accept", &Listener::Accept),
                         InstanceMethod("watch", &Listener::WatchOn),
                         InstanceMethod("ref", &Listener::RefLoop),
                         InstanceMethod("unref", &Listener::UnrefLoop),
                         InstanceMethod("close", &Listener::CloseListener),
                     });
}

Listener::Listener(const Napi::CallbackInfo& info) : PolledObject(info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) throw Napi::Error::New(info.Env());
  Own(fd);
}

Napi::Value Listener::Accept(const Napi::CallbackInfo& info) {
  int result = -EBADF;
  if (fd() >= 0) {
    do {
      result = accept4(fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (result < 0) result = -errno;
      // A client that gave up while it was queued is no concern of ours: the next one may be there.
    } while (result == -EINTR || result == -ECONNABORTED);
  }
  return Napi::Number::New(info.Env(), environment_->Lend(result));
}

Napi::Value Listener::WatchOn(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), WatchObject(info[0].ToBoolean() ? kReadable : 0));
}

void Listener::CloseListener(const Napi::CallbackInfo& /*info*/) {
  CloseObject();
}

void Listener::OnReady(int /*events*/) {
  Emit(Env().Undefined());
}

}  // namespace vfio_user
