// One fd and its readiness on the environment's loop: what Socket, Listener and EventFd have in common.
//
//   JavaScript object ──owns──> PolledFd (in the same C++ object) ──owns──> fd
//        │  ▲                        │
//        │  └── strong while watched │ from the first watch until close
//        │                           ▼
//        └── callback (a property)  Poll { uv_poll_t, async context }   freed by libuv's close callback
//
//   made ──watch──> watched ──watch(0)──> made ──close──> closed (fd -1, for good)
//
// - The object owns the fd: `Close` is idempotent, the finalizer calls it as a safety net.
// - libuv may use the handle until its close callback has run, so Poll outlives the object. It is closed
//   before the fd: libuv has to take the fd out of epoll while it is open, as a dup of it may live in
//   another process.
// - A watched object is held strongly, an unwatched one may be collected. The callback is a property of the
//   object and only weakly known here: a strong reference would make object → callback → object immortal.
// - At the environment's end Environment closes the Polls, the finalizers close the fds.
#pragma once

#include <napi.h>
#include <uv.h>

#include <memory>

#include "arguments.h"
#include "environment.h"

namespace vfio_user {

class PolledFd;

/// The loop's half of a PolledFd.
struct Poll {
  uv_poll_t handle;
  PolledFd* owner;  // nullptr once closing
  std::shared_ptr<Environment> environment;
  napi_env env;
  napi_async_context context;

  /// Lets the owner go and closes the handle; frees the Poll later. Idempotent.
  void Close();
};

class PolledFd {
 public:
  static constexpr int kReadable = UV_READABLE;
  static constexpr int kWritable = UV_WRITABLE;

  PolledFd(const PolledFd&) = delete;
  PolledFd& operator=(const PolledFd&) = delete;

  /// -1 once closed.
  int fd() const { return fd_; }

 protected:
  explicit PolledFd(napi_env env) : environment_(Environment::Of(env)), env_(env) {}
  virtual ~PolledFd() { Close(); }

  /// Takes the fd over. The last step of a constructor: where it throws, the fd stays the caller's.
  void Own(int fd) {
    fd_ = fd;
    environment_->TakeBack(fd);
  }
  void Close();

  /// Says which readiness ends in OnReady, none for 0. `resource` and `name` are for async_hooks. 0 or
  /// -errno.
  int Watch(int events, napi_value resource, const char* name);
  bool watched() const { return events_ != 0; }
  void SetRef(bool on);

  /// An fd that is ready, in an open handle scope. Errors of libuv come as readiness: the next call on the
  /// fd says what is wrong.
  virtual void OnReady(int events) = 0;
  /// Calls `callback(argument)` as the loop does: microtasks and nextTick run after it, what it throws is an
  /// uncaughtException. It may have closed the object, or been cut short by the worker's termination.
  void Call(napi_value self, napi_value callback, napi_value argument);

  const std::shared_ptr<Environment> environment_;

 private:
  friend struct Poll;
  int Open(napi_value resource, const char* name);
  static void OnPoll(uv_poll_t* handle, int status, int events);
  static void OnClosed(uv_handle_t* handle);

  const napi_env env_;
  Poll* poll_ = nullptr;
  int fd_ = -1;
  int events_ = 0;
  bool ref_ = true;
};

/// The JavaScript face that the three classes share. T has `static constexpr const char* kName`.
template <typename T>
class PolledObject : public Napi::ObjectWrap<T>, public PolledFd {
 protected:
  using Wrap = Napi::ObjectWrap<T>;

  explicit PolledObject(const Napi::CallbackInfo& info) : Wrap(info), PolledFd(info.Env()) {
    if (!info[1].IsFunction()) throw Napi::TypeError::New(info.Env(), "the callback must be a function");
    callback_ = Keep(info, "callback", info[1]);
  }

  /// Ties a value's life to the object's, and gives a weak reference to it.
  static Napi::ObjectReference Keep(const Napi::CallbackInfo& info, const char* name, Napi::Value value) {
    info.This().As<Napi::Object>().DefineProperty(Napi::PropertyDescriptor::Value(name, value, napi_default));
    return Napi::Weak(value.As<Napi::Object>());
  }

  int WatchObject(int events) {
    const int result = Watch(events, this->Value(), T::kName);
    Hold();
    return result;
  }

  void CloseObject() {
    Close();
    Hold();
  }

  void Emit(napi_value argument) { Call(this->Value(), callback_.Value(), argument); }

  Napi::Value GetFd(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), fd()); }
  void RefLoop(const Napi::CallbackInfo& /*info*/) { SetRef(true); }
  void UnrefLoop(const Napi::CallbackInfo& /*info*/) { SetRef(false); }

 private:
  /// Strong while watched, so that a watched object is not collected.
  void Hold() {
    if (held_ == watched()) return;
    held_ = watched();
    if (held_) {
      Wrap::Ref();
    } else {
      Wrap::Unref();
    }
  }

  Napi::ObjectReference callback_;
  bool held_ = false;
};

}  // namespace vfio_user
