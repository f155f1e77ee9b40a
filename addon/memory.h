// A mapped range of a file, and everything that can reach it.
//
//   Mapping (JavaScript) ──owner──> Memory <──View── ArrayBuffer ──backing store──> the range
//
//   mapped ──Close──> severed: views detached, the range overlaid with anonymous memory ──last View gone──> unmapped
//   mapped ──owner collected, last View gone──> unmapped
//
// An address range may only be given back when nothing can use it any more, or the next mapping there would
// be written through a stale pointer. Detaching an ArrayBuffer does not settle that:
//
// - `transfer` moves the backing store to a buffer that nobody here knows: until Node has freed the store,
//   it is held;
// - an asynchronous read or write, or a job of the thread pool, has the bare address and keeps the
//   JavaScript buffer alive for as long as it runs: until the ArrayBuffer has been collected, it is held.
//
// So a View lives until both have been reported, and severing overlays the range: from then on such a
// holder reaches memory that belongs to nobody, and the file is left alone.
//
// When a worker ends Node reports every store as freed, also one that was moved to another thread. Of a
// view that was not detached here nobody knows where its store is by then: the range is overlaid and never
// given back (`forsaken`). That costs addresses, no memory.
//
// No external memory is reported here: V8 counts each view's length by itself.
#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <unordered_set>

namespace vfio_user {

class Memory {
 public:
  /// Maps a file. nullptr with errno where that fails: ENOMEM also where this process has so many memories that half of
  /// the mappings that the kernel allows it are used up.
  static Memory* Map(int fd, uint64_t offset, size_t length, bool readable, bool writable);

  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  uint8_t* base() const { return base_; }
  size_t length() const { return length_; }
  bool readable() const { return readable_; }
  bool writable() const { return writable_; }

  /// A new ArrayBuffer over a part, which is not empty. nullptr with an exception pending where that fails.
  napi_value MakeView(napi_env env, size_t offset, size_t length);

  /// Copies by the kernel, which reports a page that the file no longer has where a load would raise
  /// SIGBUS. 0 or -errno.
  int CopyOut(size_t offset, uint8_t* into, size_t length) const;
  int CopyIn(size_t offset, const uint8_t* from, size_t length) const;

  /// Puts another file behind the same addresses, for every view. 0 or -errno; then the range is anonymous memory.
  int Remap(int fd, uint64_t offset);

  /// Puts anonymous memory behind the same addresses, for every view, until `Remap`.
  void Withdraw() { Overlay(); }

  /// The owner is done with the file: severs the views, and frees this as soon as they are gone.
  void Close();
  /// The owner is gone: frees this as soon as the views are gone, which stay usable.
  void Release();

 private:
  struct View;

  Memory(void* base, size_t span, size_t length, bool readable, bool writable)
      : base_(static_cast<uint8_t*>(base)),
        span_(span),
        length_(length),
        readable_(readable),
        writable_(writable) {}
  ~Memory() = default;

  void Overlay();
  void FreeIfUnused();

  uint8_t* const base_;
  const size_t span_;  // what the kernel mapped: `length_` in whole pages
  const size_t length_;
  const bool readable_;
  const bool writable_;
  bool owned_ = true;
  bool forsaken_ = false;
  std::unordered_set<View*> views_;
};

}  // namespace vfio_user
