// SPDX-License-Identifier: Apache-2.0
#include "devices/block/file_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "devices/block/file_submitters.h"
#include "devices/block/image_lock.h"

namespace holdfast::devices::block {
namespace {

constexpr std::uint64_t kSector = 512;
// What nearly all devices ask for, where the kernel does not say (before Linux 6.1, some file
// systems).
constexpr std::uint32_t kUsualDirectAlignment = 4096;

}  // namespace

Result<std::unique_ptr<FileDevice>> FileDevice::Open(FileOptions options) {
  std::unique_ptr<FileDevice> device(new FileDevice(std::move(options)));
  HF_TRY_STATUS(device->OpenFile());
  HF_TRY_STATUS(device->LearnSize());
  device->LearnAlignment();
  return device;
}

Status FileDevice::OpenFile() {
  const char* const path = options_.filename.c_str();
  const int extra = O_CLOEXEC | (options_.direct ? O_DIRECT : 0);
  fd_.reset(::open(path, (options_.readonly ? O_RDONLY : O_RDWR) | extra));
  if (!fd_ && !options_.readonly && options_.auto_read_only &&
      (errno == EACCES || errno == EROFS || errno == EPERM)) {
    options_.readonly = true;
    fd_.reset(::open(path, O_RDONLY | extra));
  }
  if (fd_) return {};
  Error error = Error::FromErrno(fmt::format("Could not open '{}'", options_.filename), errno);
  if (error.os_errno() == EINVAL && options_.direct) {
    return Fail(
        Errc::kUnsupported,
        fmt::format("Could not open '{}': filesystem does not support O_DIRECT", options_.filename),
        "Use cache=writeback, or put the image on another file system.");
  }
  if (error.code() == Errc::kPermission && !options_.readonly) {
    return Fail(std::move(error).WithHint("Let this user write it, or add readonly=on."));
  }
  return Fail(std::move(error));
}

Status FileDevice::LearnSize() {
  struct stat status = {};
  if (::fstat(fd_.get(), &status) != 0) return FailErrno(options_.filename);
  block_special_ = S_ISBLK(status.st_mode);
  if (!block_special_ && (options_.host_device || !S_ISREG(status.st_mode))) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("'{}' driver requires '{}' to be a {}",
                            options_.host_device ? "host_device" : "file", options_.filename,
                            options_.host_device ? "block device" : "regular file"),
                options_.host_device ? "Use driver=file for a file."
                                     : "Name an image file or a block device.");
  }
  if (!block_special_) {
    // A last piece of a sector is one: its rest reads as zeroes.
    const auto bytes = static_cast<std::uint64_t>(status.st_size);
    size_ = (bytes + kSector - 1) / kSector * kSector;
    return {};
  }
  std::uint64_t bytes = 0;
  if (::ioctl(fd_.get(), BLKGETSIZE64, &bytes) != 0) {
    return FailErrno(fmt::format("Could not get the size of '{}'", options_.filename));
  }
  size_ = bytes;
  int sector = 0;
  if (::ioctl(fd_.get(), BLKSSZGET, &sector) == 0 && sector >= static_cast<int>(kSector)) {
    block_size_ = static_cast<std::uint32_t>(sector);
  }
  int host_readonly = 0;
  if (!options_.readonly && ::ioctl(fd_.get(), BLKROGET, &host_readonly) == 0 &&
      host_readonly != 0) {
    if (!options_.auto_read_only) {
      return Fail(Errc::kPermission,
                  fmt::format("Could not open '{}': Permission denied", options_.filename),
                  "The host's device is read-only: add readonly=on.");
    }
    options_.readonly = true;
  }
  return {};
}

void FileDevice::LearnAlignment() {
  if (!options_.direct) return;
  memory_alignment_ = kUsualDirectAlignment;
  offset_alignment_ = std::max<std::uint32_t>(block_size_, 512);
  struct statx status = {};
  if (::statx(fd_.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
      (status.stx_mask & STATX_DIOALIGN) != 0 && status.stx_dio_offset_align != 0) {
    memory_alignment_ = std::max<std::uint32_t>(status.stx_dio_mem_align, 1);
    offset_alignment_ = status.stx_dio_offset_align;
  }
}

Status FileDevice::Lock(bool share_write) {
  if (options_.locking == object::OnOffAuto::kOff) return {};
  const auto used =
      static_cast<std::uint8_t>(kPermRead | (options_.readonly ? 0 : kPermWrite | kPermResize));
  const std::uint8_t shared = static_cast<std::uint8_t>(
      kPermRead | kPermWriteUnchanged | kPermResize | (share_write ? kPermWrite : 0));
  Status locked = LockImage(fd_.get(), used, shared, options_.filename);
  if (!locked && locked.error().code() == Errc::kUnsupported &&
      options_.locking == object::OnOffAuto::kAuto) {
    log::Warn(fmt::format("{}; it is used without", locked.error().message()));
    return {};
  }
  return locked;
}

bool FileDevice::supports(Operation operation) const noexcept {
  return operation == Operation::kRead || operation == Operation::kFlush || !options_.readonly;
}

NodeInfo FileDevice::info() const {
  return {.driver = block_special_ ? "host_device" : "file",
          .filename = options_.filename,
          .direct = options_.direct,
          .no_flush = options_.no_flush,
          .discards = options_.discard};
}

// A guest whose blocks are smaller than what O_DIRECT takes would need each write to be merged with
// what is around it, in an order with all others. The page cache does that; so such a guest gets
// it.
Status FileDevice::PrepareFor(std::uint32_t block_size, bool share_write) {
  if (active_) HF_TRY_STATUS(Lock(share_write));
  share_write_ = share_write;
  if (!options_.direct || block_size >= offset_alignment_) return {};
  const int flags = ::fcntl(fd_.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd_.get(), F_SETFL, flags & ~O_DIRECT) != 0) {
    return FailErrno(options_.filename);
  }
  log::Warn(
      fmt::format("'{}' takes direct I/O in units of {} bytes only and the guest's blocks "
                  "have {}: the host's page cache is used (logical_block_size={} avoids it)",
                  options_.filename, offset_alignment_, block_size, offset_alignment_));
  options_.direct = false;
  memory_alignment_ = offset_alignment_ = 1;
  return {};
}

void FileDevice::Release() noexcept {
  share_write_.reset();
  if (options_.locking != object::OnOffAuto::kOff) UnlockImage(fd_.get());
}

void FileDevice::Inactivate() noexcept {
  active_ = false;
  if (options_.locking != object::OnOffAuto::kOff) UnlockImage(fd_.get());
}

// Whoever had the image until now may have made it longer.
Status FileDevice::Activate() {
  if (active_) return {};
  if (share_write_) HF_TRY_STATUS(Lock(*share_write_));
  if (Status learnt = LearnSize(); !learnt) {
    if (options_.locking != object::OnOffAuto::kOff) UnlockImage(fd_.get());
    return learnt;
  }
  active_ = true;
  return {};
}

Status FileDevice::Resize(std::uint64_t bytes) {
  if (options_.readonly) {
    return Fail(Errc::kPermission, fmt::format("Image '{}' is read-only", options_.filename));
  }
  if (block_special_) {
    std::uint64_t host = 0;
    if (::ioctl(fd_.get(), BLKGETSIZE64, &host) != 0) return FailErrno(options_.filename);
    if (bytes > host) {
      return Fail(Errc::kInvalidArgument, "Cannot grow device files",
                  fmt::format("'{}' has {} bytes.", options_.filename, host));
    }
  } else if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) {
    return FailErrno("Failed to resize the image");
  }
  size_ = bytes;
  return {};
}

Result<std::unique_ptr<BlockDevice::Submitter>> FileDevice::MakeSubmitter(EventLoop& loop) {
  if (options_.aio == Aio::kIoUring) {
    auto ring = MakeUringSubmitter(*this, loop);
    if (ring) return ring;
    static std::atomic<bool> told = false;
    if (!told.exchange(true)) {
      log::Warn(fmt::format("{}: disks are served by threads instead", ring.error().message()));
    }
  }
  return MakeThreadSubmitter(*this, loop);
}

}  // namespace holdfast::devices::block
