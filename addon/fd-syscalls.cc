#include "fd-syscalls.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

// Behind <sys/socket.h>: those of some kernels need its types and do not include it.
#include <linux/vm_sockets.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "arguments.h"
#include "available-memory.h"
#include "environment.h"
#include "peer-inode.h"

namespace vfio_user {

namespace {

// As ACCESSPERMS and ALLPERMS, which only glibc has.
constexpr mode_t kPermissionBits = S_IRWXU | S_IRWXG | S_IRWXO;
constexpr mode_t kModeBits = kPermissionBits | S_ISUID | S_ISGID | S_ISVTX;

/// An fd until it is released: every early return closes it.
class UniqueFd {
 public:
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd() {
    if (fd_ >= 0) close(fd_);
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

struct Address {
  sockaddr_un name;
  socklen_t length;
};

bool IsAbstract(const std::string& path) {
  return path[0] == '\0';
}

/// The address of a path or an abstract name. 0 or -errno.
int MakeAddress(const std::string& path, Address* out) {
  constexpr size_t kRoom = sizeof(out->name.sun_path);
  if (path.empty()) return -EINVAL;
  // A path ends with NUL and has none within; an abstract name begins with one and is as long as it is said
  // to be.
  if (!IsAbstract(path) && path.find('\0') != std::string::npos) return -EINVAL;
  const size_t size = path.size() + (IsAbstract(path) ? 0 : 1);
  if (size > kRoom) return -ENAMETOOLONG;
  out->name = {};
  out->name.sun_family = AF_UNIX;
  memcpy(out->name.sun_path, path.data(), path.size());
  out->length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + size);
  return 0;
}

int ConnectTo(const std::string& path) {
  Address address;
  if (const int result = MakeAddress(path, &address); result < 0) return result;
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return -errno;
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address.name), address.length) < 0) return -errno;
  return fd.release();
}

/// Begins to connect to a port of a virtual machine or the host; the socket is writable when that has ended.
int ConnectToVsock(uint32_t cid, uint32_t port) {
  sockaddr_vm address = {};
  address.svm_family = AF_VSOCK;
  address.svm_cid = cid;
  address.svm_port = port;
  UniqueFd fd(socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return -errno;
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) < 0 && errno != EINPROGRESS)
    return -errno;
  return fd.release();
}

/// Gives a bound socket's file the whole of `mode`: bind left out the bits of the umask.
int SetMode(const std::string& path, mode_t mode) {
  struct stat status;
  if (lstat(path.c_str(), &status) < 0) return -errno;
  if ((status.st_mode & kModeBits) == mode) return 0;
  return chmod(path.c_str(), mode) < 0 ? -errno : 0;
}

int ListenAt(const std::string& path, int backlog, mode_t mode) {
  Address address;
  if (const int result = MakeAddress(path, &address); result < 0) return result;
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return -errno;
  // bind takes the file's mode from the socket: it is never more open than asked. And nobody can connect
  // before listen.
  if (!IsAbstract(path) && fchmod(fd.get(), mode) < 0) return -errno;
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address.name), address.length) < 0) return -errno;
  int result = IsAbstract(path) ? 0 : SetMode(path, mode);
  if (result == 0 && listen(fd.get(), backlog) < 0) result = -errno;
  if (result == 0) return fd.release();
  if (!IsAbstract(path)) unlink(path.c_str());
  return result;
}

int Adopt(int fd) {
  int type;
  int listening;
  socklen_t size = sizeof(int);
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0) return -errno;
  if (type != SOCK_STREAM) return -EPROTOTYPE;
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening != 0) return -EINVAL;
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
    return -errno;
  return 0;
}

/// Has every page allocated, or fails now instead of with SIGBUS later. In pieces: a signal makes the
/// kernel give up the piece that it is at, and one that takes longer than a profiler's interval would never
/// end.
int Allocate(int fd, off_t size) {
  constexpr off_t kPiece = 8 << 20;
  for (off_t at = 0; at < size;) {
    const off_t piece = std::min(kPiece, size - at);
    if (fallocate(fd, 0, at, piece) == 0) {
      at += piece;
    } else if (errno != EINTR) {
      return -errno;
    }
  }
  return 0;
}

int MakeMemfd(const std::string& name, off_t size, bool huge_pages) {
  if (size == 0 || name.find('\0') != std::string::npos) return -EINVAL;
  // A memfd has no limit of its own: asked for too much, fallocate would go on until the machine, or the
  // container, has nothing left and the kernel kills processes, whoever they belong to. Huge pages come from a pool, which
  // does have one.
  if (!huge_pages && size > AvailableMemory()) return -ENOMEM;
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge_pages ? MFD_HUGETLB | MFD_HUGE_2MB : 0U);
  UniqueFd fd(memfd_create(name.c_str(), flags));
  if (fd.get() < 0) return -errno;
  if (ftruncate(fd.get(), size) < 0) return -errno;
  if (const int result = Allocate(fd.get(), size); result < 0) return result;
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) return -errno;
  return fd.release();
}

// -------------------------------------------------------------------------------------- the same for JavaScript

using Info = Napi::CallbackInfo;

Napi::Value Number(const Info& info, int number) {
  return Napi::Number::New(info.Env(), number);
}

/// A new fd, for whoever called; or an error.
Napi::Value NewFd(const Info& info, int fd) {
  return Number(info, Environment::Of(info.Env())->Lend(fd));
}

bool ReadString(const Info& info, size_t index, const char* what, std::string* out) {
  if (!info[index].IsString()) return ThrowTypeError(info.Env(), what, "a string");
  *out = info[index].As<Napi::String>().Utf8Value();
  return true;
}

Napi::Value ConnectUnix(const Info& info) {
  std::string path;
  if (!ReadString(info, 0, "path", &path)) return {};
  return NewFd(info, ConnectTo(path));
}

Napi::Value ConnectVsock(const Info& info) {
  uint64_t cid;
  uint64_t port;
  if (!ReadInteger(info.Env(), info[0], "cid", &cid, UINT32_MAX) ||
      !ReadInteger(info.Env(), info[1], "port", &port, UINT32_MAX)) {
    return {};
  }
  return NewFd(info, ConnectToVsock(static_cast<uint32_t>(cid), static_cast<uint32_t>(port)));
}

Napi::Value SocketError(const Info& info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) return {};
  int error;
  socklen_t size = sizeof(error);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) return Number(info, -errno);
  return Number(info, -error);
}

Napi::Value ListenUnix(const Info& info) {
  std::string path;
  uint64_t backlog;
  uint64_t mode;
  if (!ReadString(info, 0, "path", &path) ||
      !ReadInteger(info.Env(), info[1], "backlog", &backlog, INT32_MAX) ||
      !ReadInteger(info.Env(), info[2], "mode", &mode, kPermissionBits)) {
    return {};
  }
  return NewFd(info, ListenAt(path, static_cast<int>(backlog), static_cast<mode_t>(mode)));
}

Napi::Value SocketPair(const Info& info) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
    return Number(info, -errno);
  auto pair = Napi::Array::New(info.Env(), 2);
  pair[0U] = NewFd(info, fds[0]);
  pair[1U] = NewFd(info, fds[1]);
  return pair;
}

Napi::Value AdoptSocket(const Info& info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) return {};
  return Number(info, Adopt(fd));
}

Napi::Value PeerCredentials(const Info& info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) return {};
  ucred peer;
  socklen_t size = sizeof(peer);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) return Number(info, -errno);
  auto result = Napi::Array::New(info.Env(), 3);
  result[0U] = Napi::Number::New(info.Env(), peer.pid);
  result[1U] = Napi::Number::New(info.Env(), peer.uid);
  result[2U] = Napi::Number::New(info.Env(), peer.gid);
  return result;
}

Napi::Value GetPeerInode(const Info& info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) return {};
  return Napi::Number::New(info.Env(), static_cast<double>(PeerInode(fd)));
}

Napi::Value Memfd(const Info& info) {
  std::string name;
  uint64_t size;
  if (!ReadString(info, 0, "name", &name) || !ReadInteger(info.Env(), info[1], "size", &size)) return {};
  return NewFd(info, MakeMemfd(name, static_cast<off_t>(size), info[2].ToBoolean()));
}

Napi::Value MakeEventFd(const Info& info) {
  uint64_t initial;
  if (!ReadInteger(info.Env(), info[0], "initial", &initial, UINT32_MAX)) return {};
  const int fd = eventfd(static_cast<unsigned>(initial), EFD_CLOEXEC | EFD_NONBLOCK);
  return NewFd(info, fd < 0 ? -errno : fd);
}

Napi::Value GetFdInfo(const Info& info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) return {};
  struct stat status;
  if (fstat(fd, &status) < 0) return Number(info, -errno);
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return Number(info, -errno);
  auto result = Napi::Object::New(info.Env());
  result["mode"] = Napi::Number::New(info.Env(), status.st_mode);
  result["size"] = Napi::Number::New(info.Env(), static_cast<double>(status.st_size));
  result["seals"] = Number(info, fcntl(fd, F_GET_SEALS));
  result["flags"] = Number(info, flags);
  return result;
}

Napi::Value DupFd(const Info& info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) return {};
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  return NewFd(info, copy < 0 ? -errno : copy);
}

/// flock(2), never blocking. It is the open file's: closing the fd gives it back.
Napi::Value LockFile(const Info& info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) return {};
  return Number(info, flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0);
}

/// The bytes read as zeroes from now on, and take no room any more; the file's size stays.
Napi::Value PunchHole(const Info& info) {
  int fd;
  uint64_t offset;
  uint64_t length;
  if (!ReadFd(info.Env(), info[0], &fd) || !ReadInteger(info.Env(), info[1], "offset", &offset) ||
      !ReadInteger(info.Env(), info[2], "length", &length)) {
    return {};
  }
  const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  int result;
  do {
    result = fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (result < 0 && errno == EINTR);
  return Number(info, result < 0 ? -errno : 0);
}

Napi::Value CloseFd(const Info& info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) return {};
  Environment::Of(info.Env())->TakeBack(fd);
  // After EINTR the fd is closed all the same.
  return Number(info, close(fd) < 0 && errno != EINTR ? -errno : 0);
}

Napi::Value ReleaseFd(const Info& info) {
  int fd;
  if (!ReadFd(info.Env(), info[0], &fd)) return {};
  Environment::Of(info.Env())->TakeBack(fd);
  return info.Env().Undefined();
}

}  // namespace

void ExportFiles(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, auto function) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("connectUnix", ConnectUnix);
  add("connectVsock", ConnectVsock);
  add("socketError", SocketError);
  add("listenUnix", ListenUnix);
  add("socketPair", SocketPair);
  add("adoptSocket", AdoptSocket);
  add("peerCredentials", PeerCredentials);
  add("peerInode", GetPeerInode);
  add("memfd", Memfd);
  add("eventfd", MakeEventFd);
  add("fdInfo", GetFdInfo);
  add("dupFd", DupFd);
  add("lockFile", LockFile);
  add("punchHole", PunchHole);
  add("closeFd", CloseFd);
  add("releaseFd", ReleaseFd);
}

}  // namespace vfio_user
