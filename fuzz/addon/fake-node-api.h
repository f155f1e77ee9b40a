// As much of Node-API as the fuzzed sources of the addon call, without Node: values that a target sets up, and ArrayBuffers
// whose finalizers run when the target says so.
#pragma once

#include <node_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace fake {

/// An ArrayBuffer over memory that is not its own.
struct ArrayBuffer {
  void* data = nullptr;
  size_t length = 0;
  napi_finalize on_store_freed = nullptr;
  void* store_hint = nullptr;
  napi_finalize on_collected = nullptr;
  void* collected_data = nullptr;
  /// The store is elsewhere now, and `data` with it, or gone.
  bool detached = false;
  bool collected = false;
  /// `transfer` moved the store to a buffer that only JavaScript knows.
  bool moved = false;
};

/// What a napi_value points at.
struct Value {
  enum class Kind { kUndefined, kNull, kNumber, kTypedArray, kArrayBuffer, kObject };
  Kind kind = Kind::kUndefined;
  double number = 0;
  napi_typedarray_type array_type = napi_uint8_array;
  uint8_t* data = nullptr;
  size_t length = 0;
  ArrayBuffer* buffer = nullptr;
};

inline napi_value AsNapi(Value* value) {
  return reinterpret_cast<napi_value>(value);
}
inline Value* FromNapi(napi_value value) {
  return reinterpret_cast<Value*>(value);
}

/// The environment is being torn down: nothing that could run JavaScript succeeds.
extern bool ending;
/// napi_create_external_arraybuffer, and napi_add_finalizer, fail from now on.
extern bool refuse_buffers;
extern bool refuse_finalizers;
/// An exception was thrown into JavaScript since this was last cleared.
extern bool thrown;

/// Node frees a store on the loop, some time after it was detached or its buffer was collected.
void FreeStore(ArrayBuffer* buffer);
/// The collector has found the buffer unused.
void Collect(ArrayBuffer* buffer);
/// Every buffer that was made, also one that its maker never saw.
extern std::vector<std::unique_ptr<ArrayBuffer>> buffers;
/// Forgets what calls made. Finalizers of buffers that could not be made run at last.
void Reset();

}  // namespace fake
