#include "available-memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

namespace vfio_user {

namespace {

const std::string kGroups = "/sys/fs/cgroup";

/// What a file of the kernel says, up to 64 KiB; empty where it cannot be read. Streams would put the locales of a C++
/// library that is linked in into the addon.
std::string ReadAll(const std::string& path) {
  std::string text(65536, '\0');
  size_t length = 0;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  for (ssize_t got; (got = read(fd, text.data() + length, text.size() - length)) > 0;)
    length += static_cast<size_t>(got);
  close(fd);
  text.resize(length);
  return text;
}

/// Takes the first line off the text.
std::string_view TakeLine(std::string_view* text) {
  const std::string_view line = text->substr(0, text->find('\n'));
  text->remove_prefix(std::min(line.size() + 1, text->size()));
  return line;
}

/// The number that the text begins with, behind spaces; -1 where there is none, as with the word `max`.
int64_t NumberIn(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  int64_t number;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
  return result.ec == std::errc{} && number >= 0 ? number : -1;
}

int64_t ReadNumber(const std::string& path) {
  return NumberIn(ReadAll(path));
}

/// The number behind `key` in a file of lines that begin with a key; -1 where there is none.
int64_t ReadKey(const std::string& path, std::string_view key) {
  const std::string all = ReadAll(path);
  for (std::string_view text = all; !text.empty();) {
    const std::string_view line = TakeLine(&text);
    if (line.substr(0, key.size()) == key) return NumberIn(line.substr(key.size()));
  }
  return -1;
}

int64_t OfMachine() {
  const int64_t kibibytes = ReadKey("/proc/meminfo", "MemAvailable:");
  return kibibytes < 0 ? INT64_MAX : kibibytes * 1024;
}

/// What a group's limit leaves. Pages of files can be dropped; those of a memfd are not among them.
int64_t OfGroup(const std::string& group, const char* limit, const char* usage, const char* total) {
  const int64_t most = ReadNumber(group + limit);
  const int64_t used = ReadNumber(group + usage);
  if (most < 0 || used < 0) return INT64_MAX;
  const std::string stat = group + "/memory.stat";
  const std::string prefix = total;
  const int64_t inactive = std::max<int64_t>(ReadKey(stat, prefix + "inactive_file "), 0);
  const int64_t active = std::max<int64_t>(ReadKey(stat, prefix + "active_file "), 0);
  return std::max<int64_t>(most - used + inactive + active, 0);
}

/// Of the group and all that it lies in.
int64_t OfGroups(const std::string& root, std::string path, const char* limit, const char* usage,
                 const char* total) {
  int64_t least = INT64_MAX;
  for (;;) {
    least = std::min(least, OfGroup(root + path, limit, usage, total));
    if (path.empty()) return least;
    path.resize(path.find_last_of('/'));
  }
}

}  // namespace

int64_t AvailableMemory() {
  int64_t least = OfMachine();
  const std::string groups = ReadAll("/proc/self/cgroup");
  // `0::/path` for version 2, `5:memory:/path` for version 1. In a container the path may be the host's: its root is
  // the container's group then.
  for (std::string_view text = groups; !text.empty();) {
    const std::string_view line = TakeLine(&text);
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    std::string path(line.substr(second + 1));
    if (path.empty() || path[0] != '/' || path.find("..") != path.npos || path == "/") path.clear();
    if (controllers.empty()) {
      least = std::min(least, OfGroups(kGroups, path, "/memory.max", "/memory.current", ""));
    } else if (controllers == "memory") {
      least = std::min(least, OfGroups(kGroups + "/memory", path, "/memory.limit_in_bytes",
                                       "/memory.usage_in_bytes", "total_"));
    }
  }
  return least;
}

}  // namespace vfio_user
