// Functions on bare fds and paths. Each answers a value, or -errno as a number; an fd that it returns is
// the caller's, one that it was given stays so.
#pragma once

#include <napi.h>

namespace vfio_user {

void ExportFiles(Napi::Env env, Napi::Object exports);

}  // namespace vfio_user
