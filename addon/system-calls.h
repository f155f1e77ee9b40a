// send(2), recv(2) and recvmsg(2) without the C library around them: in a process of several threads, as Node's is, it
// makes each of them a cancellation point, which takes two locked instructions. Nothing cancels threads here.
#pragma once

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

namespace vfio_user {

// Some systems have one number for all socket calls. And a sanitizer has to see what the kernel reads and writes.
#if defined(SYS_sendto) && defined(SYS_recvfrom) && defined(SYS_recvmsg) && !defined(VFIO_USER_SANITIZED)

inline ssize_t CallSend(int fd, const void* data, size_t length, int flags) {
  return syscall(SYS_sendto, fd, data, length, flags, nullptr, 0);
}

inline ssize_t CallRecv(int fd, void* into, size_t length, int flags) {
  return syscall(SYS_recvfrom, fd, into, length, flags, nullptr, nullptr);
}

inline ssize_t CallRecvmsg(int fd, msghdr* message, int flags) {
  return syscall(SYS_recvmsg, fd, message, flags);
}

#else

inline ssize_t CallSend(int fd, const void* data, size_t length, int flags) {
  return ::send(fd, data, length, flags);
}

inline ssize_t CallRecv(int fd, void* into, size_t length, int flags) {
  return ::recv(fd, into, length, flags);
}

inline ssize_t CallRecvmsg(int fd, msghdr* message, int flags) {
  return ::recvmsg(fd, message, flags);
}

#endif

}  // namespace vfio_user
