#include "environment.h"

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

Napi::Value Environment::MakeQuick(Napi::Env env) {
  auto holder = std::make_unique<Holder>(Of(env));
  auto& memory = (*holder)->quick;
  napi_value buffer;
  const auto release = [](napi_env /*env*/, void* /*data*/, void* hint) {
    delete static_cast<Holder*>(hint);
  };
  Require(env,
          napi_create_external_buffer(env, memory.size(), memory.data(), release, holder.get(), &buffer));
  holder.release();
  return {env, buffer};
}

void Environment::OnCleanup(napi_async_cleanup_hook_handle /*hook*/, void* data) {
  auto* self = static_cast<Environment*>(data);
  self->ending_ = true;
  for (Poll* poll : self->polls_) poll->Close();
  self->FinishCleanup();
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
