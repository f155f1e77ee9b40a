// The fds that come with a message, out of what recvmsg wrote. It needs nothing of Node, so that a fuzzer reaches it
// (fuzz/addon/scm-rights.cc).
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <cstring>
#include <vector>

namespace vfio_user {

/// Appends the fds of a message's SCM_RIGHTS to `fds`, which owns them from here on. The kernel writes sound headers;
/// one that is not ends the walk, and nothing is read outside of [msg_control, msg_control + msg_controllen).
inline void AppendFds(const msghdr& message, std::vector<int>* fds) {
  const auto* at = static_cast<const unsigned char*>(message.msg_control);
  size_t left = at == nullptr ? 0 : message.msg_controllen;
  while (left >= sizeof(cmsghdr)) {
    cmsghdr header;
    memcpy(&header, at, sizeof(header));
    if (header.cmsg_len < CMSG_LEN(0) || header.cmsg_len > left) return;
    if (header.cmsg_level == SOL_SOCKET && header.cmsg_type == SCM_RIGHTS) {
      const size_t count = (header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
      const size_t before = fds->size();
      fds->resize(before + count);
      if (count > 0) memcpy(fds->data() + before, at + CMSG_LEN(0), count * sizeof(int));
    }
    // The last one need not be padded to the alignment of a next.
    const size_t step = CMSG_ALIGN(header.cmsg_len);
    if (step >= left) return;
    at += step;
    left -= step;
  }
}

}  // namespace vfio_user
