/* The few structures of the vfio-user protocol that the reference programs need, and the calls that move them. */
#ifndef VFIO_USER_BENCH_WIRE_H
#define VFIO_USER_BENCH_WIRE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

enum { VERSION = 1, DMA_MAP = 2, DMA_UNMAP = 3, GET_INFO = 4, GET_REGION_INFO = 5, GET_IRQ_INFO = 7,
       REGION_READ = 9, REGION_WRITE = 10, DMA_READ = 11, DMA_WRITE = 12, RESET = 13 };
enum { REPLY = 1, TYPE_MASK = 0xf, ERROR_REPLY = 0x21 };

struct header { uint16_t id, command; uint32_t size, flags, error; };
struct access { uint64_t offset; uint32_t region, count; };
struct dma_access { uint64_t address, count; };
struct dma_map { uint32_t argsz, flags; uint64_t offset, address, size; };

#define HEADER sizeof(struct header)
#define DATA_MAX (1u << 20)

static inline void die(const char *what) { perror(what); exit(1); }
static inline void fail(const char *what) { fprintf(stderr, "%s\n", what); exit(1); }

static inline double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static inline double cpu(int user) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  struct timeval t = user ? u.ru_utime : u.ru_stime;
  return t.tv_sec + t.tv_usec * 1e-6;
}

static inline struct sockaddr_un address_of(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) fail("the socket path is too long");
  strcpy(address.sun_path, path);
  return address;
}

/* All of a message, however often the socket takes only a part. */
static inline void send_all(int fd, const void *head, size_t head_size, const void *body, size_t body_size) {
  size_t sent = 0, total = head_size + body_size;
  while (sent < total) {
    struct iovec parts[2];
    int count = 0;
    if (sent < head_size) parts[count++] = (struct iovec){(char *)head + sent, head_size - sent};
    size_t gone = sent > head_size ? sent - head_size : 0;
    if (body_size > gone) parts[count++] = (struct iovec){(char *)body + gone, body_size - gone};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (n < 0) die("sendmsg");
    sent += n;
  }
}

static inline void receive_exactly(int fd, void *into, size_t size) {
  for (size_t have = 0; have < size;) {
    ssize_t n = recv(fd, (char *)into + have, size - have, 0);
    if (n < 0) die("recv");
    if (n == 0) fail("the peer closed the connection");
    have += n;
  }
}

#endif
