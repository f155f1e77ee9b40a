#include "processors.h"

#include <unistd.h>

#include <cstdio>

#include "small-file.h"

namespace vfio_user {

bool ProcessorsAreTaken() {
  char line[128];
  if (ReadSmallFile("/proc/loadavg", line, sizeof(line)) < 0) return false;
  // Three averages, over minutes; then how many are runnable now, and of how many.
  long runnable;
  if (sscanf(line, "%*f %*f %*f %ld/", &runnable) != 1) return false;
  const long processors = sysconf(_SC_NPROCESSORS_ONLN);
  return processors > 0 && runnable > processors;
}

}  // namespace vfio_user
