/*
 * Preloaded into a process, is the peer that shares an eventfd at the worst moment: as soon as somebody has seen that there is
 * room in it, it is full and its writes block, whatever flags it is given.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef int (*fcntl_type)(int, int, ...);

static int is_eventfd(int fd) {
  char path[64], name[64] = "";
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  return readlink(path, name, sizeof(name) - 1) > 0 && strcmp(name, "anon_inode:[eventfd]") == 0;
}

static void set_flags(int fd, int flags) {
  static fcntl_type real;
  if (real == NULL) real = (fcntl_type)dlsym(RTLD_NEXT, "fcntl");
  real(fd, F_SETFL, flags);
}

int poll(struct pollfd* fds, nfds_t count, int timeout) {
  static int (*real)(struct pollfd*, nfds_t, int);
  if (real == NULL) real = (int (*)(struct pollfd*, nfds_t, int))dlsym(RTLD_NEXT, "poll");
  const int result = real(fds, count, timeout);
  if (result != 1 || count != 1 || (fds->revents & POLLOUT) == 0 || !is_eventfd(fds->fd)) return result;
  const uint64_t most = UINT64_MAX - 1;
  set_flags(fds->fd, O_RDWR | O_NONBLOCK);
  if (write(fds->fd, &most, sizeof(most)) != sizeof(most)) return -1;
  set_flags(fds->fd, O_RDWR);
  return result;
}

#define HASTY_FCNTL(name)                                              \
  int name(int fd, int command, ...) {                                 \
    static fcntl_type real;                                            \
    va_list list;                                                      \
    va_start(list, command);                                           \
    void* argument = va_arg(list, void*);                              \
    va_end(list);                                                      \
    if (real == NULL) real = (fcntl_type)dlsym(RTLD_NEXT, #name);      \
    const int result = real(fd, command, argument);                    \
    if (command == F_SETFL && is_eventfd(fd)) set_flags(fd, O_RDWR);   \
    return result;                                                     \
  }

HASTY_FCNTL(fcntl)
HASTY_FCNTL(fcntl64)
