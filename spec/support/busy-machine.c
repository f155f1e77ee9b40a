/*
 * Preloaded into a process, makes the machine look busy to the addon, and writes down what it does about it. In the
 * environment: VFIO_USER_LOADAVG, a file that is opened in place of /proc/loadavg; VFIO_USER_HERE, the processor that
 * sched_getcpu says; VFIO_USER_MOVES, a file that gets a line of each sched_setaffinity, with the processors as a number in
 * base 16; VFIO_USER_UNMOVED, which of these calls fails, the first being 1; VFIO_USER_ALLOWED, what
 * sched_getaffinity says before the first of them, a number in base 16; VFIO_USER_STATUS, a file that is opened in place of
 * /proc/thread-self/status.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number(const char* name) {
  const char* text = getenv(name);
  return text == NULL ? -1 : atoi(text);
}

static const char* replaced(const char* path) {
  if (strcmp(path, "/proc/loadavg") == 0) return getenv("VFIO_USER_LOADAVG");
  const char* status = getenv("VFIO_USER_STATUS");
  return status != NULL && strcmp(path, "/proc/thread-self/status") == 0 ? status : path;
}

#define REPLACING_OPEN(name)                                                         \
  int name(const char* path, int flags, ...) {                                       \
    static int (*real)(const char*, int, ...);                                       \
    va_list list;                                                                    \
    va_start(list, flags);                                                           \
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(list, mode_t) : 0;           \
    va_end(list);                                                                    \
    if (real == NULL) real = (int (*)(const char*, int, ...))dlsym(RTLD_NEXT, #name); \
    return real(replaced(path), flags, mode);                                        \
  }

REPLACING_OPEN(open)
REPLACING_OPEN(open64)

/* How often sched_setaffinity was called. */
static int moves;

int sched_getcpu(void) {
  return number("VFIO_USER_HERE");
}

int sched_getaffinity(pid_t thread, size_t size, cpu_set_t* set) {
  static int (*real)(pid_t, size_t, cpu_set_t*);
  if (real == NULL) real = (int (*)(pid_t, size_t, cpu_set_t*))dlsym(RTLD_NEXT, "sched_getaffinity");
  const int result = real(thread, size, set);
  const char* allowed = getenv("VFIO_USER_ALLOWED");
  if (allowed != NULL && moves == 0) ((unsigned long*)set)[0] = strtoul(allowed, NULL, 16);
  return result;
}

int sched_setaffinity(pid_t thread, size_t size, const cpu_set_t* set) {
  static int (*real)(pid_t, size_t, const cpu_set_t*);
  if (real == NULL) real = (int (*)(pid_t, size_t, const cpu_set_t*))dlsym(RTLD_NEXT, "sched_setaffinity");
  FILE* file = fopen(getenv("VFIO_USER_MOVES"), "a");
  fprintf(file, "%lx\n", ((const unsigned long*)set)[0]);
  fclose(file);
  if (++moves == number("VFIO_USER_UNMOVED")) {
    errno = EINVAL;
    return -1;
  }
  return real(thread, size, set);
}
