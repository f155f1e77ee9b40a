#include "small-file.h"

#include <fcntl.h>
#include <unistd.h>

namespace vfio_user {

ssize_t ReadSmallFile(const char* path, char* into, size_t size) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  const ssize_t length = read(fd, into, size - 1);
  close(fd);
  if (length <= 0) return -1;
  into[length] = '\0';
  return length;
}

}  // namespace vfio_user
