// Arguments of native calls, straight from Node-API.
//
// A hot call (Socket.recv) may cost some tens of nanoseconds, so values are read without node-addon-api's
// objects. Every reader throws into JavaScript and returns false where the argument is wrong: the caller
// returns at once. A reader also returns false, with nothing to throw, once the worker is being terminated.
#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>

namespace vfio_user {

/// 2^53 - 1, the largest integer that a JavaScript number counts by.
constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;

/// The bytes of a Uint8Array, as long as the current call has not returned to JavaScript.
struct Bytes {
  uint8_t* data = nullptr;
  size_t length = 0;
};

void RaiseTypeError(napi_env env, const char* what, const char* expected);
void RaiseRangeError(napi_env env, const char* what, const char* problem);

inline bool ThrowTypeError(napi_env env, const char* what, const char* expected) {
  RaiseTypeError(env, what, expected);
  return false;
}

inline bool ThrowRangeError(napi_env env, const char* what, const char* problem) {
  RaiseRangeError(env, what, problem);
  return false;
}

/// Whether `[offset, offset + length)` lies within `size`, without overflow.
constexpr bool IsWithin(uint64_t offset, uint64_t length, uint64_t size) {
  return offset <= size && length <= size - offset;
}

/// An integer in [0, max].
inline bool ReadInteger(napi_env env, napi_value value, const char* what, uint64_t* out,
                        uint64_t max = kMaxSafeInteger) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) return ThrowTypeError(env, what, "a number");
  // Written so that NaN fails. The cast is defined: both bounds are within uint64_t.
  if (!(number >= 0 && number <= static_cast<double>(max))) return ThrowRangeError(env, what, "out of range");
  *out = static_cast<uint64_t>(number);
  if (static_cast<double>(*out) != number) return ThrowRangeError(env, what, "not an integer");
  return true;
}

/// A file descriptor: a non-negative int.
inline bool ReadFd(napi_env env, napi_value value, int* out) {
  uint64_t number;
  if (!ReadInteger(env, value, "fd", &number, INT32_MAX)) return false;
  *out = static_cast<int>(number);
  return true;
}

/// A time in milliseconds, fractions allowed, as nanoseconds in [0, max_ms]: what is outside is clamped,
/// since a deadline that has passed is not misuse. NaN is 0.
inline bool ReadMilliseconds(napi_env env, napi_value value, int64_t max_ms, int64_t* nanoseconds) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) {
    return ThrowTypeError(env, "timeoutMs", "a number");
  }
  if (!(number > 0)) number = 0;
  if (number > static_cast<double>(max_ms)) number = static_cast<double>(max_ms);
  *nanoseconds = static_cast<int64_t>(number * 1e6);
  return true;
}

/// A Uint8Array (a Buffer is one). A detached one has no bytes.
inline bool ReadBytes(napi_env env, napi_value value, const char* what, Bytes* out) {
  napi_typedarray_type type;
  void* data;
  if (napi_get_typedarray_info(env, value, &type, &out->length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array) {
    return ThrowTypeError(env, what, "a Uint8Array");
  }
  out->data = static_cast<uint8_t*>(data);
  return true;
}

/// `[offset, offset + length)` of a Uint8Array.
inline bool ReadRange(napi_env env, napi_value array, napi_value offset, napi_value length, const char* what,
                      Bytes* out) {
  Bytes whole;
  uint64_t from;
  uint64_t count;
  if (!ReadBytes(env, array, what, &whole) || !ReadInteger(env, offset, "offset", &from) ||
      !ReadInteger(env, length, "length", &count)) {
    return false;
  }
  if (!IsWithin(from, count, whole.length)) return ThrowRangeError(env, what, "too short for the range");
  out->data = whole.data + from;
  out->length = count;
  return true;
}

/// Whether a value is null or undefined.
inline bool IsNothing(napi_env env, napi_value value) {
  napi_valuetype type;
  return napi_typeof(env, value, &type) == napi_ok && (type == napi_null || type == napi_undefined);
}

/// A number for JavaScript: a count of bytes, or -errno.
inline napi_value MakeNumber(napi_env env, int64_t number) {
  napi_value result = nullptr;
  if (number >= INT32_MIN && number <= INT32_MAX) {
    napi_create_int32(env, static_cast<int32_t>(number), &result);
  } else {
    napi_create_int64(env, number, &result);
  }
  return result;
}

/// `this` of a method as the native object, with its arguments. V8 has checked the receiver's class (the
/// signature of a method defined by `napi_define_class`). nullptr when the worker is being terminated.
template <typename T, size_t count>
T* ReadCall(napi_env env, napi_callback_info info, napi_value (&arguments)[count]) {
  size_t argc = count;
  napi_value self;
  void* object;
  if (napi_get_cb_info(env, info, &argc, arguments, &self, nullptr) != napi_ok) return nullptr;
  if (napi_unwrap(env, self, &object) != napi_ok) return nullptr;
  return static_cast<T*>(object);
}

/// A method of `napi_define_class`, for the list that `Napi::ObjectWrap::DefineClass` takes.
inline napi_property_descriptor ClassMethod(const char* name, napi_callback method) {
  return {name, nullptr, method, nullptr, nullptr, nullptr, napi_default_method, nullptr};
}

}  // namespace vfio_user
