// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>

#include <holdfast/error.h>

#include "base/event_loop.h"
#include "base/thread_annotations.h"

namespace holdfast::migration {

/// What a job says that the end of the monitor broke off.
Error MonitorEnds();

/// The way of a job's thread to the main thread, which may end the job while it is on its way.
///
/// Thread-safety: Run() on the job's thread; the rest on the main thread.
class MainThread {
 public:
  explicit MainThread(EventLoop& loop) noexcept : loop_(loop) {}
  MainThread(const MainThread&) = delete;
  MainThread& operator=(const MainThread&) = delete;
  ~MainThread() { Close(); }

  /// Runs `work` on the main thread and waits for its end.
  /// @return its error; kInvalidArgument if Close() came first: then it never runs
  Status Run(std::function<Status()> work);
  /// Posts `work`, which never runs after Close().
  void Post(std::function<void()> work);
  /// Nothing more runs, and nobody waits any longer.
  void Close();

 private:
  // Shared with what is posted, which may come after the end of this object.
  struct Gate {
    Mutex mutex;
    std::condition_variable_any changed;
    bool closed HF_GUARDED_BY(mutex) = false;
  };
  EventLoop& loop_;
  const std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
};

}  // namespace holdfast::migration
