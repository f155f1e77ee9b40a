// The kernel's VFIO (linux/vfio.h): its ioctls by name, with checked arguments. Each answers a value, or -errno as a number;
// an fd that it returns is the caller's, one that it was given stays so.
#pragma once

#include <napi.h>

#include <cstdint>

namespace vfio_user {

void ExportVfio(Napi::Env env, Napi::Object exports);

/// A 64-bit address from a bigint.
bool ReadAddress(napi_env env, napi_value value, const char* what, uint64_t* out);

/// Maps `[base, base + size)` of this process for a container's devices at `iova`. 0 or -errno.
int MapDma(int container, const void* base, uint64_t iova, uint64_t size, uint32_t flags);

}  // namespace vfio_user
