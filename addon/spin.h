// Whether to spin before blocking, learned from what both cost.
//
// A blocked thread pays for falling asleep and waking up: on an idle machine a spin of some microseconds
// takes a round trip from 53 to 20 µs. Where every processor is busy the spinner takes the time that the
// peer needs to answer: from 15 to 25 µs. Neither is known in advance and both change, so the governor
// measures.
//
//   wait ──> Begin ──> 0: block at once               ──┐
//              │                                        ├──> End(time it took) ──> average of that way
//              └─────> n: spin up to n ns, then block ──┘
//
// - Each way has an exponentially weighted average of the nanoseconds from asking to the answer, each new
//   time counting for an eighth. A time is capped at four ceilings: one slow command must not drown what is
//   known about the quick ones, and where all are slow both ways cost the same.
// - The cheaper way is used. Spinning has to win by an eighth: it burns a processor that others could use.
// - The other way is tried in the first 4 of every 256 waits. The first wait after a change of way is not
//   counted: the processors are still in the state of the way before. The very first window starts with
//   blocking.
#pragma once

#include <algorithm>
#include <cstdint>

namespace vfio_user {

class SpinGovernor {
 public:
  static constexpr int64_t kDefaultCeiling = 50'000;

  /// The longest spin in nanoseconds; 0 never spins. What was learned under another ceiling is forgotten.
  void SetCeiling(int64_t nanoseconds) {
    *this = {};
    ceiling_ = nanoseconds;
  }

  /// How long this wait may spin, in nanoseconds.
  int64_t Begin() {
    if (ceiling_ == 0) return 0;
    const bool probe = waits_++ % kWindow < kProbes;
    const bool spin = SpinPays() != probe;
    settled_ = spin == spinning_;
    spinning_ = spin;
    return spin ? ceiling_ : 0;
  }

  /// The wait that began last is over, after `took` nanoseconds.
  void End(int64_t took) {
    if (settled_) (spinning_ ? spin_ : block_).Add(std::min(took, 4 * ceiling_));
  }

 private:
  static constexpr uint32_t kWindow = 256;
  static constexpr uint32_t kProbes = 4;

  struct Average {
    int64_t cost = 0;
    bool known = false;

    void Add(int64_t sample) {
      cost = known ? cost + (sample - cost) / 8 : sample;
      known = true;
    }
  };

  bool SpinPays() const {
    if (!spin_.known || !block_.known) return true;
    return spin_.cost + spin_.cost / 8 < block_.cost;
  }

  int64_t ceiling_ = kDefaultCeiling;
  Average block_;
  Average spin_;
  uint32_t waits_ = 0;
  bool spinning_ = false;  // the way of the last wait
  bool settled_ = true;    // and whether the one before went the same way
};

}  // namespace vfio_user
