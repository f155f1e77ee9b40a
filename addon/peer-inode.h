#pragma once

#include <cstdint>

namespace vfio_user {

/// The inode of the socket at the other end of the Unix socket `fd`, as fstat(2) of that one gives it; 0 before
/// it was accepted, or -errno: -ENOENT where `fd` is no Unix socket of this network namespace.
int64_t PeerInode(int fd);

}  // namespace vfio_user
