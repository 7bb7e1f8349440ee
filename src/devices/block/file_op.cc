// SPDX-License-Identifier: Apache-2.0
#include "devices/block/file_op.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "devices/block/file_device.h"

namespace holdfast::devices::block {
namespace {

constexpr std::size_t kMaxPieces = IOV_MAX;         // of one system call
constexpr std::uint64_t kBounceSize = 1ULL << 20;   // bytes moved through a buffer at once
constexpr std::uint64_t kMaxTransfer = 1ULL << 30;  // below the kernel's 2 GiB
constexpr unsigned kMostRetries = 1000;             // of EAGAIN without a byte moved

constexpr std::size_t kZeroPiece = 64 * 1024;
alignas(4096) constexpr std::array<std::byte, kZeroPiece> kZeroes{};

bool Unsupported(std::int64_t result) {
  return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENOTTY || result == -EINVAL ||
         result == -ENODEV;
}

// Copies between the pieces, from `offset` bytes on, and a buffer.
void CopyPieces(std::span<const iovec> pieces, std::uint64_t offset, std::byte* buffer,
                std::uint64_t length, bool to_pieces) {
  for (const iovec& piece : pieces) {
    if (length == 0) return;
    if (offset >= piece.iov_len) {
      offset -= piece.iov_len;
      continue;
    }
    const std::uint64_t now = std::min<std::uint64_t>(piece.iov_len - offset, length);
    std::byte* const at = static_cast<std::byte*>(piece.iov_base) + offset;
    if (to_pieces) {
      std::memcpy(at, buffer, now);
    } else {
      std::memcpy(buffer, at, now);
    }
    buffer += now;
    length -= now;
    offset = 0;
  }
}

}  // namespace

void FileOp::Free::operator()(std::byte* memory) const noexcept {
  std::free(memory);  // NOLINT(cppcoreguidelines-no-malloc): aligned_alloc's
}

void FileOp::Start(FileDevice& device, Request request) {
  device_ = &device;
  request_ = std::move(request);
  step_ = {};
  done_ = 0;
  bounced_ = writes_zeroes_ = false;
  retries_ = 0;
  error_ = 0;
  if (!device.supports(request_.operation)) {
    error_ = EPERM;
    return;
  }
  switch (request_.operation) {
    case Operation::kRead:
    case Operation::kWrite:
      bounced_ = Misaligned();
      NextTransfer();
      return;
    case Operation::kFlush:
      if (device.options().no_flush) return;
      if (device.lacks().flush_failed) {
        error_ = EIO;
        return;
      }
      step_.call = Call::kDataSync;
      return;
    case Operation::kDiscard:
      if (!device.options().discard || request_.length == 0) return;
      step_ = {.call = device.block_special() ? Call::kDiscard : Call::kFallocate,
               .offset = request_.offset,
               .length = request_.length,
               .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE};
      return;
    case Operation::kWriteZeroes: {
      if (request_.length == 0) return;
      const bool punch =
          request_.may_unmap && device.options().discard && !device.lacks().punch_hole;
      if (!punch && device.lacks().zero_range) {
        writes_zeroes_ = true;
        NextZeroWrite();
        return;
      }
      step_ = {.call = Call::kFallocate,
               .offset = request_.offset,
               .length = request_.length,
               .mode = FALLOC_FL_KEEP_SIZE | (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE)};
      return;
    }
  }
}

bool FileOp::Done(int error) {
  error_ = error;
  return true;
}

std::function<void(int error)> FileOp::Finished() {
  bounce_.reset();
  return std::exchange(request_, {}).done;
}

// Offset and length are multiples of the block size, which PrepareFor() has made fit; the guest's
// buffers may lie anywhere and be cut anywhere.
bool FileOp::Misaligned() const noexcept {
  const std::uint64_t memory = device_->memory_alignment();
  const std::uint64_t size = device_->offset_alignment();
  if (memory == 1 && size == 1) return false;
  return std::any_of(request_.buffers.begin(), request_.buffers.end(), [&](const iovec& piece) {
    return reinterpret_cast<std::uintptr_t>(piece.iov_base) % memory != 0 ||
           piece.iov_len % size != 0;
  });
}

void FileOp::NextTransfer() {
  const bool write = request_.operation == Operation::kWrite;
  step_ = {.call = write ? Call::kWritev : Call::kReadv,
           .offset = request_.offset + done_,
           .dsync = write && request_.fua};
  if (request_.length == 0) {
    step_.call = Call::kNothing;
    return;
  }
  const std::uint64_t left = request_.length - done_;
  if (bounced_) {
    if (bounce_ == nullptr) {
      bounce_.reset(static_cast<std::byte*>(std::aligned_alloc(4096, kBounceSize)));
      if (bounce_ == nullptr) {
        step_.call = Call::kNothing;
        error_ = ENOMEM;
        return;
      }
    }
    const std::uint64_t now = std::min(left, kBounceSize);
    if (write) CopyPieces(request_.buffers, done_, bounce_.get(), now, false);
    iov_.assign(1, {.iov_base = bounce_.get(), .iov_len = now});
    step_.iov = iov_;
    return;
  }
  if (done_ == 0 && request_.buffers.size() <= kMaxPieces && left <= kMaxTransfer) {
    step_.iov = request_.buffers;
    return;
  }
  iov_.clear();
  std::uint64_t skip = done_;
  std::uint64_t room = kMaxTransfer;
  for (const iovec& piece : request_.buffers) {
    if (iov_.size() == kMaxPieces || room == 0) break;
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    const std::uint64_t now = std::min<std::uint64_t>(piece.iov_len - skip, room);
    iov_.push_back({.iov_base = static_cast<std::byte*>(piece.iov_base) + skip, .iov_len = now});
    room -= now;
    skip = 0;
  }
  step_.iov = iov_;
}

void FileOp::NextZeroWrite() {
  iov_.clear();
  std::uint64_t left = request_.length - done_;
  while (left > 0 && iov_.size() < 64) {
    const std::uint64_t now = std::min<std::uint64_t>(left, kZeroPiece);
    // Only read from.
    iov_.push_back({.iov_base = const_cast<std::byte*>(kZeroes.data()), .iov_len = now});
    left -= now;
  }
  step_ = {
      .call = Call::kWritev, .iov = iov_, .offset = request_.offset + done_, .dsync = request_.fua};
}

// The file is shorter than the disk: its last sector, or somebody has cut it.
void FileOp::ZeroRest() const noexcept {
  std::uint64_t skip = done_;
  for (const iovec& piece : request_.buffers) {
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    std::memset(static_cast<std::byte*>(piece.iov_base) + skip, 0, piece.iov_len - skip);
    skip = 0;
  }
}

bool FileOp::Advance(std::int64_t result) {
  if (error_ != 0) return true;
  if (result == -EINTR || (result == -EAGAIN && ++retries_ < kMostRetries)) return false;
  switch (step_.call) {
    case Call::kNothing:
      return Done(0);
    case Call::kReadv:
    case Call::kWritev:
      return AdvanceTransfer(result);
    case Call::kDataSync:
      return AdvanceFlush(result);
    case Call::kDiscard:
      return Done(result < 0 && !Unsupported(result) ? static_cast<int>(-result) : 0);
    case Call::kFallocate:
      if (request_.operation == Operation::kWriteZeroes) return AdvanceZeroes(result);
      // A discard is advice.
      return Done(result < 0 && !Unsupported(result) ? static_cast<int>(-result) : 0);
  }
  return Done(EIO);
}

bool FileOp::AdvanceTransfer(std::int64_t result) {
  if (result < 0) return Done(static_cast<int>(-result));
  const bool read = step_.call == Call::kReadv;
  if (result == 0) {
    if (!read) return Done(ENOSPC);
    ZeroRest();
    return Done(0);
  }
  std::uint64_t asked = 0;
  for (const iovec& piece : step_.iov) asked += piece.iov_len;
  const std::uint64_t moved = std::min(static_cast<std::uint64_t>(result), asked);
  if (bounced_ && read) CopyPieces(request_.buffers, done_, bounce_.get(), moved, true);
  done_ += moved;
  retries_ = 0;
  if (done_ >= request_.length) return Done(0);
  // Direct I/O cannot go on from where a file ended within a block.
  if (done_ % device_->offset_alignment() != 0) {
    if (!read) return Done(EIO);
    ZeroRest();
    return Done(0);
  }
  if (writes_zeroes_) {
    NextZeroWrite();
  } else {
    NextTransfer();
    if (error_ != 0) return true;
  }
  return false;
}

bool FileOp::AdvanceZeroes(std::int64_t result) {
  if (result >= 0) {
    if (!request_.fua) return Done(0);
    step_ = {.call = Call::kDataSync};
    return false;
  }
  if (!Unsupported(result)) return Done(static_cast<int>(-result));
  const bool punched = (step_.mode & FALLOC_FL_PUNCH_HOLE) != 0;
  (punched ? device_->lacks().punch_hole : device_->lacks().zero_range) = true;
  if (punched && !device_->lacks().zero_range) {
    step_.mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE;
    return false;
  }
  writes_zeroes_ = true;
  NextZeroWrite();
  return false;
}

bool FileOp::AdvanceFlush(std::int64_t result) {
  if (result >= 0) return Done(0);
  // Some files have nothing to flush to (QEMU takes it so too).
  if (result == -EINVAL && device_->block_special()) return Done(0);
  // The kernel may have marked the lost pages clean: the next flush would succeed and lie.
  if (!device_->options().direct) device_->lacks().flush_failed = true;
  return Done(static_cast<int>(-result));
}

}  // namespace holdfast::devices::block
