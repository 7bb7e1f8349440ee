// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "devices/block/block_device.h"

namespace holdfast::devices::block {

class FileDevice;

/// One request to a file, as the system calls it takes one after the other: partial transfers are
/// continued, misaligned memory goes through a buffer, what the file system lacks is done
/// otherwise.
///
/// Use: Start(); do what step() says; Advance() with its result; again until that says so.
/// Thread-safety: one thread at a time.
class FileOp {
 public:
  enum class Call : std::uint8_t {
    kNothing,  ///< only Advance(0)
    kReadv,
    kWritev,  ///< with `dsync` as RWF_DSYNC
    kDataSync,
    kFallocate,
    kDiscard,  ///< of a block device
  };
  struct Step {
    Call call = Call::kNothing;
    std::span<const iovec> iov = {};
    std::uint64_t offset = 0;
    std::uint64_t length = 0;  ///< kFallocate, kDiscard
    int mode = 0;              ///< kFallocate
    bool dsync = false;
  };

  /// Takes `request` on. What it cannot do is answered by the first Advance().
  void Start(FileDevice& device, Request request);
  const Step& step() const noexcept { return step_; }
  /// The system call gave `result`, or -errno. @return whether the request is done
  bool Advance(std::int64_t result);
  /// 0 or the errno, once done.
  int error() const noexcept { return error_; }
  /// Gives the caller's function back and forgets the request, once done.
  std::function<void(int error)> Finished();

 private:
  struct Free {
    void operator()(std::byte* memory) const noexcept;
  };

  bool Done(int error);
  void NextTransfer();
  void NextZeroWrite();
  bool AdvanceTransfer(std::int64_t result);
  bool AdvanceZeroes(std::int64_t result);
  bool AdvanceFlush(std::int64_t result);
  bool Misaligned() const noexcept;
  void ZeroRest() const noexcept;

  FileDevice* device_ = nullptr;
  Request request_;
  Step step_;
  std::uint64_t done_ = 0;  // bytes
  std::vector<iovec> iov_;
  std::unique_ptr<std::byte[], Free> bounce_;
  bool bounced_ = false;
  bool writes_zeroes_ = false;  // kWriteZeroes by writing them
  unsigned retries_ = 0;
  int error_ = 0;
};

}  // namespace holdfast::devices::block
