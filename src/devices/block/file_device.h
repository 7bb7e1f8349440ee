// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/block/block_device.h"
#include "object/memory_backend.h"

namespace holdfast::devices::block {

/// How requests reach the kernel: `aio=`. QEMU's `native` is io_uring here.
enum class Aio : std::uint8_t { kIoUring, kThreads };

/// The driver `file` or `host_device`, as its options say.
struct FileOptions {
  std::string node_name = {};
  std::string filename = {};
  bool host_device = false;     ///< the driver's name; a file that is none is refused
  bool readonly = false;        ///< opened so, and the guest may not write
  bool auto_read_only = false;  ///< falls back to readonly where the host does not let us write
  bool direct = false;          ///< O_DIRECT: cache.direct
  bool no_flush = false;        ///< cache.no-flush
  bool discard = false;         ///< discard=unmap
  Aio aio = Aio::kIoUring;
  object::OnOffAuto locking = object::OnOffAuto::kAuto;
};

/// A raw image: a regular file or a block device of the host.
///
/// Thread-safety: as BlockDevice; the members for submitters from any thread.
class FileDevice final : public BlockDevice {
 public:
  /// Opens it; PrepareFor() locks it.
  /// @return the open's error, "Could not open 'FILE'"; kUnsupported if the file system has no
  ///         O_DIRECT
  static Result<std::unique_ptr<FileDevice>> Open(FileOptions options);

  const std::string& id() const noexcept override { return options_.node_name; }
  std::uint64_t size() const noexcept override { return size_.load(std::memory_order_relaxed); }
  std::uint32_t block_size() const noexcept override { return block_size_; }
  bool readonly() const noexcept override { return options_.readonly; }
  bool supports(Operation operation) const noexcept override;
  NodeInfo info() const override;
  Status PrepareFor(std::uint32_t block_size, bool share_write) override;
  void Release() noexcept override;
  void Inactivate() noexcept override;
  Status Activate() override;
  Status Resize(std::uint64_t bytes) override;
  Result<std::unique_ptr<Submitter>> MakeSubmitter(EventLoop& loop) override;

  // For submitters.

  int fd() const noexcept { return fd_.get(); }
  bool block_special() const noexcept { return block_special_; }
  const FileOptions& options() const noexcept { return options_; }
  /// What addresses, and what offsets and lengths, must be multiples of; 1 through the page cache.
  std::uint32_t memory_alignment() const noexcept { return memory_alignment_; }
  std::uint32_t offset_alignment() const noexcept { return offset_alignment_; }
  /// What the file system turned out not to have.
  struct Lacks {
    std::atomic<bool> zero_range = false;
    std::atomic<bool> punch_hole = false;
    /// A failed flush may have dropped dirty pages: no later flush can promise anything.
    std::atomic<bool> flush_failed = false;
  };
  Lacks& lacks() noexcept { return lacks_; }

 private:
  explicit FileDevice(FileOptions options) : options_(std::move(options)) {}
  Status OpenFile();
  Status LearnSize();
  void LearnAlignment();
  Status Lock(bool share_write);

  FileOptions options_;
  UniqueFd fd_;
  bool active_ = true;
  std::optional<bool> share_write_;  // of the user, if there is one
  bool block_special_ = false;
  std::uint32_t block_size_ = 512;
  std::uint32_t memory_alignment_ = 1;
  std::uint32_t offset_alignment_ = 1;
  std::atomic<std::uint64_t> size_ = 0;
  Lacks lacks_;
};

}  // namespace holdfast::devices::block
