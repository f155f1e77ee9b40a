// Socket::Relay: messages from one socket to another and back, for whoever does nothing else with them.
//
//   this ──recvmsg──▶ into ──whole messages, a send each──▶ other          and the other way, in turns
//
// It ends when nothing has come for a while or a turn is over, and at once where there is anything to decide: fds, the end
// of a stream, an error, part of a message, a message that is too long or that the other side does not take whole. What
// was received by then and not sent on is left in `into`.
#include <cerrno>
#include <cstring>

#include "clock.h"
#include "socket.h"

namespace vfio_user {

namespace {

/// The longest that one call may go on: it holds up the loop.
constexpr uint64_t kMaxTurnUs = 1'000;
/// A message begins with so many bytes, and at kSizeAt with its own size, 32 bits, little-endian.
constexpr size_t kHeaderSize = 16;
constexpr size_t kSizeAt = 4;

/// What a call has done, in doubles, as JavaScript reads them. See NativeSocket.relay.
struct Tally {
  double messages[2];
  double bytes[2];
  double side;
  double from;
};

constexpr size_t kTallyLength = sizeof(Tally) / sizeof(double);

bool ReadTally(napi_env env, napi_value value, Tally** out) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_float64_array) {
    return ThrowTypeError(env, "tally", "a Float64Array");
  }
  if (length < kTallyLength) return ThrowRangeError(env, "tally", "too short or detached");
  *out = static_cast<Tally*>(data);
  return true;
}

/// The size of the message that begins at `at`; 0 while its header is not whole.
size_t SizeOfMessage(Bytes bytes, size_t at, size_t end) {
  if (end - at < kHeaderSize) return 0;
  uint32_t size;
  memcpy(&size, bytes.data + at + kSizeAt, sizeof(size));
  return size;
}

}  // namespace

napi_value Socket::Relay(napi_env env, napi_callback_info info) {
  napi_value arguments[6];
  auto* self = ReadCall<Socket>(env, info, arguments);
  if (self == nullptr) return nullptr;
  Socket* other;
  Bytes into;
  uint64_t patience;
  uint64_t turn;
  uint64_t longest;
  Tally* tally;
  if (!self->ReadSocket(env, arguments[0], &other) || !ReadBytes(env, arguments[1], "into", &into) ||
      !ReadInteger(env, arguments[2], "patienceUs", &patience, kMaxTurnUs) ||
      !ReadInteger(env, arguments[3], "turnUs", &turn, kMaxTurnUs) ||
      !ReadInteger(env, arguments[4], "longest", &longest) || !ReadTally(env, arguments[5], &tally)) {
    return nullptr;
  }
  if (into.length == 0) {
    ThrowRangeError(env, "into", "empty or detached");
    return nullptr;
  }
  *tally = {};
  if (other == nullptr || other == self || self->fd() < 0) return MakeNumber(env, -EBADF);

  Socket* const sides[] = {self, other};
  const int64_t begun = Now();
  const int64_t end_of_turn = begun + static_cast<int64_t>(turn) * 1000;
  int64_t last = begun;
  for (;;) {
    const double before = tally->messages[0] + tally->messages[1];
    for (size_t side = 0; side < 2; ++side) {
      const int64_t count = sides[side]->Receive(into);
      if (count == -EAGAIN) continue;
      tally->side = static_cast<double>(side);
      if (count <= 0 || !sides[side]->fds_.empty()) return MakeNumber(env, count);
      const auto end = static_cast<size_t>(count);
      size_t at = 0;
      while (at < end) {
        const size_t size = SizeOfMessage(into, at, end);
        if (size < kHeaderSize || size > longest || size > end - at) break;
        const int64_t sent = sides[1 - side]->SendBytes({into.data + at, size});
        if (sent <= 0) break;
        // Whoever asked said that this cannot be: the rest would be taken for a message.
        if (sent != static_cast<int64_t>(size)) return MakeNumber(env, -EIO);
        tally->messages[side] += 1;
        tally->bytes[side] += static_cast<double>(size);
        at += size;
      }
      tally->from = static_cast<double>(at);
      if (at < end) return MakeNumber(env, count);
    }
    const int64_t now = Now();
    if (tally->messages[0] + tally->messages[1] != before) last = now;
    if (now >= end_of_turn || now - last >= static_cast<int64_t>(patience) * 1000) {
      return MakeNumber(env, -EAGAIN);
    }
  }
}

}  // namespace vfio_user
