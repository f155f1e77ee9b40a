// What the addon keeps for one Node environment: the main thread or a worker. Nothing in the addon is
// global, so any number of them run at once.
//
// It ends the loop's handles before the environment goes: libuv refuses to close a loop that still has any.
//
//   cleanup hook ── closes every Poll ── close callbacks run ── the last one releases the hook ── finalizers
//
// A worker may be terminated between any two instructions of JavaScript. Fds that it has as bare numbers by then are
// closed here, as nobody else knows of them.
//
// Objects hold it by shared_ptr: the order in which Node finalizes them and the instance data is its own
// affair.
#pragma once

#include <napi.h>
#include <uv.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_set>

#include "handle-table.h"

namespace vfio_user {

class Memory;
class Socket;
struct Poll;

/// Memory of `roundTrip`: the request, the reply, its arguments and its result. JavaScript has it as a Buffer and may write
/// anything there. They are not arguments, as each of a native call takes some 10 ns between a reply and the next request.
struct FastPathMemory {
  uint8_t request[128];
  uint8_t reply[8192];
  /// Milliseconds.
  double waited;
  /// 1 when the other socket was readable once the reply had come.
  uint32_t other_is_readable;
  int32_t socket;
  uint32_t length;
  uint32_t timeout_ms;
  int32_t other;
  int32_t result;
};
// Where lib/native.ts says that they are.
static_assert(offsetof(FastPathMemory, reply) == 128 && offsetof(FastPathMemory, waited) == 128 + 8192 &&
              offsetof(FastPathMemory, other_is_readable) == offsetof(FastPathMemory, waited) + 8 &&
              offsetof(FastPathMemory, socket) == offsetof(FastPathMemory, waited) + 12 &&
              offsetof(FastPathMemory, result) == offsetof(FastPathMemory, socket) + 16);

class Environment {
 public:
  /// Makes the environment's instance; called once, while the addon is being loaded.
  static std::shared_ptr<Environment> Create(Napi::Env env);
  static std::shared_ptr<Environment> Of(napi_env env);
  /// A Buffer over `fast_path`, which keeps it; undefined in hosts that allow no memory from outside.
  static Napi::Value MakeFastPathBuffer(Napi::Env env);

  uv_loop_t* loop() const { return loop_; }
  /// Whether the environment is going: nothing may be started on the loop any more.
  bool ending() const { return ending_; }

  void Add(Poll* poll) { polls_.insert(poll); }
  /// Called by a Poll's close callback.
  void Remove(Poll* poll);

  /// Notes an fd that JavaScript is handed as a bare number, and gives it back; a negative number is an error.
  int Lend(int fd) noexcept;
  /// The number has an owner again, or is closed.
  void TakeBack(int fd) noexcept { lent_.erase(fd); }

  /// The sockets that live.
  HandleTable<Socket> sockets;
  alignas(64) FastPathMemory fast_path = {};
  Napi::FunctionReference mapping_constructor;
  /// The memory that the Mapping under construction takes over.
  Memory* handed_over = nullptr;

 private:
  Environment() = default;
  static void OnCleanup(napi_async_cleanup_hook_handle hook, void* data);
  void FinishCleanup();

  uv_loop_t* loop_ = nullptr;
  std::unordered_set<Poll*> polls_;
  /// Of a worker alone: the process closes what its main thread leaves.
  std::unordered_set<int> lent_;
  bool is_worker_ = false;
  napi_async_cleanup_hook_handle hook_ = nullptr;
  bool ending_ = false;
};

}  // namespace vfio_user
