#include "eventfd-adder.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace vfio_user {

EventFdAdder& EventFdAdder::Get() {
  static thread_local EventFdAdder adder;
  return adder;
}

EventFdAdder::~EventFdAdder() {
  if (context_ != 0) syscall(SYS_io_destroy, context_);
}

bool EventFdAdder::Open() {
  if (is_refused_) return false;
  if (context_ != 0) return true;
  if (syscall(SYS_io_setup, kBatch, &context_) == 0) return true;
  // A kernel without it, a seccomp filter, fs.aio-max-nr: none of that changes while we run.
  context_ = 0;
  is_refused_ = true;
  return false;
}

bool EventFdAdder::Add(int fd, uint64_t count) {
  if (!Open()) return false;
  // A read of no bytes, which an eventfd refuses: the request ends at once, and that is what is signalled.
  iocb request = {};
  request.aio_lio_opcode = IOCB_CMD_PREAD;
  request.aio_fildes = static_cast<uint32_t>(fd);
  request.aio_flags = IOCB_FLAG_RESFD;
  request.aio_resfd = static_cast<uint32_t>(fd);
  std::array<iocb*, kBatch> requests;
  requests.fill(&request);
  uint64_t done = 0;
  while (done < count) {
    const auto wanted = std::min<uint64_t>(count - done, kBatch);
    const auto begun = syscall(SYS_io_submit, context_, wanted, requests.data());
    if (begun > 0) {
      done += static_cast<uint64_t>(begun);
      continue;
    }
    if (begun < 0 && errno != EAGAIN) return done > 0;
    // Those that have ended stay in the queue until they are taken.
    std::array<io_event, kBatch> ends;
    if (syscall(SYS_io_getevents, context_, 0, kBatch, ends.data(), nullptr) <= 0) return done > 0;
  }
  return true;
}

}  // namespace vfio_user
