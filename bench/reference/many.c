/*
 * The reference target for many clients at once: what a client is served by that is asked how it fares with a thousand
 * devices. One epoll loop, which goes to sleep after each answer whoever asked, and little to touch for each client, so
 * that a thousand of them are a thousand to the client and hardly to the server.
 *
 *   many SOCKET
 *
 * Each client has a device of its own: region 0 of 64 bytes, and one vector of IRQ index 2. A write to offset 0 signals
 * the vector's eventfd; the rest is memory. Says `listening` when it does; runs until it is ended.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "wire.h"

#define REGIONS 9
#define IRQS 5
#define MSIX 2
#define SET_IRQS 8
#define REGION_SIZE 64
#define EVENTS 64
#define FDS_MAX 8

struct client {
  int fd, vector;
  size_t have;
  char registers[REGION_SIZE];
  char bytes[1024];
};

struct irq_set { uint32_t argsz, flags, index, start, count; };

static void reply(struct client *client, struct header request, const void *body, size_t size) {
  char bytes[HEADER + 128];
  request.flags = REPLY;
  request.error = 0;
  request.size = HEADER + size;
  memcpy(bytes, &request, HEADER);
  memcpy(bytes + HEADER, body, size);
  send_all(client->fd, bytes, HEADER + size, NULL, 0);
}

static void refuse(struct client *client, struct header request, int error) {
  request.flags = ERROR_REPLY;
  request.error = error;
  request.size = HEADER;
  send_all(client->fd, &request, HEADER, NULL, 0);
}

static void access_registers(struct client *client, struct header header, const char *body, size_t size) {
  struct { struct access access; char data[REGION_SIZE]; } message;
  int writes = header.command == REGION_WRITE;
  if (size < sizeof message.access) fail("an access of impossible size");
  memcpy(&message.access, body, sizeof message.access);
  struct access access = message.access;
  if (access.region != 0 || access.offset > REGION_SIZE || access.count > REGION_SIZE - access.offset ||
      size != sizeof access + (writes ? access.count : 0)) {
    refuse(client, header, EINVAL);
    return;
  }
  char *at = client->registers + access.offset;
  if (writes) memcpy(at, body + sizeof access, access.count);
  else memcpy(message.data, at, access.count);
  if (writes && access.offset == 0 && client->vector >= 0) {
    uint64_t one = 1;
    if (write(client->vector, &one, sizeof one) != sizeof one) die("eventfd");
  }
  reply(client, header, &message, sizeof access + (writes ? 0 : access.count));
}

/* Takes the eventfd, where one came: everything else about interrupts is as it was. */
static void set_irqs(struct client *client, struct header header, const char *body, size_t size, int fd) {
  struct irq_set set;
  if (size < sizeof set) fail("a SET_IRQS of impossible size");
  memcpy(&set, body, sizeof set);
  if (set.index == MSIX && client->vector >= 0) {
    close(client->vector);
    client->vector = -1;
  }
  if (set.index == MSIX && fd >= 0) client->vector = fd;
  else if (fd >= 0) close(fd);
  reply(client, header, NULL, 0);
}

static void serve(struct client *client, struct header header, const char *body, size_t size, int fd) {
  static const char version[] = "\0\0\1\0{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}";
  uint32_t index = 0;
  if (size >= 12) memcpy(&index, body + 8, 4);
  switch (header.command) {
    case VERSION: reply(client, header, version, sizeof version); break;
    case GET_INFO: reply(client, header, (uint32_t[]){16, 1, REGIONS, IRQS}, 16); break;
    case GET_REGION_INFO: {
      struct { uint32_t argsz, flags, index, caps; uint64_t size, offset; } info = {
          32, index == 0 ? 3 : 0, index, 0, index == 0 ? REGION_SIZE : 0, 0};
      reply(client, header, &info, sizeof info);
      break;
    }
    case GET_IRQ_INFO: reply(client, header, (uint32_t[]){16, index == MSIX, index, index == MSIX}, 16); break;
    case SET_IRQS: set_irqs(client, header, body, size, fd); break;
    case REGION_READ:
    case REGION_WRITE: access_registers(client, header, body, size); break;
    default: refuse(client, header, ENOTSUP);
  }
}

static void end(struct client *client) {
  if (client->vector >= 0) close(client->vector);
  close(client->fd);
  free(client);
}

/* What has come from a client; false once it has gone. */
static int receive(struct client *client) {
  char control[CMSG_SPACE(FDS_MAX * sizeof(int))];
  struct iovec part = {client->bytes + client->have, sizeof client->bytes - client->have};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t count = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0 && errno == EAGAIN) return 1;
  if (count <= 0) return 0;
  int fd = -1;
  struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
  if (rights != NULL && rights->cmsg_type == SCM_RIGHTS) {
    if (rights->cmsg_len != CMSG_LEN(sizeof fd)) fail("more fds than one");
    memcpy(&fd, CMSG_DATA(rights), sizeof fd);
  }
  client->have += count;
  size_t at = 0;
  while (client->have - at >= HEADER) {
    struct header header;
    memcpy(&header, client->bytes + at, HEADER);
    if (header.size < HEADER || header.size > sizeof client->bytes) fail("a message of impossible size");
    if (header.size > client->have - at) break;
    /* The fd came with the last message begun. */
    int last = client->have - at == header.size;
    serve(client, header, client->bytes + at + HEADER, header.size - HEADER, last ? fd : -1);
    at += header.size;
  }
  memmove(client->bytes, client->bytes + at, client->have - at);
  client->have -= at;
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 2) fail("usage: many SOCKET");
  struct sockaddr_un address = address_of(argv[1]);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0) {
    die(argv[1]);
  }
  int poll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) < 0) die("epoll");
  puts("listening");
  fflush(stdout);
  for (;;) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(poll, events, EVENTS, -1);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < count; i++) {
      struct client *client = events[i].data.ptr;
      if (client != NULL) {
        if (!receive(client)) end(client);
        continue;
      }
      int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
      if (fd < 0) continue;
      client = calloc(1, sizeof *client);
      if (client == NULL) die("calloc");
      client->fd = fd;
      client->vector = -1;
      event = (struct epoll_event){.events = EPOLLIN, .data.ptr = client};
      if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    }
  }
}
