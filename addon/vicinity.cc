#include "vicinity.h"

#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "processors.h"
#include "small-file.h"

namespace vfio_user {

namespace {

/// Where the first thread of a process last ran; -1 where nothing says.
int ProcessorOf(pid_t process) {
  char path[32];
  snprintf(path, sizeof(path), "/proc/%d/stat", static_cast<int>(process));
  char line[1024];
  if (ReadSmallFile(path, line, sizeof(line)) < 0) return -1;
  // The second field, a name in parentheses, may contain anything. `processor` is the 39th.
  const char* field = strrchr(line, ')');
  for (int i = 2; field != nullptr && i < 39; ++i) field = strchr(field + 1, ' ');
  int processor;
  if (field == nullptr || sscanf(field, " %d", &processor) != 1) return -1;
  return processor;
}

/// Who listened at the other end, or who made the pair; -1 for this process (which thread answers nothing says), for one
/// that cannot be seen from here, and for what is no Unix socket. Others may serve the connection in its stead, and once it
/// has gone others may have its number: then a move does not help.
pid_t PeerOf(int fd) {
  ucred peer;
  socklen_t size = sizeof(peer);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) return -1;
  return peer.pid > 0 && peer.pid != getpid() ? peer.pid : -1;
}

/// Whether somebody decides which system calls this process may make: one that it may not is the end of it, mostly.
bool IsFiltered() {
  char text[4096];
  const ssize_t length = ReadSmallFile("/proc/thread-self/status", text, sizeof(text));
  if (length < 0) return true;
  const char* field = strstr(text, "\nSeccomp:");
  int mode;
  // A kernel without seccomp has no such line; one that may stand behind what was read is not known to be none.
  if (field == nullptr) return length == sizeof(text) - 1;
  return sscanf(field, "\nSeccomp: %d", &mode) != 1 || mode != 0;
}

/// Moves the calling thread to a processor that it may run on. False where it has not been moved.
bool MoveTo(int processor) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0) return false;
  if (processor < 0 || processor >= CPU_SETSIZE || !CPU_ISSET(processor, &allowed)) return false;
  cpu_set_t processors;
  CPU_ZERO(&processors);
  CPU_SET(processor, &processors);
  if (sched_setaffinity(0, sizeof(processors), &processors) < 0) return false;
  // Of all processors the kernel leaves those that the thread may have, and gives it more when its cpuset grows. A thread
  // that asks for just those that it had before is bound to them for good.
  memset(&processors, 0xff, sizeof(processors));
  const bool isFree = sched_setaffinity(0, sizeof(processors), &processors) == 0 &&
                      sched_getaffinity(0, sizeof(processors), &processors) == 0 &&
                      CPU_EQUAL(&processors, &allowed);
  // Then somebody had bound it. Where this fails, what it may have has changed meanwhile.
  if (!isFree) sched_setaffinity(0, sizeof(allowed), &allowed);
  return true;
}

}  // namespace

bool SharesOneProcessor(int fd) {
  cpu_set_t ours;
  if (sched_getaffinity(0, sizeof(ours), &ours) < 0 || CPU_COUNT(&ours) != 1) return false;
  if (sysconf(_SC_NPROCESSORS_ONLN) == 1) return true;
  const pid_t peer = PeerOf(fd);
  cpu_set_t theirs;
  return peer >= 0 && sched_getaffinity(peer, sizeof(theirs), &theirs) == 0 && CPU_EQUAL(&ours, &theirs);
}

void Vicinity::AfterBlocking(int fd, int64_t took) {
  sum_ += std::min(took, kMostCounted);
  if (++waits_ < kPeriod) return;
  waits_ = 0;
  EndPeriod(fd, std::exchange(sum_, 0) / kPeriod);
}

void Vicinity::EndPeriod(int fd, int64_t mean) {
  if (before_ != 0) {
    const bool helped = mean < before_ - before_ / 4;
    pause_ = helped ? 1 : std::min(pause_ * 2, kLongestPause);
    left_ = pause_ - 1;
    before_ = 0;
  }
  if (left_ > 0) {
    --left_;
    return;
  }
  if (mean < kSlow || !ProcessorsAreTaken()) return;
  const pid_t peer = PeerOf(fd);
  const int processor = peer < 0 || IsFiltered() ? -1 : ProcessorOf(peer);
  if (processor >= 0 && processor == sched_getcpu()) return;
  if (processor >= 0 && MoveTo(processor))
    before_ = mean;
  else
    left_ = kLongestPause;
}

}  // namespace vfio_user
