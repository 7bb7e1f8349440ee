// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string_view>

#include <holdfast/error.h>

#include "object/iothread.h"

namespace holdfast {
class EventLoop;
}

namespace holdfast::devices {

struct DeviceEnvironment;

/// The thread that a device works on, which cannot be deleted meanwhile; or the main thread.
///
/// Thread-safety: the main thread; loop() from any thread.
class DeviceThread {
 public:
  /// The main thread, whose loop this is.
  explicit DeviceThread(EventLoop& main_loop) noexcept : loop_(&main_loop) {}
  /// `thread`'s loop, which it has.
  DeviceThread(EventLoop& loop, object::IoThread& thread) noexcept
      : loop_(&loop), thread_(&thread) {
    thread_->AddUser();
  }
  DeviceThread(const DeviceThread& other) noexcept : loop_(other.loop_), thread_(other.thread_) {
    if (thread_ != nullptr) thread_->AddUser();
  }
  DeviceThread& operator=(const DeviceThread&) = delete;
  ~DeviceThread() {
    if (thread_ != nullptr) thread_->RemoveUser();
  }

  /// What `iothread=ID` names; the main thread for an empty id.
  /// @param model  for messages: "virtio-scsi-pci"
  /// @return kNotFound in QEMU's words if there is no such object
  static Result<DeviceThread> Find(const DeviceEnvironment& environment, std::string_view model,
                                   std::string_view id);

  EventLoop& loop() const noexcept { return *loop_; }
  /// Runs `work` on the loop's thread and waits for its end. The thread never waits for the main
  /// one, so this does not lock up.
  void Run(const std::function<void()>& work) const;

 private:
  EventLoop* loop_;
  object::IoThread* thread_ = nullptr;
};

}  // namespace holdfast::devices
