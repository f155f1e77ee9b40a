// A mapping and all that can reach it: views, copies, a file that shrinks, another file behind it, closing, collection and
// the end of the environment, in any order. Nobody may touch what is not mapped, a holder of a severed view never reaches
// the file, and in the end nothing is mapped.
#include "memory.h"

#include <fcntl.h>
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "fake-node-api.h"

namespace {

using fake::ArrayBuffer;
using vfio_user::Memory;

constexpr size_t kPage = 4096;
constexpr size_t kMostPages = 4;

void Require(bool condition) {
  if (!condition) abort();
}

int LowestFree() {
  const int fd = fcntl(0, F_DUPFD_CLOEXEC, 0);
  close(fd);
  return fd;
}

bool IsMapped(const void* page) {
  unsigned char resident;
  return mincore(const_cast<void*>(page), kPage, &resident) == 0;
}

class Run {
 public:
  explicit Run(FuzzedDataProvider* data) : data_(data) {
    fd_ = memfd_create("fuzz", MFD_CLOEXEC);
    other_ = memfd_create("other", MFD_CLOEXEC);
    Resize(data_->ConsumeIntegralInRange<size_t>(0, kMostPages * kPage));
    Require(ftruncate(other_, kMostPages * kPage) == 0);
  }

  ~Run() {
    fake::Reset();
    close(fd_);
    close(other_);
  }

  void Go() {
    readable_ = data_->ConsumeBool();
    writable_ = data_->ConsumeIntegralInRange(0, 3) != 0;
    const size_t offset = AnyOffset();
    length_ = AnyLength();
    memory_ = Memory::Map(fd_, offset, length_, readable_, writable_);
    if (memory_ == nullptr) return;
    Require(memory_->length() == length_ && length_ > 0 && (readable_ || writable_));
    offset_ = offset;
    for (int steps = 0; data_->remaining_bytes() > 0 && steps < 64; ++steps) Step();
    Finish();
  }

 private:
  enum {
    kView,
    kOut,
    kIn,
    kTruncate,
    kRemap,
    kTouch,
    kTransfer,
    kCollect,
    kFreeStore,
    kClose,
    kFail,
    kSteps
  };

  void Resize(size_t size) {
    if (ftruncate(fd_, static_cast<off_t>(size)) == 0) file_size_ = size;
  }

  size_t AnyOffset() {
    const size_t page = data_->ConsumeIntegralInRange<size_t>(0, kMostPages) * kPage;
    return data_->ConsumeIntegralInRange(0, 15) == 0 ? data_->ConsumeIntegral<uint32_t>() : page;
  }

  size_t AnyLength() {
    if (data_->ConsumeIntegralInRange(0, 15) == 0) return data_->ConsumeIntegral<size_t>();
    return data_->ConsumeIntegralInRange<size_t>(0, kMostPages * kPage);
  }

  void Step() {
    switch (data_->ConsumeIntegralInRange<int>(0, kSteps - 1)) {
      case kView:
        MakeView();
        break;
      case kOut:
        Copy(true);
        break;
      case kIn:
        Copy(false);
        break;
      case kTruncate:
        Resize(data_->ConsumeIntegralInRange<size_t>(0, kMostPages * kPage));
        break;
      case kRemap:
        Remap();
        break;
      case kTouch:
        if (ArrayBuffer* buffer = AnyBuffer()) Touch(*buffer);
        break;
      case kTransfer:
        if (ArrayBuffer* buffer = AnyBuffer(); buffer != nullptr && !buffer->detached && !buffer->collected) {
          buffer->detached = true;
          buffer->moved = true;
        }
        break;
      case kCollect:
        if (ArrayBuffer* buffer = AnyBuffer()) Drop(buffer);
        break;
      case kFreeStore:
        if (ArrayBuffer* buffer = AnyBuffer(); buffer != nullptr && (buffer->detached || buffer->collected))
          Free(buffer);
        break;
      case kClose:
        End();
        break;
      case kFail:
        fake::refuse_buffers = data_->ConsumeBool();
        fake::refuse_finalizers = data_->ConsumeIntegralInRange(0, 7) == 0;
        break;
    }
  }

  void MakeView() {
    // As Mapping::View: only within, only of what can be read and written, and not of nothing.
    if (memory_ == nullptr || !readable_ || !writable_ || fake::ending) return;
    const size_t at = data_->ConsumeIntegralInRange<size_t>(0, length_ - 1);
    const size_t size = data_->ConsumeIntegralInRange<size_t>(1, length_ - at);
    const size_t before = fake::buffers.size();
    napi_value value = memory_->MakeView(nullptr, at, size);
    Require((value == nullptr) == (fake::refuse_buffers || fake::refuse_finalizers));
    if (fake::buffers.size() == before) return;
    if (value == nullptr) is_forsaken_ = true;
    const ArrayBuffer& buffer = *fake::buffers.back();
    Require(buffer.length == size);
    const auto* base = static_cast<uint8_t*>(buffer.data) - at;
    Require(base_ == nullptr || base_ == base);
    base_ = base;
  }

  ArrayBuffer* AnyBuffer() {
    if (fake::buffers.empty()) return nullptr;
    return fake::buffers[data_->ConsumeIntegralInRange<size_t>(0, fake::buffers.size() - 1)].get();
  }

  /// A store through a view that somebody holds: JavaScript where it is not detached, else whoever had its address.
  void Touch(const ArrayBuffer& buffer) {
    if (buffer.on_store_freed == nullptr && buffer.on_collected == nullptr) return;
    // A view may be of any size; its ends are where a mistake shows.
    const size_t size = std::min(buffer.length, kPage);
    auto* const first = static_cast<uint8_t*>(buffer.data);
    auto* const last = first + buffer.length - size;
    const auto value = data_->ConsumeIntegral<uint8_t>();
    if (is_severed_) {
      uint8_t before[kMostPages * kPage];
      const ssize_t read = pread(fd_, before, sizeof(before), 0);
      memset(first, value, size);
      memset(last, value, size);
      uint8_t after[kMostPages * kPage];
      Require(pread(fd_, after, sizeof(after), 0) == read);
      Require(memcmp(before, after, static_cast<size_t>(read)) == 0);
    } else if (!buffer.detached && IsBacked(buffer)) {
      memset(first, value, size);
      memset(last, value, size);
    }
  }

  /// A raw view of a file that was truncated raises SIGBUS, as SECURITY.md says: nobody here touches it.
  bool IsBacked(const ArrayBuffer& buffer) const {
    if (is_remapped_) return false;
    const size_t end = static_cast<size_t>(static_cast<uint8_t*>(buffer.data) - base_) + buffer.length;
    return offset_ + end <= (file_size_ + kPage - 1) / kPage * kPage;
  }

  void Copy(bool out) {
    if (memory_ == nullptr || !(out ? readable_ : writable_)) return;
    const size_t at = data_->ConsumeIntegralInRange<size_t>(0, length_);
    const size_t size = std::min<size_t>(data_->ConsumeIntegralInRange<size_t>(0, length_ - at), 1 << 20);
    const std::unique_ptr<uint8_t, decltype(&free)> bytes(static_cast<uint8_t*>(malloc(size + 1)), free);
    memset(bytes.get(), 0x5a, size + 1);
    const int result = out ? memory_->CopyOut(at, bytes.get(), size) : memory_->CopyIn(at, bytes.get(), size);
    Require(result == 0 || result == -EFAULT);
    Require(bytes.get()[size] == 0x5a);
    if (is_remapped_) return;
    // What the file has, and pages of it that are not whole, can be copied.
    const size_t backed = (file_size_ + kPage - 1) / kPage * kPage;
    Require((result == 0) == (size == 0 || offset_ + at + size <= backed));
  }

  void Remap() {
    if (memory_ == nullptr) return;
    memory_->Remap(data_->ConsumeBool() ? other_ : fd_, AnyOffset());
    is_remapped_ = true;
  }

  void Drop(ArrayBuffer* buffer) {
    if (buffer->collected) return;
    // A store that was moved outlives its first buffer.
    const bool is_moved = buffer->moved;
    Collect(buffer);
    if (!is_moved && data_->ConsumeBool()) Free(buffer);
  }

  void Free(ArrayBuffer* buffer) {
    // Nobody knows where a store is that was not detached here, when its environment ends.
    if (buffer->on_store_freed != nullptr && fake::ending) is_forsaken_ = true;
    FreeStore(buffer);
  }

  /// The owner closes it, or is collected.
  void End() {
    if (memory_ == nullptr) return;
    Memory* memory = std::exchange(memory_, nullptr);
    if (data_->ConsumeBool()) {
      is_severed_ = true;
      memory->Close();
    } else {
      memory->Release();
    }
  }

  void Finish() {
    if (data_->ConsumeBool()) fake::ending = true;
    End();
    for (const auto& buffer : fake::buffers) {
      if (!buffer->collected) Collect(buffer.get());
      Free(buffer.get());
    }
    if (base_ == nullptr) return;
    Require(is_forsaken_ || !IsMapped(base_));
    if (IsMapped(base_)) munmap(const_cast<uint8_t*>(base_), (length_ + kPage - 1) / kPage * kPage);
  }

  FuzzedDataProvider* const data_;
  int fd_;
  int other_;
  size_t file_size_ = 0;
  size_t offset_ = 0;
  size_t length_ = 0;
  bool readable_ = false;
  bool writable_ = false;
  Memory* memory_ = nullptr;
  const uint8_t* base_ = nullptr;
  bool is_severed_ = false;
  bool is_remapped_ = false;
  bool is_forsaken_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  const int before = LowestFree();
  {
    FuzzedDataProvider data(bytes, size);
    Run(&data).Go();
  }
  Require(LowestFree() == before);
  return 0;
}
