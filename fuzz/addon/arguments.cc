// Arguments of native calls: numbers, fds, times and ranges of buffers, of any type and any value.
#include "arguments.h"

#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "fake-node-api.h"

namespace {

using fake::AsNapi;
using fake::Value;
using vfio_user::Bytes;

void Require(bool condition) {
  if (!condition) abort();
}

/// Numbers that stand at an edge, and any others.
double AnyNumber(FuzzedDataProvider* data) {
  static constexpr double kEdges[] = {0,
                                      -0.0,
                                      1,
                                      -1,
                                      0.5,
                                      4096,
                                      2147483647,
                                      2147483648,
                                      4294967295,
                                      4294967296,
                                      9e15,
                                      1e300,
                                      9007199254740991,
                                      9007199254740992,
                                      1.8446744073709552e19};
  switch (data->ConsumeIntegralInRange(0, 3)) {
    case 0:
      return kEdges[data->ConsumeIntegralInRange<size_t>(0, std::size(kEdges) - 1)];
    case 1:
      return data->ConsumeIntegral<int32_t>();
    case 2:
      return data->ConsumeIntegral<uint8_t>();
    default: {
      const auto bits = data->ConsumeIntegral<uint64_t>();
      double number;
      memcpy(&number, &bits, sizeof(number));
      return number;
    }
  }
}

Value AnyValue(FuzzedDataProvider* data) {
  switch (data->ConsumeIntegralInRange(0, 9)) {
    case 0:
      return {.kind = Value::Kind::kUndefined};
    case 1:
      return {.kind = Value::Kind::kNull};
    case 2:
      return {.kind = Value::Kind::kObject};
    default:
      return {.kind = Value::Kind::kNumber, .number = AnyNumber(data)};
  }
}

/// Success and exceptions exclude each other.
bool Succeeds(bool result) {
  Require(result != fake::thrown);
  fake::thrown = false;
  return result;
}

void CheckNumbers(FuzzedDataProvider* data) {
  Value value = AnyValue(data);
  const auto max = data->ConsumeIntegralInRange<uint64_t>(0, vfio_user::kMaxSafeInteger);
  uint64_t number = 0;
  if (Succeeds(vfio_user::ReadInteger(nullptr, AsNapi(&value), "number", &number, max))) {
    Require(number <= max && static_cast<double>(number) == value.number);
  }
  int fd = -1;
  if (Succeeds(vfio_user::ReadFd(nullptr, AsNapi(&value), &fd))) Require(fd >= 0 && fd == value.number);
  int64_t nanoseconds = -1;
  if (Succeeds(vfio_user::ReadMilliseconds(nullptr, AsNapi(&value), 50, &nanoseconds))) {
    Require(nanoseconds >= 0 && nanoseconds <= 50'000'000);
  }
  const bool is_nothing = value.kind == Value::Kind::kUndefined || value.kind == Value::Kind::kNull;
  Require(vfio_user::IsNothing(nullptr, AsNapi(&value)) == is_nothing);
}

/// Whatever range is let through can be touched.
void CheckRange(FuzzedDataProvider* data) {
  const auto size = data->ConsumeIntegralInRange<size_t>(0, 256);
  const std::unique_ptr<uint8_t, decltype(&free)> memory(static_cast<uint8_t*>(malloc(size)), free);
  memset(memory.get(), 0, size);
  Value array = {.kind = Value::Kind::kTypedArray, .data = memory.get(), .length = size};
  if (data->ConsumeIntegralInRange(0, 7) == 0) array.array_type = napi_uint16_array;
  if (data->ConsumeIntegralInRange(0, 7) == 0) array = AnyValue(data);
  Value offset = AnyValue(data);
  Value length = AnyValue(data);
  Bytes range;
  if (Succeeds(
          vfio_user::ReadRange(nullptr, AsNapi(&array), AsNapi(&offset), AsNapi(&length), "range", &range))) {
    Require(range.length <= size);
    if (range.length > 0) memset(range.data, 0xff, range.length);
  }
}

void CheckWithin(FuzzedDataProvider* data) {
  const auto offset = data->ConsumeIntegral<uint64_t>();
  const auto length = data->ConsumeIntegral<uint64_t>();
  const auto size = data->ConsumeIntegral<uint64_t>();
  const bool is_within = static_cast<unsigned __int128>(offset) + length <= size;
  Require(vfio_user::IsWithin(offset, length, size) == is_within);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  FuzzedDataProvider data(bytes, size);
  for (int steps = 0; data.remaining_bytes() > 0 && steps < 32; ++steps) {
    CheckNumbers(&data);
    CheckRange(&data);
    CheckWithin(&data);
  }
  return 0;
}
