// What a Socket does while it waits for a reply: for how long, spinning or blocked, and for which of two sockets.
//
//   roundTrip ── send ──┐
//   recvWait ───────────┴──▶ spin (adaptive-spin.h) ──▶ block in recvmsg, or poll where there is another socket
#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <utility>

#include "clock.h"
#include "socket.h"

namespace vfio_user {

namespace {

/// A worker is terminated between calls: none may last longer.
constexpr int64_t kMaxWaitMs = 50;
/// How much longer than asked for a wait may last: the kernel's clock ticks no finer.
constexpr int64_t kTick = 4'000'000;
/// In the result of `roundTrip`: not all of it went out, but this less the result.
constexpr int32_t kUnsent = -(1 << 16);
/// Added to the result of `roundTrip` while fds wait for `takeFds`: more than any has bytes.
constexpr int32_t kFastPathWithFds = 1 << 20;
/// In the answer of `wait`: the other socket is readable.
constexpr int kOtherReadable = 4;
/// How long the rest of a message is waited for: before any of it, and in all. It holds up the loop.
constexpr int64_t kRestPatience = 40'000;
constexpr int64_t kMostRestWait = 100'000;
/// How often that finds bytes: a megabyte comes in some thirty pieces, one that drips in a million.
constexpr unsigned kMostPieces = 256;
/// How many failed receives go between two looks at the other socket while spinning.
constexpr unsigned kLookEvery = 8;
/// And between two looks at the clock.
constexpr unsigned kClockEvery = 2;

/// poll(2) until `deadline`; 0 when it has passed. EINTR goes on with the time that remains.
int PollUntil(pollfd* fds, nfds_t count, int64_t deadline) {
  for (;;) {
    const int64_t rest = std::max<int64_t>(deadline - Now(), 0);
    const timespec timeout = {.tv_sec = rest / 1'000'000'000, .tv_nsec = rest % 1'000'000'000};
    const int ready = ppoll(fds, count, &timeout, nullptr);
    if (ready >= 0) return ready;
    if (errno != EINTR) return -errno;
  }
}

}  // namespace

/// `ReceiveOnce` where no fds can matter: a third less to do for the kernel. Fds that come all the same are closed by it.
int64_t Socket::ReceiveBytesOnce(Bytes into, int flags) const {
  const ssize_t received = ::recv(fd(), into.data, into.length, flags);
  return received >= 0 ? received : -errno;
}

int64_t Socket::ReceiveBytes(Bytes into) const {
  for (;;) {
    const int64_t result = ReceiveBytesOnce(into, MSG_DONTWAIT);
    if (result != -EINTR) return result;
  }
}

// A part of each of its callers: every return that a system call lies under takes some 8 ns.
template <bool with_fds>
[[gnu::always_inline]] inline int64_t Socket::ReceiveWithin(Bytes into, int64_t nanoseconds,
                                                            const Socket* other) {
  if (fd() < 0) return -EBADF;
  last_wait_ = 0;
  if (nanoseconds == 0) return Receive(into);
  const int64_t start = Now();
  const int64_t deadline = start + nanoseconds;
  const int64_t spin_until = std::min(start + blocking_spin_.Begin(), deadline);
  int64_t now = start;
  for (unsigned turn = 1; now < spin_until; ++turn) {
    const int64_t result = with_fds ? Receive(into) : ReceiveBytes(into);
    const bool answered =
        result != -EAGAIN || (other != nullptr && turn % kLookEvery == 0 && other->IsReadable());
    // With the clock as it was before the last look: who was answered asks again at once, and every look delays it.
    if (answered) return EndWait(now - start, result);
    if (turn % kClockEvery == 0) now = Now();
  }
  const int64_t result = other == nullptr ? ReceiveBlocking(into, now, deadline, with_fds)
                                          : ReceivePolling(into, deadline, other);
  return EndWait(Now() - start, result);
}

napi_value Socket::RecvWait(napi_env env, napi_callback_info info) {
  napi_value arguments[6];
  auto* self = ReadSocketCall(env, info, arguments);
  if (self == nullptr) return nullptr;
  Bytes into;
  int64_t timeout;
  Socket* other;
  if (!ReadRange(env, arguments[1], arguments[2], arguments[3], "into", &into) ||
      !ReadMilliseconds(env, arguments[4], kMaxWaitMs, &timeout) ||
      !self->ReadOther(env, arguments[5], &other)) {
    return nullptr;
  }
  if (into.length == 0) {
    ThrowRangeError(env, "length", "0");
    return nullptr;
  }
  return self->Received(env, self->ReceiveWithin<true>(into, timeout, other));
}

/// Receives what comes within a moment, as long as that has lately paid.
int64_t Socket::ReceiveSpinning(Bytes into) {
  const int64_t patience = awaiting_spin_.Begin();
  int64_t result = Receive(into);
  if (patience == 0) return result;
  const int64_t start = Now();
  int64_t now = start;
  while (result == -EAGAIN && now - start < patience) {
    result = Receive(into);
    now = Now();
  }
  awaiting_spin_.End(result == -EAGAIN ? awaiting_spin_.ceiling() : now - start);
  return result;
}

/// Receives all of `into`, as long as no pause before more of it is long: the rest of a message that is on its way.
int64_t Socket::ReceiveRest(Bytes into) {
  const size_t fds_before = fds_.size();
  const int64_t patience = std::min(kRestPatience, blocking_spin_.ceiling());
  size_t have = 0;
  int64_t waited = 0;
  int64_t paused_at = 0;
  unsigned pieces = 0;
  for (;;) {
    const int64_t result = Receive({into.data + have, into.length - have});
    if (result > 0) {
      have += static_cast<size_t>(result);
      // Nothing may come behind fds in one answer: nobody could tell whose they are.
      if (have == into.length || fds_.size() != fds_before || ++pieces == kMostPieces) {
        return static_cast<int64_t>(have);
      }
      if (paused_at != 0) waited += Now() - std::exchange(paused_at, 0);
      continue;
    }
    // The end of the stream and most errors are there to be found again; lost fds are not.
    if (result == -ETOOMANYREFS) return result;
    const int64_t answer = have > 0 ? static_cast<int64_t>(have) : result;
    if (result != -EAGAIN) return answer;
    const int64_t now = Now();
    if (paused_at == 0) paused_at = now;
    if (now - paused_at >= patience || waited + (now - paused_at) >= kMostRestWait) return answer;
  }
}

/// One system call where polling takes two: with nobody else to look after, recvmsg itself may block.
int64_t Socket::ReceiveBlocking(Bytes into, int64_t now, int64_t deadline, bool with_fds) {
  for (int64_t rest = deadline - now; rest > 0; rest = deadline - Now()) {
    if (!PrepareToBlock(rest)) return ReceivePolling(into, deadline, nullptr);
    const int64_t result = with_fds ? ReceiveOnce(into, 0) : ReceiveBytesOnce(into, 0);
    if (result != -EINTR && result != -EAGAIN) return result;
    // An EAGAIN before the time is over: somebody has set O_NONBLOCK again, as libuv does at the first watch.
    if (result == -EAGAIN) blocks_ = false;
  }
  return Receive(into);
}

/// Makes recvmsg block for this long at the most. False where the socket does not let it.
bool Socket::PrepareToBlock(int64_t nanoseconds) {
  if (fd() < 0) return false;
  if (!blocks_) {
    const int flags = fcntl(fd(), F_GETFL);
    // Everything else here says MSG_DONTWAIT, so nothing depends on the flag.
    if (flags < 0 || fcntl(fd(), F_SETFL, flags & ~O_NONBLOCK) < 0) return false;
    blocks_ = true;
  }
  // Most waits are of one length, and the clock's tick is some milliseconds: only a shorter one needs saying.
  if (receive_timeout_ != 0 && receive_timeout_ <= nanoseconds + kTick) return true;
  const int64_t microseconds = std::max<int64_t>(nanoseconds / 1000, 1);
  const timeval timeout = {.tv_sec = microseconds / 1'000'000, .tv_usec = microseconds % 1'000'000};
  if (setsockopt(fd(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0) return false;
  receive_timeout_ = nanoseconds;
  return true;
}

int64_t Socket::ReceivePolling(Bytes into, int64_t deadline, const Socket* other) {
  pollfd fds[2] = {{fd(), POLLIN, 0}, {other != nullptr ? other->fd() : -1, POLLIN, 0}};
  for (;;) {
    const int ready = PollUntil(fds, 2, deadline);
    if (ready <= 0) return ready < 0 ? ready : -EAGAIN;
    if (fds[0].revents != 0) {
      const int64_t result = Receive(into);
      if (result != -EAGAIN) return result;
    }
    if (fds[1].revents != 0 || Now() >= deadline) return -EAGAIN;
  }
}

bool Socket::IsReadable() const {
  pollfd poll = {fd(), POLLIN, 0};
  return ::poll(&poll, 1, 0) > 0;
}

napi_value Socket::Wait(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  const auto* self = ReadSocketCall(env, info, arguments);
  if (self == nullptr) return nullptr;
  uint64_t events;
  int64_t timeout;
  Socket* other;
  if (!ReadInteger(env, arguments[1], "events", &events, kReadable | kWritable) ||
      !ReadMilliseconds(env, arguments[2], kMaxWaitMs, &timeout) ||
      !self->ReadOther(env, arguments[3], &other)) {
    return nullptr;
  }
  if (self->fd() < 0) return MakeNumber(env, -EBADF);

  const bool read = (events & kReadable) != 0;
  const bool write = (events & kWritable) != 0;
  const int asked = (read ? POLLIN : 0) | (write ? POLLOUT : 0);
  pollfd fds[2] = {{self->fd(), static_cast<short>(asked), 0},
                   {other != nullptr ? other->fd() : -1, POLLIN, 0}};
  const int ready = PollUntil(fds, 2, Now() + timeout);
  if (ready < 0) return MakeNumber(env, ready);

  // A hang-up or an error is something to read, and lets no write block.
  const bool broken = (fds[0].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
  int result = 0;
  if (broken || (fds[0].revents & POLLIN) != 0) result |= kReadable;
  if (write && (broken || (fds[0].revents & POLLOUT) != 0)) result |= kWritable;
  if (fds[1].revents != 0) result |= kOtherReadable;
  return MakeNumber(env, result);
}

napi_value Socket::RoundTrip(napi_env env, napi_callback_info info) {
  void* data;
  if (napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data) != napi_ok) return nullptr;
  auto& environment = *static_cast<Environment*>(data);
  auto& memory = environment.fast_path;
  Socket* const self = environment.sockets.Find(memory.socket);
  const Socket* other =
      memory.other == HandleTable<Socket>::kNone ? nullptr : environment.sockets.Find(memory.other);
  if (self == nullptr || (other == nullptr && memory.other != HandleTable<Socket>::kNone)) {
    ThrowTypeError(env, "handle", "that of a Socket");
    return nullptr;
  }
  if (memory.length > sizeof(memory.request)) {
    ThrowRangeError(env, "length", "out of range");
    return nullptr;
  }
  if (other != nullptr && other->fd() < 0) other = nullptr;
  const int64_t timeout = std::min<int64_t>(memory.timeout_ms, kMaxWaitMs) * 1'000'000;
  const int64_t sent = self->SendBytes({memory.request, memory.length});
  if (sent != static_cast<int64_t>(memory.length)) {
    memory.result = kUnsent - static_cast<int32_t>(std::max<int64_t>(sent, 0));
    return nullptr;
  }
  const Bytes into = {memory.reply, sizeof(memory.reply)};
  const auto result = static_cast<int32_t>(self->ReceiveWithin<false>(into, timeout, other));
  memory.waited = static_cast<double>(self->last_wait_) * 1e-6;
  memory.other_is_readable = other != nullptr && other->IsReadable() ? 1 : 0;
  memory.result = result + (result > 0 && !self->fds_.empty() ? kFastPathWithFds : 0);
  return nullptr;
}

void Socket::SetSpinCeiling(const Napi::CallbackInfo& info) {
  uint64_t microseconds;
  if (!ReadInteger(info.Env(), info[0], "microseconds", &microseconds, kMaxWaitMs * 1000)) return;
  const int64_t ceiling = static_cast<int64_t>(microseconds) * 1000;
  // What was learned under another ceiling says nothing.
  if (ceiling == blocking_spin_.ceiling()) return;
  blocking_spin_ = AdaptiveSpin(ceiling);
  awaiting_spin_ = AdaptiveSpin(std::min(ceiling, kMaxAwaitingSpin));
}

Napi::Value Socket::GetSpin(const Napi::CallbackInfo& info) {
  auto spin = Napi::Array::New(info.Env(), 2);
  spin.Set(0u, static_cast<double>(blocking_spin_.interval()) / 1000);
  spin.Set(1u, static_cast<double>(awaiting_spin_.interval()) / 1000);
  return spin;
}

}  // namespace vfio_user
