#include "arguments.h"

#include <string>

namespace vfio_user {

void RaiseTypeError(napi_env env, const char* what, const char* expected) {
  napi_throw_type_error(env, nullptr, (std::string(what) + " must be " + expected).c_str());
}

void RaiseRangeError(napi_env env, const char* what, const char* problem) {
  napi_throw_range_error(env, nullptr, (std::string(what) + " is " + problem).c_str());
}

}  // namespace vfio_user
