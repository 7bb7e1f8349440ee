// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include <holdfast/error.h>

#include "object/object.h"

namespace holdfast {
class EventLoop;
}

namespace holdfast::object {

/// `iothread`: a thread with an event loop, for devices to work on beside the main thread.
///
/// Thread-safety: the main thread.
class IoThread final : public Object {
 public:
  static const ObjectType kType;
  explicit IoThread(std::string id);
  ~IoThread() override;

  const ObjectType& type() const noexcept override { return kType; }
  Status Complete() override { return {}; }
  /// "object 'ID' is in use, can not be deleted" while a device uses it.
  Status CanDelete() const override;

  /// The loop; the thread starts when it is first asked for. Valid as long as the object.
  Result<EventLoop*> Loop();
  /// The thread's id for the kernel; 0 before Loop().
  pid_t tid() const noexcept { return tid_; }
  /// Devices that work on it.
  void AddUser() noexcept { ++users_; }
  void RemoveUser() noexcept { --users_; }

  /// QEMU's tuning of its polling. Kept and shown; this loop does not poll.
  struct Settings {
    std::uint64_t poll_max_ns = 32768;
    std::uint64_t poll_grow = 0;
    std::uint64_t poll_shrink = 0;
    std::uint64_t aio_max_batch = 0;
    std::uint64_t thread_pool_min = 0;
    std::uint64_t thread_pool_max = 64;
  };
  Settings& settings() noexcept { return settings_; }
  const Settings& settings() const noexcept { return settings_; }

 private:
  Settings settings_;
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
  std::atomic<pid_t> tid_ = 0;
  unsigned users_ = 0;
};

}  // namespace holdfast::object
