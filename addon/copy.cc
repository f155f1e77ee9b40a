#include "copy.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace vfio_user {

namespace {

/// As much as a pipe holds by default, however the kernel cuts it into pages.
constexpr size_t kPipeChunk = 32 * 1024;

/// Through a pipe, for what process_vm_readv cannot do: forbidden by a sandbox, or device memory, which it
/// refuses.
int CopyByPipe(uint8_t* to, const uint8_t* from, size_t length) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) return -errno;
  int result = 0;
  while (length > 0 && result == 0) {
    const ssize_t in = write(ends[1], from, std::min(length, kPipeChunk));
    if (in < 0) {
      if (errno != EINTR) result = -errno;
      continue;
    }
    for (ssize_t left = in; left > 0 && result == 0;) {
      const ssize_t out = read(ends[0], to, static_cast<size_t>(left));
      if (out < 0) {
        if (errno != EINTR) result = -errno;
        continue;
      }
      to += out;
      left -= out;
    }
    from += in;
    length -= static_cast<size_t>(in);
  }
  close(ends[0]);
  close(ends[1]);
  return result;
}

}  // namespace

int CopyWithin(uint8_t* to, const uint8_t* from, size_t length) {
  // Both sides are ours. The "remote" one is pinned page by page, the local one copied from or to with
  // faults handled. One call may do less than all: what remains is tried again, and shows the error.
  while (length > 0) {
    const iovec local = {to, length};
    const iovec remote = {const_cast<uint8_t*>(from), length};
    const ssize_t copied = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    if (copied <= 0) return CopyByPipe(to, from, length);
    to += copied;
    from += copied;
    length -= static_cast<size_t>(copied);
  }
  return 0;
}

}  // namespace vfio_user
