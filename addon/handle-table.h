// Small numbers by which JavaScript names native objects in the calls that each message takes.
//
// A method finds its object by `this`, for which napi_unwrap takes some 60 ns; or it is bound to it, but then each object
// has functions of its own, and a thousand objects in turn find nothing of them in the processor's caches: 2.5 µs a round
// trip. One function for all of them and an array have neither cost.
//
// A handle is good for as long as its object lives. One of an object that is gone names nothing, even after another has
// taken its place in the array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace vfio_user {

template <typename T>
class HandleTable {
 public:
  /// What is no handle.
  static constexpr int32_t kNone = -1;

  /// kNone where there are too many, or no memory is left.
  int32_t Add(T* object) noexcept {
    if (first_free_ == kEnd && !Grow()) return kNone;
    Entry& entry = entries_[first_free_];
    first_free_ = entry.next_free;
    entry.object = object;
    return entry.handle;
  }

  void Remove(int32_t handle) noexcept {
    if (Find(handle) == nullptr) return;
    const uint32_t place = PlaceOf(handle);
    // The next object of this place has another handle; after 2,048 of them they begin again.
    const uint32_t next_handle = (static_cast<uint32_t>(handle) + kPlaces) & INT32_MAX;
    entries_[place] = {nullptr, static_cast<int32_t>(next_handle), first_free_};
    first_free_ = place;
  }

  /// nullptr for what is no handle, or no longer.
  T* Find(int32_t handle) const noexcept {
    const uint32_t place = PlaceOf(handle);
    if (handle < 0 || place >= entries_.size()) return nullptr;
    const Entry& entry = entries_[place];
    return entry.handle == handle ? entry.object : nullptr;
  }

 private:
  struct Entry {
    T* object;
    /// The object's, or that of the next in this place.
    int32_t handle;
    uint32_t next_free;
  };

  static constexpr uint32_t kPlaces = 1 << 20;
  static constexpr uint32_t kEnd = UINT32_MAX;

  static constexpr uint32_t PlaceOf(int32_t handle) { return static_cast<uint32_t>(handle) & (kPlaces - 1); }

  bool Grow() noexcept {
    const auto place = static_cast<uint32_t>(entries_.size());
    if (place == kPlaces) return false;
    try {
      entries_.push_back({nullptr, static_cast<int32_t>(place), kEnd});
    } catch (const std::bad_alloc&) {
      return false;
    }
    first_free_ = place;
    return true;
  }

  std::vector<Entry> entries_;
  uint32_t first_free_ = kEnd;
};

}  // namespace vfio_user
