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
/// More than any head of a message has.
constexpr size_t kMaxHead = 4096;

/// How long a message is: its own words, at a place of its head, 32 bits, little-endian.
struct Cut {
  uint64_t head;
  uint64_t size_at;
};

/// What a call has done, in doubles, as JavaScript reads them. See SocketCalls.relay.
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

bool ReadCut(napi_env env, napi_value head, napi_value size_at, Cut* out) {
  if (!ReadInteger(env, head, "headBytes", &out->head, kMaxHead) ||
      !ReadInteger(env, size_at, "sizeAt", &out->size_at, kMaxHead)) {
    return false;
  }
  if (out->size_at + sizeof(uint32_t) <= out->head) return true;
  return ThrowRangeError(env, "sizeAt", "not within the head");
}

/// The size of the message that begins at `at`; 0 while its head is not whole.
size_t SizeOfMessage(Cut cut, Bytes bytes, size_t at, size_t end) {
  if (end - at < cut.head) return 0;
  uint32_t size;
  memcpy(&size, bytes.data + at + cut.size_at, sizeof(size));
  return size;
}

}  // namespace

napi_value Socket::Relay(napi_env env, napi_callback_info info) {
  napi_value arguments[9];
  auto* self = ReadSocketCall(env, info, arguments);
  if (self == nullptr) return nullptr;
  Socket* other;
  Bytes into;
  uint64_t patience;
  uint64_t turn;
  Cut cut;
  uint64_t longest;
  Tally* tally;
  if (!self->ReadOther(env, arguments[1], &other) || !ReadBytes(env, arguments[2], "into", &into) ||
      !ReadInteger(env, arguments[3], "patienceUs", &patience, kMaxTurnUs) ||
      !ReadInteger(env, arguments[4], "turnUs", &turn, kMaxTurnUs) ||
      !ReadCut(env, arguments[5], arguments[6], &cut) ||
      !ReadInteger(env, arguments[7], "longest", &longest) || !ReadTally(env, arguments[8], &tally)) {
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
      if (count <= 0 || !sides[side]->fds_.empty()) return sides[side]->Received(env, count);
      const auto end = static_cast<size_t>(count);
      size_t at = 0;
      while (at < end) {
        const size_t size = SizeOfMessage(cut, into, at, end);
        if (size < cut.head || size > longest || size > end - at) break;
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
