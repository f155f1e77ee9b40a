#include "processors.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

namespace vfio_user {

bool ProcessorsAreTaken() {
  const int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  char line[128];
  const ssize_t length = read(fd, line, sizeof(line) - 1);
  close(fd);
  if (length <= 0) return false;
  line[length] = '\0';
  // Three averages, over minutes; then how many are runnable now, and of how many.
  long runnable;
  if (sscanf(line, "%*f %*f %*f %ld/", &runnable) != 1) return false;
  const long processors = sysconf(_SC_NPROCESSORS_ONLN);
  return processors > 0 && runnable > processors;
}

}  // namespace vfio_user
