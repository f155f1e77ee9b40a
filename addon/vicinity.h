// Brings a thread that blocks for answers to the processor of whoever answers, where every processor is wanted.
//
// A client and a server that take turns need one processor between them. On two, each of which others want as well, every
// turn ends with the other processor taken away from somebody: 80 to 100 µs a round trip, where it is 14 to 20 on one (an
// AMD EPYC, two endless threads on its two processors). The scheduler brings the two together while they are light; once
// they are not, it may take seconds, and now and then it parts them again.
//
//   kPeriod blocking waits ──▶ slow? ──▶ every processor wanted? ──▶ the other one elsewhere? ──▶ move there
//
// - The thread is moved, not bound: it may run where it might before, and the scheduler may move it again.
// - Not where a seccomp filter is in force: one that has no sched_setaffinity on its list may end the process.
// - Where a move did not help (the server answers in another thread than its first, or is slow) the next one is tried
//   after twice as many periods.
#pragma once

#include <cstdint>

namespace vfio_user {

/// The calling thread and whoever answers on the socket `fd` have one processor to run on, and it is the same: what one of
/// them spins the other waits. False where nothing says.
bool SharesOneProcessor(int fd);

class Vicinity {
 public:
  /// The calling thread has blocked on the socket `fd` for an answer, which came after `took` nanoseconds.
  void AfterBlocking(int fd, int64_t took);

 private:
  static constexpr uint32_t kPeriod = 64;
  /// On average: on one processor it is quicker, even on a busy machine.
  static constexpr int64_t kSlow = 30'000;
  /// One wait that took long says nothing of the others.
  static constexpr int64_t kMostCounted = 1'000'000;
  static constexpr uint32_t kLongestPause = 1024;

  void EndPeriod(int fd, int64_t mean);

  int64_t sum_ = 0;
  /// What a wait took before the last move; 0 once that was judged.
  int64_t before_ = 0;
  uint32_t waits_ = 0;
  /// Periods without a move: how many are left, and how many the next move is followed by.
  uint32_t left_ = 0;
  uint32_t pause_ = 1;
};

}  // namespace vfio_user
