// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <holdfast/error.h>

namespace holdfast {
class EventLoop;
}

namespace holdfast::devices::block {

enum class Operation : std::uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

/// One request to a block device. Memory and iovecs stay the caller's until `done`.
struct Request {
  Operation operation = Operation::kRead;
  std::uint64_t offset = 0;        ///< bytes, a multiple of the block size
  std::uint64_t length = 0;        ///< bytes; for reads and writes the sum of `buffers`
  std::span<const iovec> buffers;  ///< reads and writes
  bool may_unmap = false;          ///< kWriteZeroes: a hole is good enough
  bool fua = false;                ///< kWrite, kWriteZeroes: done means on stable storage
  /// Called once, on the thread of the loop the request was submitted on, never inside Submit():
  /// 0, or the errno.
  std::function<void(int error)> done;
};

/// What people are told of a block device.
struct NodeInfo {
  std::string driver;      ///< "file", "raw", "null-co"
  std::string filename;    ///< a path, or what stands for one
  bool direct = false;     ///< past the host's page cache
  bool no_flush = false;   ///< flushes are not passed on
  bool discards = false;   ///< discards are passed on
  std::string child = {};  ///< raw: the node below
};

/// What a guest's disk is kept in, on the host: a file, a block device, a part of one.
///
/// Thread-safety: the main thread; size() from any thread.
class BlockDevice {
 public:
  BlockDevice() = default;
  BlockDevice(const BlockDevice&) = delete;
  BlockDevice& operator=(const BlockDevice&) = delete;
  virtual ~BlockDevice() = default;
  virtual const std::string& id() const noexcept = 0;
  virtual std::uint64_t size() const noexcept = 0;        ///< bytes
  virtual std::uint32_t block_size() const noexcept = 0;  ///< logical, bytes
  virtual bool readonly() const noexcept = 0;
  virtual bool supports(Operation operation) const noexcept = 0;
  virtual NodeInfo info() const = 0;

  /// Called before a user works on it in units of `block_size` bytes, a power of two of at least
  /// 512: the device makes itself fit, and keeps other processes out.
  /// @param share_write  but for those that write too, where the user can live with that
  virtual Status PrepareFor(std::uint32_t block_size, bool share_write) = 0;
  /// The user is gone, and with it all submitters.
  virtual void Release() noexcept = 0;
  /// Gives up what keeps other processes out, until Activate(); nobody may submit meanwhile, and
  /// PrepareFor() locks nothing. Devices are active at first.
  virtual void Inactivate() noexcept {}
  /// @return what PrepareFor() says of another process that is in the way, with nothing changed
  virtual Status Activate() { return {}; }
  /// Makes it `bytes` long. @return kUnsupported, or the host's error with nothing changed
  virtual Status Resize(std::uint64_t bytes) = 0;

  /// A way of submitting that belongs to one thread: a device has one for each loop it works on.
  class Submitter {
   public:
    Submitter() = default;
    Submitter(const Submitter&) = delete;
    Submitter& operator=(const Submitter&) = delete;
    virtual ~Submitter() = default;  ///< Drain() first
    virtual void Submit(Request request) = 0;
    /// Requests submitted so far start at the latest now: call after a batch.
    virtual void Kick() = 0;
    /// Waits until every request is done; their `done` functions run inside.
    virtual void Drain() = 0;
    /// `end` is called after a round of `done` functions: to tell the guest once for all of them.
    void set_batch_end(std::function<void()> end) { batch_end_ = std::move(end); }

   protected:
    void EndBatch() const {
      if (batch_end_) batch_end_();
    }

   private:
    std::function<void()> batch_end_;
  };
  /// On the thread of `loop`, which outlives the submitter, as this device does.
  virtual Result<std::unique_ptr<Submitter>> MakeSubmitter(EventLoop& loop) = 0;
};

}  // namespace holdfast::devices::block
