/*
 * Preloaded into nvme(1), has any character device answer as an NVMe controller.
 *
 * Where VFIO_USER_NVME_BYTES names a file, Identify and Get Log Page give its bytes. Where VFIO_USER_NVME_SOCKET names a socket, every
 * command goes there: a header, the data and metadata that the opcode sends; what comes back is a status, the result and
 * the data and metadata that the opcode receives.
 * Everything else fails as it would.
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
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { GET_LOG_PAGE = 0x02, IDENTIFY = 0x06 };
enum { ADMIN = 1, IO = 2, RESET = 3, RESCAN = 4 };

/* What stands before the data on the socket. */
struct request {
  uint32_t kind;
  uint32_t opcode;
  uint32_t nsid;
  uint32_t cdw2;
  uint32_t cdw3;
  uint32_t data_len;
  uint32_t metadata_len;
  uint32_t cdw10[6];
};

struct reply {
  int64_t status;
  uint64_t result;
};

static int answer_bytes(uint8_t opcode, uint64_t address, uint32_t length) {
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

static int connected(const char* path) {
  static int fd = -1;
  if (fd >= 0) return fd;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
  fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr*)&address, sizeof(address)) != 0) _exit(99);
  return fd;
}

static void send_all(int fd, const void* bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    const ssize_t count = write(fd, (const char*)bytes + done, length - done);
    if (count <= 0) _exit(99);
    done += (size_t)count;
  }
}

static void receive_all(int fd, void* bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    const ssize_t count = read(fd, (char*)bytes + done, length - done);
    if (count <= 0) _exit(99);
    done += (size_t)count;
  }
}

static int ask(const struct request* request, void* data, void* metadata, uint64_t* result) {
  const int fd = connected(getenv("VFIO_USER_NVME_SOCKET"));
  send_all(fd, request, sizeof(*request));
  if (request->opcode & 1) {
    send_all(fd, data, request->data_len);
    send_all(fd, metadata, request->metadata_len);
  }
  struct reply reply;
  receive_all(fd, &reply, sizeof(reply));
  if (reply.status == 0 && (request->opcode & 2)) {
    receive_all(fd, data, request->data_len);
    receive_all(fd, metadata, request->metadata_len);
  }
  *result = reply.result;
  if (reply.status >= 0) return (int)reply.status;
  errno = (int)-reply.status;
  return -1;
}

/* Both structures begin alike; of the result one has 32 and one 64 bits. */
static int command(uint32_t kind, struct nvme_passthru_cmd* command, uint64_t* result) {
  if (getenv("VFIO_USER_NVME_SOCKET") == NULL) {
    if (kind == ADMIN) return answer_bytes(command->opcode, command->addr, command->data_len);
    errno = ENOTTY;
    return -1;
  }
  const struct request request = {
      .kind = kind,
      .opcode = command->opcode,
      .nsid = command->nsid,
      .cdw2 = command->cdw2,
      .cdw3 = command->cdw3,
      .data_len = command->data_len,
      .metadata_len = command->metadata_len,
      .cdw10 = {command->cdw10, command->cdw11, command->cdw12, command->cdw13, command->cdw14, command->cdw15},
  };
  return ask(&request, (void*)(uintptr_t)command->addr, (void*)(uintptr_t)command->metadata, result);
}

int ioctl(int fd, unsigned long request, ...) {
  static int (*real)(int, unsigned long, ...);
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  uint64_t result = 0;
  if (request == NVME_IOCTL_ADMIN_CMD || request == NVME_IOCTL_IO_CMD) {
    struct nvme_passthru_cmd* short_command = argument;
    const int status = command(request == NVME_IOCTL_IO_CMD ? IO : ADMIN, short_command, &result);
    short_command->result = (uint32_t)result;
    return status;
  }
  if (request == NVME_IOCTL_ADMIN64_CMD || request == NVME_IOCTL_IO64_CMD) {
    struct nvme_passthru_cmd64* long_command = argument;
    const int status = command(request == NVME_IOCTL_IO64_CMD ? IO : ADMIN, argument, &result);
    long_command->result = result;
    return status;
  }
  if ((request == NVME_IOCTL_RESET || request == NVME_IOCTL_RESCAN) && getenv("VFIO_USER_NVME_SOCKET") != NULL) {
    const struct request reset = {.kind = request == NVME_IOCTL_RESET ? RESET : RESCAN};
    return ask(&reset, NULL, NULL, &result);
  }
  if (real == NULL) real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
  return real(fd, request, argument);
}
