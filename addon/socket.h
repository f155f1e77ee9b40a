// A connected stream socket: sendmsg and recvmsg with fds, without ever blocking; and a wait that is bounded.
//
// Fds that came in belong to the socket until `takeFds` hands them to JavaScript; what nobody took is
// closed with the socket. The answer of a receive says whether any wait.
//
// Waiting is in socket-wait.cc.
//
// What messages take are functions that are told the socket's handle, the rest is methods: see handle-table.h.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <vector>

#include "adaptive-spin.h"
#include "polled-fd.h"

namespace vfio_user {

class Socket : public PolledObject<Socket> {
 public:
  static constexpr const char* kName = "VfioUserSocket";

  static void Export(Napi::Env env, Napi::Object exports);
  explicit Socket(const Napi::CallbackInfo& info);
  ~Socket() override;

 private:
  /// The longest spins where nothing else is said, in nanoseconds: of a call that blocks, and while a reply is awaited, which
  /// holds up the loop.
  static constexpr int64_t kDefaultSpinCeiling = 50'000;
  static constexpr int64_t kMaxAwaitingSpin = 20'000;

  static napi_value Send(napi_env env, napi_callback_info info);
  static napi_value RoundTrip(napi_env env, napi_callback_info info);
  static napi_value Recv(napi_env env, napi_callback_info info);
  static napi_value RecvSpin(napi_env env, napi_callback_info info);
  static napi_value RecvWait(napi_env env, napi_callback_info info);
  static napi_value Wait(napi_env env, napi_callback_info info);
  Napi::Value GetHandle(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), handle_); }
  static napi_value TakeFds(napi_env env, napi_callback_info info);
  static napi_value EndSending(napi_env env, napi_callback_info info);
  Napi::Value WatchEvents(const Napi::CallbackInfo& info);
  void SetSpinCeiling(const Napi::CallbackInfo& info);
  Napi::Value GetSpin(const Napi::CallbackInfo& info);
  void GrowSendBuffer(const Napi::CallbackInfo& info);
  void CloseSocket(const Napi::CallbackInfo& info);

  /// The socket that the first argument of a function names, and all its arguments. Throws, and gives nullptr, for none.
  template <size_t count>
  static Socket* ReadSocketCall(napi_env env, napi_callback_info info, napi_value (&arguments)[count]) {
    size_t argc = count;
    void* environment;
    if (napi_get_cb_info(env, info, &argc, arguments, nullptr, &environment) != napi_ok) return nullptr;
    return FindSocket(env, *static_cast<Environment*>(environment), arguments[0]);
  }
  /// Throws, and gives nullptr, for what names no socket.
  static Socket* FindSocket(napi_env env, const Environment& environment, napi_value handle);
  /// Another socket that an argument names; nullptr for none, and for one that is closed.
  bool ReadOther(napi_env env, napi_value handle, Socket** out) const;

  int64_t SendMessage(iovec* parts, size_t count, const std::vector<int>& fds) const;
  int64_t SendBytes(iovec bytes) const;
  /// recvmsg with `flags`; EINTR is the caller's.
  int64_t ReceiveOnce(Bytes into, int flags);
  int64_t Receive(Bytes into);
  int64_t ReceiveSpinning(Bytes into);
  int64_t ReceiveRest(Bytes into);
  int64_t ReceiveBlocking(Bytes into, int64_t now, int64_t deadline, bool with_fds);
  bool PrepareToBlock(int64_t nanoseconds);
  int64_t ReceiveBytesOnce(Bytes into, int flags) const;
  int64_t ReceiveBytes(Bytes into) const;
  /// Without `with_fds` the kernel closes those that come early.
  template <bool with_fds>
  int64_t ReceiveWithin(Bytes into, int64_t nanoseconds, const Socket* other);
  /// Notes how long a wait took. Gives `result` back.
  int64_t EndWait(int64_t took, int64_t result) {
    last_wait_ = took;
    blocking_spin_.End(took);
    return result;
  }
  int64_t ReceivePolling(Bytes into, int64_t deadline, const Socket* other);
  bool IsReadable() const;
  bool ClaimFds(const msghdr& message);
  void CloseFds();
  /// The answer of a receive, for JavaScript.
  napi_value Received(napi_env env, int64_t result) const;

  void OnReady(int events) override;

  int32_t handle_ = HandleTable<Socket>::kNone;
  std::vector<int> fds_;
  /// Of calls that block, and between two turns of the loop while a reply is awaited.
  AdaptiveSpin blocking_spin_{kDefaultSpinCeiling};
  AdaptiveSpin awaiting_spin_{kMaxAwaitingSpin};
  /// How long the last wait took, in nanoseconds.
  int64_t last_wait_ = 0;
  /// SO_RCVTIMEO as it was last set, in nanoseconds; 0 before.
  int64_t receive_timeout_ = 0;
  /// O_NONBLOCK was cleared (libuv sets it when the socket is first watched).
  bool blocks_ = false;
};

}  // namespace vfio_user
