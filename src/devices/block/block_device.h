// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include <holdfast/error.h>

namespace holdfast {
class EventLoop;
}

namespace holdfast::devices::block {

enum class Operation : std::uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

/// One request to a block device. The memory stays the caller's until `done`.
struct Request {
  Operation operation = Operation::kRead;
  std::uint64_t offset = 0;        ///< bytes, a multiple of the block size
  std::uint64_t length = 0;        ///< bytes; for reads and writes the sum of `buffers`
  std::span<const iovec> buffers;  ///< reads and writes
  bool may_unmap = false;          ///< kWriteZeroes: a hole is good enough
  /// Called once, on the thread of the loop the request was submitted on, never inside Submit():
  /// 0, or the errno.
  std::function<void(int error)> done;
};

/// What a guest's disk is kept in, on the host: a file, a block device, throttled or not.
class BlockDevice {
 public:
  virtual ~BlockDevice() = default;
  virtual const std::string& id() const noexcept = 0;
  virtual std::uint64_t size() const noexcept = 0;        ///< bytes
  virtual std::uint32_t block_size() const noexcept = 0;  ///< logical, bytes
  virtual bool readonly() const noexcept = 0;
  virtual bool supports(Operation operation) const noexcept = 0;

  /// A way of submitting that belongs to one thread: a device has one for each loop it works on.
  class Submitter {
   public:
    virtual ~Submitter() = default;  ///< Drain() first
    virtual void Submit(Request request) = 0;
    /// Requests submitted so far start at the latest now: call after a batch.
    virtual void Kick() = 0;
    /// Waits until every request is done; their `done` functions run inside.
    virtual void Drain() = 0;
  };
  virtual Result<std::unique_ptr<Submitter>> MakeSubmitter(EventLoop& loop) = 0;
};

}  // namespace holdfast::devices::block
