#include "peer-inode.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

namespace vfio_user {

namespace {

struct Request {
  nlmsghdr header;
  unix_diag_req body;
};

/// The UNIX_DIAG_PEER attribute of an answer, or -errno.
int64_t PeerOf(const char* answer, size_t length) {
  nlmsghdr header;
  if (length < NLMSG_HDRLEN) return -EPROTO;
  memcpy(&header, answer, sizeof(header));
  if (header.nlmsg_len > length) return -EPROTO;
  if (header.nlmsg_type == NLMSG_ERROR) {
    nlmsgerr error;
    if (header.nlmsg_len < NLMSG_LENGTH(sizeof(error.error))) return -EPROTO;
    memcpy(&error.error, answer + NLMSG_HDRLEN, sizeof(error.error));
    return error.error < 0 ? error.error : -EPROTO;
  }
  for (size_t at = NLMSG_SPACE(sizeof(unix_diag_msg)); at + RTA_LENGTH(0) <= header.nlmsg_len;) {
    rtattr attribute;
    memcpy(&attribute, answer + at, sizeof(attribute));
    if (attribute.rta_len < RTA_LENGTH(0) || attribute.rta_len > header.nlmsg_len - at) return -EPROTO;
    uint32_t inode;
    if (attribute.rta_type == UNIX_DIAG_PEER && attribute.rta_len >= RTA_LENGTH(sizeof(inode))) {
      memcpy(&inode, answer + at + RTA_LENGTH(0), sizeof(inode));
      return inode;
    }
    at += RTA_ALIGN(attribute.rta_len);
  }
  return -ENOTCONN;
}

int64_t Ask(int netlink, uint32_t inode) {
  Request request = {};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.body.sdiag_family = AF_UNIX;
  request.body.udiag_states = ~0u;
  request.body.udiag_ino = inode;
  request.body.udiag_show = UDIAG_SHOW_PEER;
  // No cookie: the inode says which.
  request.body.udiag_cookie[0] = ~0u;
  request.body.udiag_cookie[1] = ~0u;
  if (send(netlink, &request, sizeof(request), 0) < 0) return -errno;
  // The kernel has answered by the time that send returns.
  char answer[256];
  const ssize_t length = recv(netlink, answer, sizeof(answer), MSG_DONTWAIT);
  return length < 0 ? -errno : PeerOf(answer, static_cast<size_t>(length));
}

}  // namespace

int64_t PeerInode(int fd) {
  struct stat status;
  if (fstat(fd, &status) < 0) return -errno;
  if (!S_ISSOCK(status.st_mode)) return -ENOTSOCK;
  const int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (netlink < 0) return -errno;
  const int64_t result = Ask(netlink, static_cast<uint32_t>(status.st_ino));
  close(netlink);
  return result;
}

}  // namespace vfio_user
