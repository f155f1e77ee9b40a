// Whether to spin before blocking, learned from what both cost.
//
// A blocked thread pays for falling asleep and waking up: on an idle machine a spin of some microseconds takes a
// round trip from 53 to 20 µs. Where every processor is busy the spinner takes the time that the peer needs to
// answer: from 15 to 25 µs. Neither is known in advance and both change, so the governor measures.
//
//   wait ──> Begin ──> 0: block at once               ──┐
//              │                                        ├──> End(time it took)
//              └─────> n: spin up to n ns, then block ──┘
//
//   trial of one way ──▶ trial of the other ──▶ use the cheaper ──▶ trial ...
//     kTrial waits          kTrial waits        kUse waits, twice as many after each verdict that stays the same
//
// - A trial is a run of waits, not single ones, and its first waits do not count: the scheduler takes some dozens of
//   round trips to put client and server where a way of waiting keeps them (on one processor, or on two).
// - A cost is the sum of the times from asking to the answer, each capped at four ceilings: one slow command must
//   not drown what is known about the quick ones, and where all are slow both ways cost the same.
// - Spinning has to win by an eighth: it burns a processor that others could use.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace vfio_user {

class SpinGovernor {
 public:
  static constexpr int64_t kDefaultCeiling = 50'000;

  /// The longest spin in nanoseconds; 0 never spins. What was learned under another ceiling is forgotten.
  void SetCeiling(int64_t nanoseconds) { *this = SpinGovernor(nanoseconds); }

  explicit SpinGovernor(int64_t ceiling = kDefaultCeiling) : ceiling_(ceiling) {}

  /// How long this wait may spin, in nanoseconds.
  int64_t Begin() const { return spinning_ ? ceiling_ : 0; }

  /// The wait that began last is over, after `took` nanoseconds.
  void End(int64_t took) {
    if (ceiling_ == 0) return;
    ++waits_;
    if (phase_ != Phase::kUse && waits_ > kSettle) cost_ += std::min(took, 4 * ceiling_);
    if (waits_ == (phase_ == Phase::kUse ? use_ : kTrial)) NextPhase();
  }

 private:
  static constexpr uint32_t kSettle = 32;
  static constexpr uint32_t kTrial = 96;
  static constexpr uint32_t kFirstUse = 1024;
  static constexpr uint32_t kLongestUse = 8192;

  enum class Phase { kFirst, kSecond, kUse };

  /// The first trial is of the way in use: what was just used has settled.
  void NextPhase() {
    const int64_t cost = std::exchange(cost_, 0);
    waits_ = 0;
    switch (phase_) {
      case Phase::kFirst:
        first_cost_ = cost;
        phase_ = Phase::kSecond;
        spinning_ = !spinning_;
        break;
      case Phase::kSecond: {
        const int64_t spin = spinning_ ? cost : first_cost_;
        const int64_t block = spinning_ ? first_cost_ : cost;
        const bool was = !spinning_;
        spinning_ = spin + spin / 8 < block;
        use_ = spinning_ == was ? std::min(use_ * 2, kLongestUse) : kFirstUse;
        phase_ = Phase::kUse;
        break;
      }
      case Phase::kUse:
        phase_ = Phase::kFirst;
        break;
    }
  }

  int64_t ceiling_;
  int64_t cost_ = 0;
  int64_t first_cost_ = 0;
  uint32_t waits_ = 0;
  uint32_t use_ = kFirstUse;
  Phase phase_ = Phase::kFirst;
  bool spinning_ = true;
};

}  // namespace vfio_user
