/*
 * Preloaded into nvme(1), has any character device answer as an NVMe controller: Identify and Get Log Page give the bytes of
 * the file that VFIO_USER_NVME_BYTES names. Everything else fails as it would.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <linux/nvme_ioctl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GET_LOG_PAGE = 0x02, IDENTIFY = 0x06 };

static int answer(uint8_t opcode, uint64_t address, uint32_t length) {
  const char* path = getenv("VFIO_USER_NVME_BYTES");
  if ((opcode != GET_LOG_PAGE && opcode != IDENTIFY) || path == NULL) {
    errno = ENOTTY;
    return -1;
  }
  void* data = (void*)(uintptr_t)address;
  memset(data, 0, length);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  const ssize_t count = read(fd, data, length);
  close(fd);
  return count < 0 ? -1 : 0;
}

int ioctl(int fd, unsigned long request, ...) {
  static int (*real)(int, unsigned long, ...);
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  if (request == NVME_IOCTL_ADMIN_CMD) {
    const struct nvme_passthru_cmd* command = argument;
    return answer(command->opcode, command->addr, command->data_len);
  }
  if (request == NVME_IOCTL_ADMIN64_CMD) {
    const struct nvme_passthru_cmd64* command = argument;
    return answer(command->opcode, command->addr, command->data_len);
  }
  if (real == NULL) real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
  return real(fd, request, argument);
}
