#include "fake-node-api.h"

#include <utility>

namespace fake {

bool ending = false;
bool refuse_buffers = false;
bool refuse_finalizers = false;
bool thrown = false;
std::vector<std::unique_ptr<ArrayBuffer>> buffers;

namespace {

/// Finalizers of buffers that could not be made.
std::vector<std::pair<napi_finalize, void*>> orphans;

std::vector<std::unique_ptr<Value>> values;

napi_value Keep(Value value) {
  values.push_back(std::make_unique<Value>(value));
  return AsNapi(values.back().get());
}

}  // namespace

void Reset() {
  ending = false;
  refuse_buffers = false;
  refuse_finalizers = false;
  thrown = false;
  for (const auto& [finalize, hint] : std::exchange(orphans, {})) finalize(nullptr, nullptr, hint);
  values.clear();
  buffers.clear();
}

void FreeStore(ArrayBuffer* buffer) {
  if (buffer->on_store_freed == nullptr) return;
  const napi_finalize finalize = buffer->on_store_freed;
  buffer->on_store_freed = nullptr;
  finalize(nullptr, buffer->data, buffer->store_hint);
}

void Collect(ArrayBuffer* buffer) {
  buffer->collected = true;
  if (buffer->on_collected == nullptr) return;
  const napi_finalize finalize = buffer->on_collected;
  buffer->on_collected = nullptr;
  finalize(nullptr, buffer->collected_data, nullptr);
}

}  // namespace fake

using fake::ArrayBuffer;
using fake::FromNapi;
using fake::Value;

extern "C" {

napi_status napi_get_value_double(napi_env, napi_value value, double* result) {
  if (FromNapi(value)->kind != Value::Kind::kNumber) return napi_number_expected;
  *result = FromNapi(value)->number;
  return napi_ok;
}

napi_status napi_typeof(napi_env, napi_value value, napi_valuetype* result) {
  switch (FromNapi(value)->kind) {
    case Value::Kind::kUndefined:
      *result = napi_undefined;
      break;
    case Value::Kind::kNull:
      *result = napi_null;
      break;
    case Value::Kind::kNumber:
      *result = napi_number;
      break;
    default:
      *result = napi_object;
  }
  return napi_ok;
}

napi_status napi_get_typedarray_info(napi_env, napi_value value, napi_typedarray_type* type, size_t* length,
                                     void** data, napi_value*, size_t*) {
  const Value* array = FromNapi(value);
  if (array->kind != Value::Kind::kTypedArray) return napi_invalid_arg;
  *type = array->array_type;
  *length = array->length;
  *data = array->data;
  return napi_ok;
}

napi_status napi_throw_type_error(napi_env, const char*, const char*) {
  fake::thrown = true;
  return napi_ok;
}

napi_status napi_throw_range_error(napi_env, const char*, const char*) {
  fake::thrown = true;
  return napi_ok;
}

napi_status napi_create_external_arraybuffer(napi_env, void* data, size_t length, napi_finalize finalize,
                                             void* hint, napi_value* result) {
  if (fake::refuse_buffers || fake::ending) {
    fake::orphans.emplace_back(finalize, hint);
    return napi_generic_failure;
  }
  fake::buffers.push_back(std::make_unique<ArrayBuffer>(ArrayBuffer{data, length, finalize, hint}));
  *result = fake::Keep({.kind = Value::Kind::kArrayBuffer, .buffer = fake::buffers.back().get()});
  return napi_ok;
}

napi_status napi_add_finalizer(napi_env, napi_value value, void* data, napi_finalize finalize, void*,
                               napi_ref* result) {
  if (fake::refuse_finalizers) return napi_generic_failure;
  ArrayBuffer* buffer = FromNapi(value)->buffer;
  buffer->on_collected = finalize;
  buffer->collected_data = data;
  *result = reinterpret_cast<napi_ref>(buffer);
  return napi_ok;
}

napi_status napi_delete_reference(napi_env, napi_ref) {
  return napi_ok;
}

napi_status napi_get_reference_value(napi_env, napi_ref reference, napi_value* result) {
  auto* buffer = reinterpret_cast<ArrayBuffer*>(reference);
  *result = buffer->collected ? nullptr : fake::Keep({.kind = Value::Kind::kArrayBuffer, .buffer = buffer});
  return napi_ok;
}

napi_status napi_is_detached_arraybuffer(napi_env, napi_value value, bool* result) {
  *result = FromNapi(value)->buffer->detached;
  return napi_ok;
}

napi_status napi_detach_arraybuffer(napi_env, napi_value value) {
  if (fake::ending) return napi_cannot_run_js;
  FromNapi(value)->buffer->detached = true;
  return napi_ok;
}

napi_status napi_create_object(napi_env, napi_value* result) {
  if (fake::ending) return napi_cannot_run_js;
  *result = fake::Keep({.kind = Value::Kind::kObject});
  return napi_ok;
}

napi_status napi_set_named_property(napi_env, napi_value, const char*, napi_value) {
  return fake::ending ? napi_cannot_run_js : napi_ok;
}

}  // extern "C"
