/*
 * Preloaded into a process, makes one system call of the addon fail: of those with a name the one at which a countdown
 * comes to an end. Countdown, errno, name and whether it failed are in the file that VFIO_USER_FAILING_CALLS names, mapped
 * here and written by the spec. Calls of anybody but the addon are left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct control {
  int32_t countdown; /* 0 is off; 1 fails the next call */
  int32_t error;
  int32_t failed;
  char name[20];
};

static struct control* control;

__attribute__((constructor)) static void open_control(void) {
  const char* path = getenv("VFIO_USER_FAILING_CALLS");
  if (path == NULL) return;
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void* mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped != MAP_FAILED) control = mapped;
}

static int fails(const char* name, void* caller) {
  Dl_info info;
  if (control == NULL || control->countdown == 0) return 0;
  /* With and without 64 it is the same call; send is sendmsg, too, and recv recvmsg. */
  if (strncmp(name, control->name, strlen(control->name)) != 0) return 0;
  if (dladdr(caller, &info) == 0 || info.dli_fname == NULL) return 0;
  if (strstr(info.dli_fname, "vfio_user.node") == NULL) return 0;
  if (--control->countdown > 0) return 0;
  control->failed = 1;
  errno = control->error;
  return 1;
}

#define FAILING(result, type, name, parameters, arguments)                       \
  type name parameters {                                                         \
    static type(*real) parameters;                                               \
    if (fails(#name, __builtin_return_address(0))) return result;                \
    if (real == NULL) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);        \
    return real arguments;                                                       \
  }

FAILING(-1, int, socket, (int domain, int type, int protocol), (domain, type, protocol))
FAILING(-1, int, connect, (int fd, const struct sockaddr* address, socklen_t length), (fd, address, length))
FAILING(-1, int, memfd_create, (const char* name, unsigned flags), (name, flags))
FAILING(-1, int, ftruncate, (int fd, off_t size), (fd, size))
FAILING(-1, int, ftruncate64, (int fd, off64_t size), (fd, size))
FAILING(-1, int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
FAILING(-1, int, fallocate64, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size))
FAILING(-1, int, eventfd, (unsigned initial, int flags), (initial, flags))
FAILING(-1, int, pipe2, (int fds[2], int flags), (fds, flags))
FAILING(MAP_FAILED, void*, mmap, (void* at, size_t size, int protection, int flags, int fd, off_t offset),
        (at, size, protection, flags, fd, offset))
FAILING(MAP_FAILED, void*, mmap64, (void* at, size_t size, int protection, int flags, int fd, off64_t offset),
        (at, size, protection, flags, fd, offset))
FAILING(-1, ssize_t, recv, (int fd, void* bytes, size_t size, int flags), (fd, bytes, size, flags))
FAILING(-1, ssize_t, send, (int fd, const void* bytes, size_t size, int flags), (fd, bytes, size, flags))
FAILING(-1, ssize_t, recvmsg, (int fd, struct msghdr* message, int flags), (fd, message, flags))
FAILING(-1, ssize_t, sendmsg, (int fd, const struct msghdr* message, int flags), (fd, message, flags))

#define FAILING_FCNTL(name)                                                        \
  int name(int fd, int command, ...) {                                             \
    static int (*real)(int, int, ...);                                             \
    va_list list;                                                                  \
    va_start(list, command);                                                       \
    void* argument = va_arg(list, void*);                                          \
    va_end(list);                                                                  \
    if (fails(#name, __builtin_return_address(0))) return -1;                      \
    if (real == NULL) real = (int (*)(int, int, ...))dlsym(RTLD_NEXT, #name);      \
    return real(fd, command, argument);                                            \
  }

FAILING_FCNTL(fcntl)
FAILING_FCNTL(fcntl64)
