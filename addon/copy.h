// memcpy that returns -EFAULT where a page cannot be had, instead of dying of SIGSEGV or SIGBUS: the kernel
// copies.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vfio_user {

/// Copies within this process. 0 or -errno; after an error some of the bytes may have been copied.
int CopyWithin(uint8_t* to, const uint8_t* from, size_t length);

}  // namespace vfio_user
