// The addon's exports: exactly the interface `Native` of lib/native.ts. See README.md for who owns what.
#include <napi.h>

#include "environment.h"
#include "event-fd.h"
#include "fd-syscalls.h"
#include "listener.h"
#include "mapping.h"
#include "socket.h"
#include "vfio.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  const auto environment = vfio_user::Environment::Create(env);
  environment->mapping_constructor = Napi::Persistent(vfio_user::Mapping::Define(env));
  vfio_user::Socket::Export(env, exports);
  exports.Set("Listener", vfio_user::Listener::Define(env));
  exports.Set("EventFd", vfio_user::EventFd::Define(env));
  exports.Set("map", Napi::Function::New(env, vfio_user::Mapping::Map, "map"));
  exports.Set("fastPath", vfio_user::Environment::MakeFastPathBuffer(env));
  vfio_user::ExportFiles(env, exports);
  vfio_user::ExportVfio(env, exports);
  return exports;
}

NODE_API_MODULE(vfio_user, Init)
