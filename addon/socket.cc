#include "socket.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "clock.h"
#include "scm-rights.h"

namespace vfio_user {

namespace {

/// SCM_MAX_FD of the kernel: the most fds of one message.
constexpr size_t kMaxFds = 253;
/// Room for them, and for the credentials and the like that a socket's former owner may have asked for.
constexpr size_t kControlSize = CMSG_SPACE(kMaxFds * sizeof(int)) + 256;
/// Added to the answer of a receive while fds wait: more than any has bytes.
constexpr int64_t kWithFds = int64_t{1} << 40;

/// The numbers of an array of fds; of too many the caller learns only that they are too many.
bool ReadFds(napi_env env, napi_value array, std::vector<int>* out) {
  uint32_t count = 0;
  if (napi_get_array_length(env, array, &count) != napi_ok) {
    return ThrowTypeError(env, "fds", "an array or null");
  }
  out->resize(std::min<size_t>(count, kMaxFds + 1));
  if (count > kMaxFds) return true;
  const Napi::HandleScope scope(env);
  for (uint32_t i = 0; i < count; ++i) {
    napi_value element;
    if (napi_get_element(env, array, i, &element) != napi_ok || !ReadFd(env, element, &(*out)[i]))
      return false;
  }
  return true;
}

}  // namespace

void Socket::Export(Napi::Env env, Napi::Object exports) {
  exports.Set("Socket", DefineClass(env, "Socket",
                                    {
                                        InstanceAccessor("fd", &Socket::GetFd, nullptr),
                                        InstanceAccessor("handle", &Socket::GetHandle, nullptr),
                                        ClassMethod("takeFds", TakeFds),
                                        ClassMethod("endSending", EndSending),
                                        InstanceMethod("watch", &Socket::WatchEvents),
                                        InstanceMethod("setSpinCeiling", &Socket::SetSpinCeiling),
                                        InstanceMethod("spin", &Socket::GetSpin),
                                        InstanceMethod("growSendBuffer", &Socket::GrowSendBuffer),
                                        InstanceMethod("ref", &Socket::RefLoop),
                                        InstanceMethod("unref", &Socket::UnrefLoop),
                                        InstanceMethod("close", &Socket::CloseSocket),
                                    }));
  // The environment outlives what is called in it.
  auto* environment = Environment::Of(env).get();
  const auto add = [&](const char* name, napi_callback function) {
    napi_value value;
    if (napi_create_function(env, name, NAPI_AUTO_LENGTH, function, environment, &value) != napi_ok) {
      throw Napi::Error::New(env);
    }
    exports.Set(name, Napi::Value(env, value));
  };
  add("send", Send);
  add("recv", Recv);
  add("recvSpin", RecvSpin);
  add("recvWait", RecvWait);
  add("roundTrip", RoundTrip);
  add("wait", Wait);
}

Socket::Socket(const Napi::CallbackInfo& info) : PolledObject(info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) throw Napi::Error::New(info.Env());
  handle_ = environment_->sockets.Add(this);
  if (handle_ < 0) throw Napi::Error::New(info.Env(), "too many sockets, or no memory is left");
  Own(fd);
}

Socket::~Socket() {
  environment_->sockets.Remove(handle_);
  CloseFds();
}

Socket* Socket::FindSocket(napi_env env, const Environment& environment, napi_value handle) {
  double number;
  if (napi_get_value_double(env, handle, &number) == napi_ok && number >= 0 && number <= INT32_MAX) {
    const auto integer = static_cast<int32_t>(number);
    Socket* const socket = integer == number ? environment.sockets.Find(integer) : nullptr;
    if (socket != nullptr) [[likely]]
      return socket;
  }
  ThrowTypeError(env, "handle", "that of a Socket");
  return nullptr;
}

bool Socket::ReadOther(napi_env env, napi_value handle, Socket** out) const {
  *out = nullptr;
  int32_t number;
  if (napi_get_value_int32(env, handle, &number) == napi_ok && number == HandleTable<Socket>::kNone)
    return true;
  Socket* const socket = FindSocket(env, *environment_, handle);
  if (socket == nullptr) return false;
  if (socket->fd() >= 0) *out = socket;
  return true;
}

// ---------------------------------------------------------------------------------------------------------- sending

napi_value Socket::Send(napi_env env, napi_callback_info info) {
  napi_value arguments[8];
  const auto* self = ReadSocketCall(env, info, arguments);
  if (self == nullptr) return nullptr;
  const auto [handle, head_array, head_length, body_array, body_offset, body_length, sent_before, fd_array] =
      arguments;

  // First, as an array's getters may run code that detaches the buffers.
  std::vector<int> fds;
  if (!IsNothing(env, fd_array) && !ReadFds(env, fd_array, &fds)) return nullptr;

  Bytes head;
  uint64_t head_size;
  if (!ReadBytes(env, head_array, "head", &head) ||
      !ReadInteger(env, head_length, "headLength", &head_size)) {
    return nullptr;
  }
  if (head_size > head.length) {
    ThrowRangeError(env, "headLength", "more than head has");
    return nullptr;
  }
  Bytes body;
  if (!IsNothing(env, body_array)) {
    if (!ReadRange(env, body_array, body_offset, body_length, "body", &body)) return nullptr;
  } else {
    uint64_t size;
    if (!ReadInteger(env, body_length, "bodyLength", &size)) return nullptr;
    if (size != 0) {
      ThrowRangeError(env, "bodyLength", "more than no body has");
      return nullptr;
    }
  }
  uint64_t sent;
  if (!ReadInteger(env, sent_before, "sent", &sent)) return nullptr;
  if (sent > head_size + body.length) {
    ThrowRangeError(env, "sent", "more than the message has");
    return nullptr;
  }

  // What is left of both parts.
  iovec parts[2];
  size_t count = 0;
  const size_t sent_of_head = std::min<size_t>(sent, head_size);
  const size_t sent_of_body = sent - sent_of_head;
  if (sent_of_head < head_size) parts[count++] = {head.data + sent_of_head, head_size - sent_of_head};
  if (sent_of_body < body.length) parts[count++] = {body.data + sent_of_body, body.length - sent_of_body};

  // Fds left with the first byte.
  if (sent > 0) fds.clear();
  return MakeNumber(env, self->SendMessage(parts, count, fds));
}

int64_t Socket::SendMessage(iovec* parts, size_t count, const std::vector<int>& fds) const {
  if (fd() < 0) return -EBADF;
  if (fds.empty() && count == 1) return SendBytes(parts[0]);
  msghdr message = {};
  message.msg_iov = parts;
  message.msg_iovlen = count;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  if (!fds.empty()) {
    // A stream carries fds only along with a byte: without one they would be lost silently.
    if (fds.size() > kMaxFds || count == 0) return -EINVAL;
    const size_t size = fds.size() * sizeof(int);
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(size);
    memset(control, 0, message.msg_controllen);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(header), fds.data(), size);
  }
  for (;;) {
    const ssize_t sent = sendmsg(fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) return sent;
    if (errno != EINTR) return -errno;
  }
}

/// The kernel reads less of us than for sendmsg: some 100 ns.
int64_t Socket::SendBytes(iovec bytes) const {
  for (;;) {
    const ssize_t sent = ::send(fd(), bytes.iov_base, bytes.iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) return sent;
    if (errno != EINTR) return -errno;
  }
}

// -------------------------------------------------------------------------------------------------------- receiving

napi_value Socket::Recv(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  auto* self = ReadSocketCall(env, info, arguments);
  if (self == nullptr) return nullptr;
  Bytes into;
  if (!ReadRange(env, arguments[1], arguments[2], arguments[3], "into", &into)) return nullptr;
  if (into.length == 0) {
    // The answer would look like the end of the stream.
    ThrowRangeError(env, "length", "0");
    return nullptr;
  }
  return self->Received(env, self->Receive(into));
}

napi_value Socket::Received(napi_env env, int64_t result) const {
  return MakeNumber(env, result > 0 && !fds_.empty() ? result + kWithFds : result);
}

int64_t Socket::ReceiveOnce(Bytes into, int flags) {
  if (fd() < 0) return -EBADF;
  iovec part = {into.data, into.length};
  alignas(cmsghdr) char control[kControlSize];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t received = recvmsg(fd(), &message, flags | MSG_CMSG_CLOEXEC);
  if (received < 0) return -errno;
  if (message.msg_controllen == 0 && (message.msg_flags & MSG_CTRUNC) == 0) [[likely]]
    return received;
  return ClaimFds(message) ? received : -ETOOMANYREFS;
}

int64_t Socket::Receive(Bytes into) {
  for (;;) {
    const int64_t result = ReceiveOnce(into, MSG_DONTWAIT);
    if (result != -EINTR) return result;
  }
}

napi_value Socket::RecvSpin(napi_env env, napi_callback_info info) {
  napi_value arguments[5];
  auto* self = ReadSocketCall(env, info, arguments);
  if (self == nullptr) return nullptr;
  Bytes into;
  bool whole;
  if (!ReadRange(env, arguments[1], arguments[2], arguments[3], "into", &into)) return nullptr;
  if (napi_get_value_bool(env, arguments[4], &whole) != napi_ok) {
    ThrowTypeError(env, "whole", "a boolean");
    return nullptr;
  }
  if (into.length == 0) {
    ThrowRangeError(env, "length", "0");
    return nullptr;
  }
  return self->Received(env, whole ? self->ReceiveRest(into) : self->ReceiveSpinning(into));
}

/// Takes over the fds of a message. False when the kernel had to drop some: then the others are closed too,
/// since nobody can tell which is which.
bool Socket::ClaimFds(const msghdr& message) {
  const size_t before = fds_.size();
  AppendFds(message, &fds_);
  const bool whole = (message.msg_flags & MSG_CTRUNC) == 0;
  if (!whole) {
    for (size_t i = before; i < fds_.size(); ++i) close(fds_[i]);
    fds_.resize(before);
  }
  return whole;
}

napi_value Socket::TakeFds(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  auto* self = ReadCall<Socket>(env, info, arguments);
  if (self == nullptr) return nullptr;
  napi_value result;
  if (napi_create_array_with_length(env, self->fds_.size(), &result) != napi_ok) return nullptr;
  for (size_t i = 0; i < self->fds_.size(); ++i) {
    napi_value fd;
    if (napi_create_int32(env, self->fds_[i], &fd) != napi_ok ||
        napi_set_element(env, result, static_cast<uint32_t>(i), fd) != napi_ok) {
      return nullptr;  // Being terminated: the fds stay the socket's.
    }
  }
  if (!self->fds_.empty()) {
    for (const int fd : self->fds_) self->environment_->Lend(fd);
    self->fds_.clear();
  }
  return result;
}

void Socket::CloseFds() {
  for (const int fd : fds_) close(fd);
  fds_.clear();
}

// ------------------------------------------------------------------------------------------------------------- rest

Napi::Value Socket::WatchEvents(const Napi::CallbackInfo& info) {
  uint64_t events;
  if (!ReadInteger(info.Env(), info[0], "events", &events, kReadable | kWritable)) return {};
  return Napi::Number::New(info.Env(), WatchObject(static_cast<int>(events)));
}

void Socket::GrowSendBuffer(const Napi::CallbackInfo& info) {
  uint64_t bytes;
  if (!ReadInteger(info.Env(), info[0], "bytes", &bytes, 1 << 30)) return;
  int now = 0;
  socklen_t size = sizeof(now);
  // Linux answers with twice what was asked for, and gives no more than net.core.wmem_max without an error.
  if (getsockopt(fd(), SOL_SOCKET, SO_SNDBUF, &now, &size) < 0 || now / 2 >= static_cast<int>(bytes)) return;
  const int wanted = static_cast<int>(bytes);
  setsockopt(fd(), SOL_SOCKET, SO_SNDBUF, &wanted, sizeof(wanted));
}

napi_value Socket::EndSending(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  auto* self = ReadCall<Socket>(env, info, arguments);
  if (self == nullptr) return nullptr;
  if (self->fd() < 0) return MakeNumber(env, -EBADF);
  return MakeNumber(env, shutdown(self->fd(), SHUT_WR) < 0 ? -errno : 0);
}

void Socket::CloseSocket(const Napi::CallbackInfo& /*info*/) {
  CloseObject();
  CloseFds();
}

void Socket::OnReady(int events) {
  Emit(MakeNumber(Env(), events));
}

}  // namespace vfio_user
