// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <holdfast/error.h>

#include "base/thread_annotations.h"
#include "migration/frames.h"

namespace holdfast {
class AddressSpace;
}

namespace holdfast::migration {

/// The source in post-copy: sends the pages that the destination asks for. Its guest stands for
/// good, so that memory is sent from where it is.
///
/// Thread-safety: any thread. The channels must have been shut down, or all requests answered,
/// before the end.
class PageServer {
 public:
  /// @param urgent  the connection for pages that a vCPU waits for; null: they go first on `main`
  /// @param failed  a connection cannot be written any more; on a thread of the server, once for
  ///                each
  /// Everything outlives it. @return the thread that could not be made
  static Result<std::unique_ptr<PageServer>> Start(const AddressSpace& memory, FrameWriter& main,
                                                   FrameWriter* urgent,
                                                   std::function<void(const Error&)> failed);
  PageServer(const PageServer&) = delete;
  PageServer& operator=(const PageServer&) = delete;
  ~PageServer();

  /// @return kMalformed for more than a peer has reason to ask for at once
  Status Add(const PageRequest& request) HF_EXCLUDES(mutex_);
  std::uint64_t pages() const noexcept { return pages_.load(std::memory_order_relaxed); }

 private:
  PageServer(const AddressSpace& memory, std::function<void(const Error&)> failed)
      : memory_(memory), failed_(std::move(failed)) {}
  void Serve(FrameWriter& writer, bool urgent, bool rest);
  Status Answer(FrameWriter& writer, const PageRequest& request);

  const AddressSpace& memory_;
  const std::function<void(const Error&)> failed_;
  std::atomic<std::uint64_t> pages_ = 0;
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<PageRequest> urgent_ HF_GUARDED_BY(mutex_);
  std::deque<PageRequest> rest_ HF_GUARDED_BY(mutex_);
  bool ending_ HF_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace holdfast::migration
