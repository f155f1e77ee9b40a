// Whether to spin before blocking, learned from what both cost.
//
// A blocked thread pays for falling asleep and waking up: on an idle machine a spin of some microseconds takes a
// round trip from 53 to 20 µs. Where every processor is busy the spinner takes the time that the peer needs to
// answer, and uses up its own: the scheduler then lets it wait for milliseconds. Neither is known in advance and both
// change, so the governor measures.
//
//   wait ──> Begin ──> 0: block at once               ──┐
//              │                                        ├──> End(time it took)
//              └─────> n: spin up to n ns, then block ──┘
//
//   trial of one way ──▶ trial of the other ──▶ use the cheaper ──▶ trial ...
//     kTrial waits          kTrial waits        kUse waits, twice as many after each verdict that stays the same
//
// - While more threads want to run than there are processors spinning is not tried at all: on a busy machine a trial
//   costs more than it can tell, since the scheduler lets the spinner wait for long after it.
// - A trial is a run of waits, not single ones, and its first waits do not count: the scheduler takes some dozens of
//   round trips to put client and server where a way of waiting keeps them (on one processor, or on two).
// - A cost is the sum of the times from asking to the answer, each capped at four ceilings: one slow command must
//   not drown what is known about the quick ones, and where all are slow both ways cost the same.
// - Spinning has to win by a thirty-second: it burns a processor, but only one that nobody else wants.
// - Blocking is quick while the scheduler keeps client and server on one processor, and slow again when it parts them:
//   both are tried again when a run of blocking takes twice what it did in its trial; later each time that blocking
//   wins again.
// - Spinning has lost as soon as a run of it has taken twice what the same number of blocking waits took before: on a
//   busy machine a single wait may cost as much as a hundred, and a debt to the scheduler is paid by the next ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "processors.h"

namespace vfio_user {

class SpinGovernor {
 public:
  static constexpr int64_t kDefaultCeiling = 50'000;

  /// As many waits bring it to its first verdict.
  static constexpr uint32_t kWaitsToVerdict = 192;

  explicit SpinGovernor(int64_t ceiling = kDefaultCeiling) : ceiling_(ceiling) {}

  /// One that begins with what this one does, and finds out for itself whether that is right.
  SpinGovernor Heir() const {
    SpinGovernor heir(ceiling_);
    heir.spinning_ = spinning_;
    heir.block_mean_ = block_mean_;
    return heir;
  }

  /// The longest spin in nanoseconds; 0 never spins.
  int64_t ceiling() const { return ceiling_; }

  /// How long this wait may spin, in nanoseconds.
  int64_t Begin() const { return spinning_ ? ceiling_ : 0; }

  /// Whether the next wait is compared with others: then all of it counts, from before the question was sent. Who answers may
  /// do so while it is being sent, where there is one processor for both, and would seem to have taken no time.
  bool IsExact() const { return ceiling_ != 0 && (phase_ != Phase::kUse || !spinning_); }

  /// The wait that began last is over, after `took` nanoseconds.
  void End(int64_t took) {
    if (ceiling_ == 0) return;
    ++waits_;
    // A stall says nothing about blocking, but much about spinning: it may be the debt of earlier spins.
    const int64_t counted = spinning_ ? took : std::min(took, 4 * block_mean_);
    run_ = waits_ % kTrial == 1 ? counted : run_ + counted;
    if (phase_ != Phase::kUse && waits_ > kSettle) cost_ += std::min(took, 4 * ceiling_);
    const bool lost = run_ > 2 * kTrial * block_mean_;
    if (lost && spinning_) {
      GiveUpSpinning();
    } else if (lost && phase_ == Phase::kUse && waits_ > use_ / 8) {
      TryBoth();
    } else if (waits_ == (phase_ == Phase::kUse ? use_ : kTrial)) {
      NextPhase();
    }
  }

 private:
  static constexpr uint32_t kSettle = 32;
  static constexpr uint32_t kTrial = 96;
  static constexpr uint32_t kFirstBlockingUse = 2048;
  static constexpr uint32_t kFirstSpinningUse = 8192;
  static constexpr uint32_t kLongestUse = 65536;

  enum class Phase { kFirst, kSecond, kUse };

  /// The first trial is of the way in use: what was just used has settled.
  void NextPhase() {
    const int64_t cost = std::exchange(cost_, 0);
    if (!spinning_ && phase_ != Phase::kUse) block_mean_ = cost / (kTrial - kSettle);
    waits_ = 0;
    switch (phase_) {
      case Phase::kFirst:
        if (!spinning_ && ProcessorsAreTaken()) {
          Use(false, true);
          use_ = kFirstBlockingUse;
          break;
        }
        first_cost_ = cost;
        phase_ = Phase::kSecond;
        spinning_ = !spinning_;
        break;
      case Phase::kSecond: {
        const int64_t spin = spinning_ ? cost : first_cost_;
        const int64_t block = spinning_ ? first_cost_ : cost;
        Use(spin + spin / 32 < block, !spinning_);
        break;
      }
      case Phase::kUse:
        phase_ = Phase::kFirst;
        break;
    }
  }

  /// After the trial of it blocking goes on; where it was in use both are tried again, since one wait may have been
  /// long for another reason.
  void GiveUpSpinning() {
    if (phase_ == Phase::kSecond) {
      waits_ = 0;
      cost_ = 0;
      Use(false, false);
    } else {
      TryBoth();
    }
  }

  void TryBoth() {
    phase_ = Phase::kFirst;
    spinning_ = false;
    waits_ = 0;
    cost_ = 0;
  }

  void Use(bool spin, bool was) {
    spinning_ = spin;
    use_ = spin == was ? std::min(use_ * 2, kLongestUse) : spin ? kFirstSpinningUse : kFirstBlockingUse;
    phase_ = Phase::kUse;
  }

  int64_t ceiling_;
  int64_t cost_ = 0;
  int64_t first_cost_ = 0;
  /// What the waits of this run, of up to kTrial, have taken.
  int64_t run_ = 0;
  /// What a blocking wait cost in its last trial.
  int64_t block_mean_ = INT64_MAX / (8 * kTrial);
  uint32_t waits_ = 0;
  uint32_t use_ = kFirstBlockingUse;
  Phase phase_ = Phase::kFirst;
  bool spinning_ = false;
};

}  // namespace vfio_user
