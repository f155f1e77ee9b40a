#include "event-fd.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "eventfd-adder.h"

namespace vfio_user {

namespace {

bool IsReady(int fd, short events) {
  pollfd poll = {fd, events, 0};
  return ::poll(&poll, 1, 0) > 0 && (poll.revents & events) != 0;
}

}  // namespace

Napi::Function EventFd::Define(Napi::Env env) {
  return DefineClass(env, "EventFd",
                     {
                         InstanceAccessor("fd", &EventFd::GetFd, nullptr),
                         ClassMethod("read", Read),
                         ClassMethod("signal", Signal),
                         InstanceMethod("watch", &EventFd::WatchOn),
                         InstanceMethod("ref", &EventFd::RefLoop),
                         InstanceMethod("unref", &EventFd::UnrefLoop),
                         InstanceMethod("close", &EventFd::CloseEventFd),
                     });
}

EventFd::EventFd(const Napi::CallbackInfo& info) : PolledObject(info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) throw Napi::Error::New(info.Env());
  Own(fd);
}

napi_value EventFd::Read(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  auto* self = ReadCall<EventFd>(env, info, arguments);
  if (self == nullptr) return nullptr;
  const int64_t count = self->TakeCount();
  return MakeNumber(env, count == 0 ? -EAGAIN : count);
}

int64_t EventFd::TakeCount() {
  if (fd() < 0) return -EBADF;
  uint64_t count = 0;
  for (;;) {
    ssize_t size;
    if (has_nowait_) {
      const iovec part = {&count, sizeof(count)};
      size = preadv2(fd(), &part, 1, -1, RWF_NOWAIT);
      if (size < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
        has_nowait_ = false;
        continue;
      }
    } else {
      if (!IsReady(fd(), POLLIN)) return -EAGAIN;
      size = read(fd(), &count, sizeof(count));
    }
    if (size == sizeof(count)) break;
    if (size >= 0) return -EINVAL;  // Not an eventfd.
    if (errno != EINTR) return -errno;
  }
  return static_cast<int64_t>(std::min<uint64_t>(count, kMaxSafeInteger));
}

napi_value EventFd::Signal(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  auto* self = ReadCall<EventFd>(env, info, arguments);
  uint64_t value;
  if (self == nullptr || !ReadInteger(env, arguments[0], "value", &value)) return nullptr;
  return MakeNumber(env, self->Add(value));
}

int64_t EventFd::Add(uint64_t value) const {
  if (fd() < 0) return -EBADF;
  if (!IsReady(fd(), POLLOUT)) return -EAGAIN;
  if (value > 0 && value <= EventFdAdder::kMost && EventFdAdder::Get().Add(fd(), value)) return 0;
  // write has no RWF_NOWAIT here. The flag is the best there is: a peer may clear it again.
  const int flags = fcntl(fd(), F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) == 0) fcntl(fd(), F_SETFL, flags | O_NONBLOCK);
  for (;;) {
    if (write(fd(), &value, sizeof(value)) >= 0) return 0;
    if (errno != EINTR) return -errno;
  }
}

Napi::Value EventFd::WatchOn(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), WatchObject(info[0].ToBoolean() ? kReadable : 0));
}

void EventFd::CloseEventFd(const Napi::CallbackInfo& /*info*/) {
  CloseObject();
}

void EventFd::OnReady(int /*events*/) {
  const int64_t count = TakeCount();
  if (count > 0) {
    Emit(MakeNumber(Env(), count));
  } else if (count < 0 && count != -EAGAIN) {
    // Not an eventfd: it would stay ready for ever.
    WatchObject(0);
  }
}

}  // namespace vfio_user
