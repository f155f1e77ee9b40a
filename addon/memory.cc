#include "memory.h"

#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "copy.h"
#include "small-file.h"

namespace vfio_user {

namespace {

/// Memories of all threads: the kernel counts a process's mappings together.
std::atomic<int64_t> memories{0};

/// Half of the mappings that the kernel allows. With none left malloc and V8 get no memory, and the process
/// ends: what peers can have us map must stop before.
int64_t MostMemories() {
  static const int64_t most = [] {
    constexpr int64_t kUsual = 65'530;
    char text[32];
    const bool is_known = ReadSmallFile("/proc/sys/vm/max_map_count", text, sizeof(text)) > 0;
    const int64_t count = is_known ? strtoll(text, nullptr, 10) : 0;
    return (count > 0 ? count : kUsual) / 2;
  }();
  return most;
}

/// `length` in whole pages of the file: huge ones can only be unmapped whole.
size_t Span(int fd, size_t length) {
  auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  struct statfs info;
  if (fstatfs(fd, &info) == 0 && info.f_type == HUGETLBFS_MAGIC) page = static_cast<size_t>(info.f_bsize);
  return (length + page - 1) / page * page;
}

/// Whether the environment is being torn down: then no call that could run JavaScript is let through.
bool IsEnding(napi_env env) {
  napi_value object;
  return napi_create_object(env, &object) != napi_ok ||
         napi_set_named_property(env, object, "probe", object) != napi_ok;
}

}  // namespace

/// One ArrayBuffer over a part of the memory.
struct Memory::View {
  napi_env env;
  Memory* memory = nullptr;   // set as soon as the ArrayBuffer exists
  napi_ref buffer = nullptr;  // weak
  bool has_store = true;      // until Node has freed the backing store
  bool has_buffer = false;    // until the ArrayBuffer has been collected
  bool detached = false;      // by us, so that nobody else can have moved the store

  static void OnStoreFreed(napi_env env, void* data, void* hint);
  static void OnBufferCollected(napi_env env, void* data, void* hint);
  bool Detach();
  void EndIfUnused();
};

Memory* Memory::Map(int fd, uint64_t offset, size_t length, bool readable, bool writable) {
  const int protection = (readable ? PROT_READ : 0) | (writable ? PROT_WRITE : 0);
  if (protection == PROT_NONE) {
    errno = EINVAL;
    return nullptr;
  }
  if (memories.fetch_add(1, std::memory_order_relaxed) >= MostMemories()) {
    memories.fetch_sub(1, std::memory_order_relaxed);
    errno = ENOMEM;
    return nullptr;
  }
  void* base = mmap(nullptr, length, protection, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (base == MAP_FAILED) {
    memories.fetch_sub(1, std::memory_order_relaxed);
    return nullptr;
  }
  return new Memory(base, Span(fd, length), length, readable, writable);
}

napi_value Memory::MakeView(napi_env env, size_t offset, size_t length) {
  auto* view = new View{env};
  napi_value buffer;
  if (napi_create_external_arraybuffer(env, base_ + offset, length, View::OnStoreFreed, view, &buffer) !=
      napi_ok) {
    // Node does not say whether the finalizer ran, runs later or never: so only it may free the view.
    return nullptr;
  }
  view->memory = this;
  views_.insert(view);
  if (napi_add_finalizer(env, buffer, view, View::OnBufferCollected, nullptr, &view->buffer) != napi_ok) {
    // Being terminated. Nothing will tell when the buffer is unused: the addresses are kept.
    forsaken_ = true;
    return nullptr;
  }
  view->has_buffer = true;
  return buffer;
}

void Memory::View::OnStoreFreed(napi_env env, void* /*data*/, void* hint) {
  auto* view = static_cast<View*>(hint);
  if (view->memory == nullptr) {
    delete view;
    return;
  }
  if (!view->detached && IsEnding(env)) {
    view->memory->forsaken_ = true;
    view->memory->Overlay();
  }
  view->has_store = false;
  view->EndIfUnused();
}

void Memory::View::OnBufferCollected(napi_env env, void* data, void* /*hint*/) {
  auto* view = static_cast<View*>(data);
  napi_delete_reference(env, view->buffer);
  view->buffer = nullptr;
  view->has_buffer = false;
  view->EndIfUnused();
}

bool Memory::View::Detach() {
  napi_value value = nullptr;
  bool is_detached = true;
  return buffer != nullptr && napi_get_reference_value(env, buffer, &value) == napi_ok && value != nullptr &&
         napi_is_detached_arraybuffer(env, value, &is_detached) == napi_ok && !is_detached &&
         napi_detach_arraybuffer(env, value) == napi_ok;
}

void Memory::View::EndIfUnused() {
  if (has_store || has_buffer) return;
  Memory* owner = memory;
  owner->views_.erase(this);
  delete this;
  owner->FreeIfUnused();
}

void Memory::Close() {
  // Node reports the freed stores later, on the loop: the set stays as it is meanwhile.
  for (View* view : views_) view->detached = view->Detach();
  if (!views_.empty()) Overlay();
  Release();
}

void Memory::Release() {
  owned_ = false;
  FreeIfUnused();
}

/// Replaces the file's pages by private empty ones, at once and for every holder of an address. It takes no
/// memory until somebody writes there. Where the kernel cannot do it (its limit of mappings) the file stays
/// mapped, which is safe and all that can be done.
void Memory::Overlay() {
  mmap(base_, span_, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

int Memory::Remap(int fd, uint64_t offset) {
  const int protection = (readable_ ? PROT_READ : 0) | (writable_ ? PROT_WRITE : 0);
  // A file of huge pages would be mapped in whole ones, over whatever lies behind the range.
  if (Span(fd, length_) != span_) {
    Overlay();
    return -EINVAL;
  }
  void* const base = mmap(base_, length_, protection, MAP_SHARED | MAP_FIXED, fd, static_cast<off_t>(offset));
  if (base != MAP_FAILED) return 0;
  // The old mapping may be gone by now: nobody must find a hole where memory was.
  const int error = errno;
  Overlay();
  return -error;
}

void Memory::FreeIfUnused() {
  if (owned_ || !views_.empty()) return;
  if (!forsaken_) {
    munmap(base_, span_);
    memories.fetch_sub(1, std::memory_order_relaxed);
  }
  delete this;
}

int Memory::CopyOut(size_t offset, uint8_t* into, size_t length) const {
  return CopyWithin(into, base_ + offset, length);
}

int Memory::CopyIn(size_t offset, const uint8_t* from, size_t length) const {
  return CopyWithin(base_ + offset, from, length);
}

}  // namespace vfio_user
