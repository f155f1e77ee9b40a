#include "available-memory.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>

namespace vfio_user {

namespace {

const std::string kGroups = "/sys/fs/cgroup";

/// A file with one number in it; -1 where there is none, or the word `max`.
int64_t ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t number;
  return file >> number && number >= 0 ? number : -1;
}

/// The value of `key` in a file of lines `key value`; 0 where there is none.
int64_t ReadKey(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string name;
  for (int64_t value; file >> name >> value;) {
    if (name == key) return value;
  }
  return 0;
}

int64_t OfMachine() {
  std::ifstream info("/proc/meminfo");
  for (std::string line; std::getline(info, line);) {
    long long kibibytes;
    if (sscanf(line.c_str(), "MemAvailable: %lld kB", &kibibytes) == 1) return int64_t{kibibytes} * 1024;
  }
  return INT64_MAX;
}

/// What a group's limit leaves. Pages of files can be dropped; those of a memfd are not among them.
int64_t OfGroup(const std::string& group, const char* limit, const char* usage, const char* total) {
  const int64_t most = ReadNumber(group + limit);
  const int64_t used = ReadNumber(group + usage);
  if (most < 0 || used < 0) return INT64_MAX;
  const std::string stat = group + "/memory.stat";
  const std::string prefix = total;
  const int64_t files = ReadKey(stat, prefix + "inactive_file") + ReadKey(stat, prefix + "active_file");
  return std::max<int64_t>(most - used + files, 0);
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
  std::ifstream groups("/proc/self/cgroup");
  // `0::/path` for version 2, `5:memory:/path` for version 1. In a container the path may be the host's: its root is
  // the container's group then.
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    if (path.empty() || path[0] != '/' || path.find("..") != std::string::npos || path == "/") path.clear();
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
