// Adds to an eventfd without ever waiting for its reader. write(2) waits where the counter is full and O_NONBLOCK is not set;
// whoever shares the eventfd can do both between a look and the write. What the kernel itself signals at the end of an
// asynchronous request (aio_resfd of <linux/aio_abi.h>) never waits.
#pragma once

#include <linux/aio_abi.h>

#include <cstdint>

namespace vfio_user {

class EventFdAdder {
 public:
  /// The most that is added: a request for each.
  static constexpr uint64_t kMost = 1024;

  /// Of this thread.
  static EventFdAdder& Get();

  EventFdAdder() = default;
  ~EventFdAdder();
  EventFdAdder(const EventFdAdder&) = delete;
  EventFdAdder& operator=(const EventFdAdder&) = delete;

  /// Adds `count`, 1 to kMost. False where nothing was added: the kernel has no asynchronous requests for us.
  bool Add(int fd, uint64_t count);

 private:
  static constexpr int kBatch = 64;

  bool Open();

  bool is_refused_ = false;
  aio_context_t context_ = 0;
};

}  // namespace vfio_user
