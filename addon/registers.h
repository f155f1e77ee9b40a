// Registers of a device that are mapped: each access is one load or store of exactly its width, in the order of the
// program. An array of V8 gives neither: an unused load may be left out, and Atomics.store is a locked exchange on x86,
// which reads the register as well.
#pragma once

#include <atomic>
#include <cstdint>

namespace vfio_user {

/// Memory accesses before this come before the store that follows; Linux's writel does it.
inline void BeforeStore() {
#if defined(__aarch64__)
  asm volatile("dmb oshst" ::: "memory");
#else
  std::atomic_thread_fence(std::memory_order_release);
#endif
}

/// Memory accesses after this come after the load before it; Linux's readl does it.
inline void AfterLoad() {
#if defined(__aarch64__)
  asm volatile("dmb oshld" ::: "memory");
#else
  std::atomic_thread_fence(std::memory_order_acquire);
#endif
}

template <typename Word>
Word LoadRegister(const uint8_t* at) {
  const Word value = *reinterpret_cast<const volatile Word*>(at);
  AfterLoad();
  return value;
}

template <typename Word>
void StoreRegister(uint8_t* at, Word value) {
  BeforeStore();
  *reinterpret_cast<volatile Word*>(at) = value;
}

}  // namespace vfio_user
