// Control data of a message: any bytes at all, and what the kernel makes of any fds and any room for them.
#include "scm-rights.h"

#include <fcntl.h>
#include <fuzzer/FuzzedDataProvider.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace {

/// SCM_MAX_FD of the kernel.
constexpr size_t kMaxFds = 253;
constexpr size_t kMaxRoom = CMSG_SPACE(kMaxFds * sizeof(int)) + 256;

void Require(bool condition) {
  if (!condition) abort();
}

/// The lowest number that is free: another one afterwards is an fd that was left, or closed twice.
int LowestFree() {
  const int fd = fcntl(0, F_DUPFD_CLOEXEC, 0);
  Require(fd >= 0);
  close(fd);
  return fd;
}

/// Bytes that no kernel wrote, in memory of exactly their size.
void ParseBytes(FuzzedDataProvider* data) {
  const std::vector<uint8_t> bytes = data->ConsumeRemainingBytes<uint8_t>();
  const std::unique_ptr<void, decltype(&free)> control(malloc(bytes.size()), free);
  if (!bytes.empty()) memcpy(control.get(), bytes.data(), bytes.size());
  msghdr message = {};
  message.msg_control = control.get();
  message.msg_controllen = bytes.size();
  std::vector<int> fds = {-1};
  vfio_user::AppendFds(message, &fds);
  Require(fds[0] == -1 && (fds.size() - 1) * sizeof(int) <= bytes.size());
}

void Send(int socket, size_t fd_count, size_t length) {
  std::vector<char> bytes(length, 'x');
  alignas(cmsghdr) char control[kMaxRoom] = {};
  iovec part = {bytes.data(), bytes.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd_count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    const std::vector<int> fds(fd_count, 0);
    memcpy(CMSG_DATA(header), fds.data(), fd_count * sizeof(int));
  }
  sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/// One recvmsg with that much room; the fds that it brought are open, and all of them are found.
void Receive(int socket, size_t room, size_t length) {
  std::vector<char> bytes(length);
  const std::unique_ptr<void, decltype(&free)> control(malloc(room), free);
  iovec part = {bytes.data(), bytes.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = room == 0 ? nullptr : control.get();
  message.msg_controllen = room;
  if (recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0) return;
  std::vector<int> fds;
  vfio_user::AppendFds(message, &fds);
  Require(fds.size() <= kMaxFds);
  for (const int fd : fds) Require(close(fd) == 0);
}

void GoThroughKernel(FuzzedDataProvider* data) {
  const int before = LowestFree();
  int sockets[2];
  Require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
  const int credentials = data->ConsumeBool() ? 1 : 0;
  setsockopt(sockets[1], SOL_SOCKET, SO_PASSCRED, &credentials, sizeof(credentials));
  for (int steps = 0; data->remaining_bytes() > 0 && steps < 16; ++steps) {
    if (data->ConsumeBool()) {
      const auto count = data->ConsumeIntegralInRange<size_t>(0, kMaxFds);
      Send(sockets[0], count, data->ConsumeIntegralInRange<size_t>(1, 64));
    } else {
      const auto room = data->ConsumeIntegralInRange<size_t>(0, kMaxRoom);
      Receive(sockets[1], room, data->ConsumeIntegralInRange<size_t>(1, 96));
    }
  }
  close(sockets[0]);
  close(sockets[1]);
  Require(LowestFree() == before);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  FuzzedDataProvider data(bytes, size);
  // Read from the end, so that the bytes in front are control data as they are.
  if (data.ConsumeIntegral<uint8_t>() % 4 == 0) {
    GoThroughKernel(&data);
  } else {
    ParseBytes(&data);
  }
  return 0;
}
