#include "environment.h"

#include <unistd.h>

#include <new>

#include "polled-fd.h"

namespace vfio_user {

namespace {

using Holder = std::shared_ptr<Environment>;

void DeleteHolder(napi_env /*env*/, void* data, void* /*hint*/) {
  delete static_cast<Holder*>(data);
}

void Require(Napi::Env env, napi_status status) {
  if (status != napi_ok) throw Napi::Error::New(env);
}

}  // namespace

std::shared_ptr<Environment> Environment::Create(Napi::Env env) {
  Holder self(new Environment());
  Require(env, napi_get_uv_event_loop(env, &self->loop_));
  self->is_worker_ = self->loop_ != uv_default_loop();
  auto holder = std::make_unique<Holder>(self);
  Require(env, napi_set_instance_data(env, holder.get(), DeleteHolder, nullptr));
  holder.release();
  // The hook runs before the finalizers, the instance data's among them: `self` outlives it.
  Require(env, napi_add_async_cleanup_hook(env, OnCleanup, self.get(), &self->hook_));
  return self;
}

std::shared_ptr<Environment> Environment::Of(napi_env env) {
  void* holder = nullptr;
  if (napi_get_instance_data(env, &holder) != napi_ok || holder == nullptr) throw Napi::Error::New(env);
  return *static_cast<Holder*>(holder);
}

Napi::Value Environment::MakeFastPathBuffer(Napi::Env env) {
  auto holder = std::make_unique<Holder>(Of(env));
  auto& memory = (*holder)->fast_path;
  napi_value buffer;
  const auto release = [](napi_env /*env*/, void* /*data*/, void* hint) {
    delete static_cast<Holder*>(hint);
  };
  void* hint = holder.release();
  if (napi_create_external_buffer(env, sizeof(memory), &memory, release, hint, &buffer) != napi_ok) {
    // Node does not say whether the finalizer ran, runs later or never: so only it may free the holder.
    return env.Undefined();
  }
  return {env, buffer};
}

void Environment::OnCleanup(napi_async_cleanup_hook_handle /*hook*/, void* data) {
  auto* self = static_cast<Environment*>(data);
  self->ending_ = true;
  for (const int fd : self->lent_) close(fd);
  self->lent_.clear();
  for (Poll* poll : self->polls_) poll->Close();
  self->FinishCleanup();
}

int Environment::Lend(int fd) noexcept {
  if (fd < 0 || !is_worker_) return fd;
  try {
    lent_.insert(fd);
  } catch (const std::bad_alloc&) {
    // Then it is as it would be without the list: open until the process ends, should a worker end just now.
  }
  return fd;
}

void Environment::Remove(Poll* poll) {
  polls_.erase(poll);
  FinishCleanup();
}

void Environment::FinishCleanup() {
  if (!ending_ || !polls_.empty() || hook_ == nullptr) return;
  napi_remove_async_cleanup_hook(hook_);
  hook_ = nullptr;
}

}  // namespace vfio_user
