// How much memory may be had before the kernel begins to kill processes.
#pragma once

#include <cstdint>

namespace vfio_user {

/// Bytes that can be allocated without swapping: of the machine, and of every control group that this process is in.
/// INT64_MAX where nothing says. It is what there is now: others may take it first.
int64_t AvailableMemory();

}  // namespace vfio_user
