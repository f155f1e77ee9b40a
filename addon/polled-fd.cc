#include "polled-fd.h"

#include <unistd.h>

#include <cerrno>

namespace vfio_user {

int PolledFd::Watch(int events, napi_value resource, const char* name) {
  if (fd_ < 0) return -EBADF;
  if (poll_ == nullptr) {
    if (events == 0) return 0;
    if (const int result = Open(resource, name); result < 0) return result;
  }
  if (events == 0) {
    events_ = 0;
    return uv_poll_stop(&poll_->handle);
  }
  if (events == events_ && uv_is_active(reinterpret_cast<uv_handle_t*>(&poll_->handle))) return 0;
  const int result = uv_poll_start(&poll_->handle, events, OnPoll);
  events_ = result == 0 ? events : 0;
  return result;
}

int PolledFd::Open(napi_value resource, const char* name) {
  if (environment_->ending()) return -ECANCELED;
  auto poll = std::make_unique<Poll>();
  if (const int result = uv_poll_init(environment_->loop(), &poll->handle, fd_); result < 0) return result;
  // From here on only the close callback may free it.
  poll_ = poll.release();
  poll_->handle.data = poll_;
  poll_->owner = this;
  poll_->environment = environment_;
  poll_->env = env_;
  poll_->context = nullptr;
  environment_->Add(poll_);
  if (!ref_) uv_unref(reinterpret_cast<uv_handle_t*>(&poll_->handle));
  napi_value label;
  // Without a context (a worker that is being terminated) callbacks run in none.
  if (napi_create_string_utf8(env_, name, NAPI_AUTO_LENGTH, &label) == napi_ok) {
    napi_async_init(env_, resource, label, &poll_->context);
  }
  return 0;
}

void PolledFd::SetRef(bool on) {
  ref_ = on;
  if (poll_ == nullptr) return;
  auto* handle = reinterpret_cast<uv_handle_t*>(&poll_->handle);
  if (on) {
    uv_ref(handle);
  } else {
    uv_unref(handle);
  }
}

void PolledFd::Close() {
  if (poll_ != nullptr) poll_->Close();
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

void Poll::Close() {
  if (owner == nullptr) return;
  owner->poll_ = nullptr;
  owner->events_ = 0;
  owner = nullptr;
  uv_close(reinterpret_cast<uv_handle_t*>(&handle), PolledFd::OnClosed);
}

void PolledFd::OnClosed(uv_handle_t* handle) {
  const std::unique_ptr<Poll> poll(static_cast<Poll*>(handle->data));
  if (poll->context != nullptr) napi_async_destroy(poll->env, poll->context);
  poll->environment->Remove(poll.get());
}

void PolledFd::OnPoll(uv_poll_t* handle, int status, int events) {
  auto* poll = static_cast<Poll*>(handle->data);
  const Napi::HandleScope scope(poll->env);
  poll->owner->OnReady(status < 0 ? kReadable | poll->owner->events_ : events);

  // libuv stops a handle whose fd reports an error. Whoever still watches goes on being told, as with any
  // other readiness, until it has read the error. The callback may have closed the owner: the Poll itself
  // lives on.
  PolledFd* owner = poll->owner;
  if (status < 0 && owner != nullptr && owner->events_ != 0 &&
      !uv_is_active(reinterpret_cast<uv_handle_t*>(handle))) {
    uv_poll_start(handle, owner->events_, OnPoll);
  }
}

void PolledFd::Call(napi_value self, napi_value callback, napi_value argument) {
  if (self == nullptr || callback == nullptr) return;
  napi_value result;
  if (napi_make_callback(env_, poll_->context, self, callback, 1, &argument, &result) == napi_ok) return;
  // A worker that is being terminated has nothing pending, or lets nothing be reported: both calls fail
  // quietly.
  bool pending = false;
  napi_value error;
  if (napi_is_exception_pending(env_, &pending) == napi_ok && pending &&
      napi_get_and_clear_last_exception(env_, &error) == napi_ok) {
    napi_fatal_exception(env_, error);
  }
}

}  // namespace vfio_user
