// A connected stream socket: sendmsg and recvmsg with fds, without ever blocking; and a wait that is bounded.
//
// Fds that came in belong to the socket until `takeFds` hands them to JavaScript; what nobody took is
// closed with the socket. Their number is mirrored into the caller's Int32Array, so that the hot path need
// not ask.
//
// Waiting is in socket-wait.cc, passing on in relay.cc.
//
// The methods that each message takes are bound to the object (see DefineBoundMethod), the others are the class's.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <vector>

#include "polled-fd.h"
#include "spin.h"

namespace vfio_user {

class Socket : public PolledObject<Socket> {
 public:
  static constexpr const char* kName = "VfioUserSocket";

  static Napi::Function Define(Napi::Env env);
  explicit Socket(const Napi::CallbackInfo& info);
  ~Socket() override;

 private:
  static napi_value Send(napi_env env, napi_callback_info info);
  static napi_value RoundTrip(napi_env env, napi_callback_info info);
  static napi_value Recv(napi_env env, napi_callback_info info);
  static napi_value RecvEager(napi_env env, napi_callback_info info);
  static napi_value RecvWait(napi_env env, napi_callback_info info);
  static napi_value Wait(napi_env env, napi_callback_info info);
  static napi_value Relay(napi_env env, napi_callback_info info);
  static napi_value TakeFds(napi_env env, napi_callback_info info);
  static napi_value EndSending(napi_env env, napi_callback_info info);
  Napi::Value WatchEvents(const Napi::CallbackInfo& info);
  void SetSpinCeiling(const Napi::CallbackInfo& info);
  void GrowSendBuffer(const Napi::CallbackInfo& info);
  void CloseSocket(const Napi::CallbackInfo& info);

  /// A Socket argument; null is none.
  bool ReadSocket(napi_env env, napi_value value, Socket** out) const;

  int64_t SendMessage(iovec* parts, size_t count, const std::vector<int>& fds) const;
  int64_t SendBytes(iovec bytes) const;
  /// recvmsg with `flags`; EINTR is the caller's.
  int64_t ReceiveOnce(Bytes into, int flags);
  int64_t Receive(Bytes into);
  int64_t ReceiveEagerly(Bytes into, int64_t patience, bool whole);
  int64_t ReceiveBlocking(Bytes into, int64_t now, int64_t deadline, bool with_fds);
  bool PrepareToBlock(int64_t nanoseconds);
  int64_t ReceiveBytesOnce(Bytes into, int flags) const;
  int64_t ReceiveBytes(Bytes into) const;
  int64_t ReceiveWithin(Bytes into, int64_t nanoseconds, const Socket* other, bool with_fds);
  SpinGovernor& governor() { return waits_ < SpinGovernor::kWaitsToVerdict ? environment_->spin : governor_; }
  /// Notes how long a wait took. Gives `result` back.
  int64_t EndWait(int64_t took, int64_t result);
  int64_t ReceivePolling(Bytes into, int64_t deadline, const Socket* other);
  bool IsReadable() const;
  bool ClaimFds(const msghdr& message);
  void CloseFds();
  void WriteStatus();

  void OnReady(int events) override;

  Napi::ObjectReference status_;
  std::vector<int> fds_;
  /// Its own, once it has waited as often as it takes to know; the environment's before.
  SpinGovernor governor_;
  uint32_t waits_ = 0;
  /// How long the last wait took, in nanoseconds.
  int64_t last_wait_ = 0;
  /// SO_RCVTIMEO as it was last set, in nanoseconds; 0 before.
  int64_t receive_timeout_ = 0;
  /// O_NONBLOCK was cleared (libuv sets it when the socket is first watched).
  bool blocks_ = false;
};

}  // namespace vfio_user
