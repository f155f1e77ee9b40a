/*
 * The reference target: a minimal server that answers region accesses from memory and, told to, asks for DMA by
 * message. It is what clients are compared on where no real server is named: the same C for all of them.
 *
 *   target SOCKET [DMA_SIZE DMA_COUNT]
 *
 * Regions: 0 and 1 of 2 MiB each, read and write. Serves one client after another until it is ended. A write of 4 bytes
 * to offset 0 of region 0 makes it send DMA_COUNT alternating DMA_READ and DMA_WRITE of DMA_SIZE bytes to the first
 * mapping, check what it reads, and print one line of JSON; only then the write is answered.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "wire.h"

#define REGIONS 9
#define IRQS 5
#define REGION_SIZE (2u << 20)

static char memory[2][REGION_SIZE];
static char body[HEADER + 65536 + DATA_MAX];
static uint64_t mapped_address, mapped_size;

static void reply(int fd, struct header request, const void *head, size_t head_size, const void *data, size_t size) {
  char bytes[HEADER + 64];
  request.flags = REPLY;
  request.error = 0;
  request.size = HEADER + head_size + size;
  memcpy(bytes, &request, HEADER);
  if (head_size > 0) memcpy(bytes + HEADER, head, head_size);
  send_all(fd, bytes, HEADER + head_size, data, size);
}

static void refuse(int fd, struct header request, int error) {
  request.flags = ERROR_REPLY;
  request.error = error;
  request.size = HEADER;
  send_all(fd, &request, HEADER, NULL, 0);
}

/* One DMA request, and its answer checked. */
static void transfer(int fd, int write, uint64_t size) {
  static char data[DATA_MAX];
  struct { struct header header; struct dma_access access; } message = {
      {7, write ? DMA_WRITE : DMA_READ, HEADER + sizeof(struct dma_access) + (write ? size : 0), 0, 0},
      {mapped_address, size}};
  send_all(fd, &message, sizeof message, data, write ? size : 0);
  receive_exactly(fd, &message, sizeof message);
  if (message.header.flags != REPLY || message.access.count != size) fail("a DMA reply with an error");
  if (!write) receive_exactly(fd, data, size);
}

static void run_dma(int fd, uint64_t size, unsigned long count) {
  if (mapped_size < size) fail("the client mapped too little memory");
  double begin = seconds();
  for (unsigned long i = 0; i < count; i++) transfer(fd, i & 1, size);
  double took = seconds() - begin;
  printf("{\"opsPerSecond\":%.1f,\"seconds\":%.6f,\"count\":%lu}\n", count / took, took, count);
  fflush(stdout);
}

static void serve_access(int fd, struct header header, size_t size, uint64_t dma_size, unsigned long dma_count) {
  struct access access;
  memcpy(&access, body, sizeof access);
  int write = header.command == REGION_WRITE;
  if (access.region > 1 || access.offset > REGION_SIZE || access.count > REGION_SIZE - access.offset ||
      access.count > DATA_MAX || (write && size != sizeof access + access.count)) {
    refuse(fd, header, EINVAL);
    return;
  }
  char *at = memory[access.region] + access.offset;
  if (write) memcpy(at, body + sizeof access, access.count);
  if (write && dma_count > 0 && access.region == 0 && access.offset == 0) run_dma(fd, dma_size, dma_count);
  reply(fd, header, &access, sizeof access, at, write ? 0 : access.count);
}

static void serve(int fd, uint64_t dma_size, unsigned long dma_count) {
  static const char version[] = "\0\0\1\0{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}";
  for (struct header header; recv(fd, &header, HEADER, MSG_WAITALL) == (ssize_t)HEADER;) {
    if (header.size < HEADER || header.size > sizeof body) fail("a message of impossible size");
    size_t size = header.size - HEADER;
    if (size > 0) receive_exactly(fd, body, size);
    uint32_t index = 0;
    if (size >= 12) memcpy(&index, body + 8, 4);
    switch (header.command) {
      case VERSION: reply(fd, header, NULL, 0, version, sizeof version); break;
      case GET_INFO: reply(fd, header, (uint32_t[]){16, 1, REGIONS, IRQS}, 16, NULL, 0); break;
      case GET_REGION_INFO: {
        struct { uint32_t argsz, flags, index, caps; uint64_t size, offset; } info = {
            32, index < 2 ? 3 : 0, index, 0, index < 2 ? REGION_SIZE : 0, 0};
        reply(fd, header, &info, sizeof info, NULL, 0);
        break;
      }
      case GET_IRQ_INFO: reply(fd, header, (uint32_t[]){16, 0, index, 0}, 16, NULL, 0); break;
      case DMA_MAP: {
        struct dma_map map;
        memcpy(&map, body, sizeof map);
        mapped_address = map.address;
        mapped_size = map.size;
        reply(fd, header, NULL, 0, NULL, 0);
        break;
      }
      case DMA_UNMAP: mapped_size = 0; reply(fd, header, body, size < 24 ? size : 24, NULL, 0); break;
      case REGION_READ:
      case REGION_WRITE: serve_access(fd, header, size, dma_size, dma_count); break;
      case RESET: reply(fd, header, NULL, 0, NULL, 0); break;
      default: refuse(fd, header, ENOTSUP);
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 2 && argc != 4) fail("usage: target SOCKET [DMA_SIZE DMA_COUNT]");
  uint64_t dma_size = argc == 4 ? strtoul(argv[2], NULL, 0) : 0;
  unsigned long dma_count = argc == 4 ? strtoul(argv[3], NULL, 0) : 0;
  if (dma_size > DATA_MAX) fail("DMA_SIZE is at most 1 MiB");
  for (size_t i = 0; i < REGION_SIZE; i++) memory[0][i] = memory[1][i] = (char)(i * 31);
  struct sockaddr_un address = address_of(argv[1]);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 8) < 0) {
    die(argv[1]);
  }
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) die("accept");
    serve(fd, dma_size, dma_count);
    close(fd);
  }
}
