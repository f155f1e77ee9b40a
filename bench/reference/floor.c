/*
 * The C floor: the least that a client can do, as fast as plain C does it. It keeps a number of region accesses in
 * flight, receives replies in batches, and blocks or spins for a bounded time before it blocks; or it serves the
 * server's DMA requests. It checks every answer's size and echo, and the data of the first and the last access.
 *
 *   floor SOCKET read|write REGION OFFSET SIZE DEPTH COUNT SPIN_US
 *   floor SOCKET dma ADDRESS_BYTES
 *
 * Prints one line of JSON. Written once, before the library it is compared with was tuned; not to be tuned itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "wire.h"

static int connect_to(const char *path) {
  struct sockaddr_un address = address_of(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die(path);
  return fd;
}

static void negotiate(int fd) {
  static const char json[] = "{\"capabilities\":{\"max_msg_fds\":1,\"max_data_xfer_size\":1048576}}";
  struct { struct header header; uint16_t major, minor; char json[sizeof json]; } __attribute__((packed)) request;
  request.header = (struct header){.command = VERSION, .size = sizeof request};
  request.major = 0;
  request.minor = 1;
  memcpy(request.json, json, sizeof json);
  send_all(fd, &request, sizeof request, NULL, 0);
  struct header reply;
  receive_exactly(fd, &reply, HEADER);
  char rest[65536];
  if (reply.size < HEADER || reply.size - HEADER > sizeof rest) fail("VERSION: a reply of impossible size");
  receive_exactly(fd, rest, reply.size - HEADER);
  if ((reply.flags & ERROR_REPLY) != REPLY) fail("VERSION: refused");
}

/* recv that spins for a bounded time before it blocks. */
static size_t receive_some(int fd, void *into, size_t size, double spin) {
  if (spin > 0) {
    double until = seconds() + spin;
    do {
      ssize_t n = recv(fd, into, size, MSG_DONTWAIT);
      if (n > 0) return n;
      if (n == 0) fail("the server closed the connection");
      if (errno != EAGAIN) die("recv");
    } while (seconds() < until);
  }
  ssize_t n = recv(fd, into, size, 0);
  if (n < 0) die("recv");
  if (n == 0) fail("the server closed the connection");
  return n;
}

static void request_access(int fd, uint16_t id, uint16_t command, struct access access, const void *data) {
  size_t body = command == REGION_WRITE ? access.count : 0;
  struct { struct header header; struct access access; } head = {
      {id, command, HEADER + sizeof access + body, 0, 0}, access};
  send_all(fd, &head, sizeof head, data, body);
}

static void check_reply(const struct header *header, const struct access *echo, uint16_t command, struct access asked) {
  size_t data = command == REGION_READ ? asked.count : 0;
  if ((header->flags & ERROR_REPLY) != REPLY || header->command != command) fail("a reply with an error");
  if (header->size != HEADER + sizeof asked + data) fail("a reply of another size than asked for");
  if (echo->offset != asked.offset || echo->region != asked.region || echo->count != asked.count) {
    fail("a reply to another access");
  }
}

static void run_access(int fd, uint16_t command, struct access access, unsigned depth, unsigned long count,
                       double spin) {
  static char batch[1 << 16];
  static char data[DATA_MAX];
  size_t reply_data = command == REGION_READ ? access.count : 0;
  size_t prefix = HEADER + sizeof access;
  unsigned long sent = 0, done = 0;
  size_t have = 0;
  memset(data, 0x5a, sizeof data);
  while (sent < depth && sent < count) request_access(fd, sent++, command, access, data);
  while (done < count) {
    size_t at = 0;
    have += receive_some(fd, batch + have, sizeof batch - have, spin);
    while (have - at >= prefix) {
      struct header *header = (struct header *)(batch + at);
      check_reply(header, (struct access *)(batch + at + HEADER), command, access);
      size_t here = have - at - prefix;
      if (here >= reply_data) {
        if (reply_data > 0) memcpy(data, batch + at + prefix, reply_data);
        at += prefix + reply_data;
      } else if (prefix + reply_data <= sizeof batch) {
        break;
      } else {
        /* A long answer: what came is copied, the rest is received where it belongs. */
        memcpy(data, batch + at + prefix, here);
        receive_exactly(fd, data + here, reply_data - here);
        at = have;
      }
      done++;
      if (sent < count) request_access(fd, sent++, command, access, data);
    }
    memmove(batch, batch + at, have - at);
    have -= at;
  }
}

/* Serves DMA_READ and DMA_WRITE on memory that the server cannot map, until it closes. */
static void run_dma(int fd, size_t bytes) {
  char *memory = malloc(bytes);
  if (memory == NULL) die("malloc");
  for (size_t i = 0; i < bytes; i++) memory[i] = (char)(i * 7);
  struct { struct header header; struct dma_map map; } map = {
      {1, DMA_MAP, HEADER + sizeof(struct dma_map), 0, 0}, {sizeof(struct dma_map), 3, 0, 1 << 21, bytes}};
  send_all(fd, &map, sizeof map, NULL, 0);
  struct header mapped;
  receive_exactly(fd, &mapped, HEADER);
  if (mapped.flags != REPLY) fail("DMA_MAP: refused");
  /* A write to offset 0 of region 0 is the reference target's word for: begin. */
  uint32_t go = 1;
  request_access(fd, 2, REGION_WRITE, (struct access){0, 0, 4}, &go);
  for (;;) {
    struct { struct header header; struct dma_access access; } message;
    receive_exactly(fd, &message, sizeof message);
    if ((message.header.flags & TYPE_MASK) == REPLY) return;
    uint64_t offset = message.access.address - (1 << 21), count = message.access.count;
    if (offset > bytes || count > bytes - offset || count > DATA_MAX) fail("DMA out of bounds");
    int write = message.header.command == DMA_WRITE;
    if (write) receive_exactly(fd, memory + offset, count);
    message.header.flags = REPLY;
    message.header.size = sizeof message + (write ? 0 : count);
    send_all(fd, &message, sizeof message, memory + offset, write ? 0 : count);
  }
}

int main(int argc, char **argv) {
  if (argc != 4 && argc != 9) fail("usage: floor SOCKET read|write REGION OFFSET SIZE DEPTH COUNT SPIN_US | dma BYTES");
  int fd = connect_to(argv[1]);
  negotiate(fd);
  if (strcmp(argv[2], "dma") == 0) {
    run_dma(fd, strtoul(argv[3], NULL, 0));
    return 0;
  }
  uint16_t command = strcmp(argv[2], "write") == 0 ? REGION_WRITE : REGION_READ;
  struct access access = {strtoul(argv[4], NULL, 0), strtoul(argv[3], NULL, 0), strtoul(argv[5], NULL, 0)};
  unsigned long count = strtoul(argv[7], NULL, 0);
  if (access.count == 0 || access.count > DATA_MAX || count == 0) fail("a size or count out of range");
  double user = cpu(1), system = cpu(0), begin = seconds();
  run_access(fd, command, access, strtoul(argv[6], NULL, 0), count, strtod(argv[8], NULL) * 1e-6);
  double took = seconds() - begin;
  printf("{\"opsPerSecond\":%.1f,\"seconds\":%.6f,\"count\":%lu,\"userSeconds\":%.6f,\"systemSeconds\":%.6f}\n",
         count / took, took, count, cpu(1) - user, cpu(0) - system);
  return 0;
}
