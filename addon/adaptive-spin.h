// How long a wait spins before it blocks, or before the event loop goes on: an interval that adapts, as KVM's halt polling
// does.
//
// A thread that blocks pays for falling asleep and waking up: on an idle machine spinning takes a round trip from 53 to
// 20 µs. But the spinner uses a processor, which is wasted where the answer takes long, and missed where somebody else
// wants it: the peer, above all.
//
//   answered within the ceiling ──▶ the interval is doubled, up to the ceiling
//   not answered                ──▶ it is halved; below a sixteenth of the ceiling nothing spins for some waits
//   preempted again and again   ──▶ nothing spins for many waits: others want this processor
//
// After that the whole ceiling is tried again.
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <cstdint>

namespace vfio_user {

class AdaptiveSpin {
 public:
  /// The longest spin in nanoseconds; 0 never spins.
  explicit AdaptiveSpin(int64_t ceiling) : ceiling_(ceiling), interval_(ceiling) {}

  int64_t ceiling() const { return ceiling_; }
  /// How long the next wait may spin, in nanoseconds; 0 while nothing spins.
  int64_t interval() const { return interval_; }

  /// A wait begins: how long it may spin.
  int64_t Begin() {
    if (interval_ == 0 && ceiling_ != 0 && --rest_ == 0) Try();
    return interval_;
  }

  /// The wait has ended after `took` nanoseconds: as many as the ceiling, or more, where nobody knows when it would have.
  void End(int64_t took) {
    if (interval_ == 0) return;
    if (took < ceiling_) {
      interval_ = std::min(interval_ * 2, ceiling_);
    } else {
      interval_ /= 2;
      if (interval_ <= ceiling_ / 16) return Rest(kShortestRest, kLongestRest);
    }
    if (++waits_ % kPeriod == 0) EndPeriod();
  }

 private:
  /// How many waits go between two looks at how often the thread was preempted.
  static constexpr uint32_t kPeriod = 64;
  /// Preempted in two periods with fewer than these between them: it is not some interrupt or daemon.
  static constexpr uint32_t kFar = 16;
  /// After so many periods without that the next rest is a short one again.
  static constexpr uint32_t kProven = 256;
  /// Rests, in waits: after spinning in vain, and on a busy processor. Each is twice as long as the one before.
  static constexpr uint32_t kShortestRest = 64;
  static constexpr uint32_t kLongestRest = 1024;
  static constexpr uint32_t kShortestBusyRest = 4096;
  static constexpr uint32_t kLongestBusyRest = 65536;

  /// How often this thread has lost its processor without having asked for it.
  static long Preemptions() {
    rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
  }

  void Try() {
    interval_ = ceiling_;
    waits_ = 0;
    preemptions_ = Preemptions();
    quiet_ = kFar;
  }

  void Rest(uint32_t least, uint32_t most) {
    interval_ = 0;
    rest_ = std::clamp(next_rest_, least, most);
    next_rest_ = rest_ * 2;
  }

  void EndPeriod() {
    const long before = preemptions_;
    preemptions_ = Preemptions();
    if (before < 0) return;
    if (preemptions_ == before) {
      if (++quiet_ == kProven) next_rest_ = kShortestRest;
    } else if (quiet_ < kFar) {
      Rest(kShortestBusyRest, kLongestBusyRest);
    } else {
      quiet_ = 0;
    }
  }

  int64_t ceiling_;
  int64_t interval_;
  uint32_t waits_ = 0;
  /// Periods since the last one in which the thread was preempted.
  uint32_t quiet_ = kFar;
  /// How many waits are left that do not spin; and how many the next rest has.
  uint32_t rest_ = 0;
  uint32_t next_rest_ = kShortestRest;
  /// Before this period; -1 at first.
  long preemptions_ = -1;
};

}  // namespace vfio_user
