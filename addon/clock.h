// The clock that waits are measured by.
#pragma once

#include <cstdint>
#include <ctime>

namespace vfio_user {

/// Nanoseconds; never goes back.
inline int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace vfio_user
