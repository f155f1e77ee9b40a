// Files of a few bytes that the kernel makes up when they are read, as those of /proc are.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace vfio_user {

/// What the first `size - 1` bytes of the file say, as a string. Its length, or -1 where nothing can be read. Allocates
/// nothing: it is used between two messages.
ssize_t ReadSmallFile(const char* path, char* into, size_t size);

}  // namespace vfio_user
