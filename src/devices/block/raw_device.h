// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "devices/block/block_device.h"

namespace holdfast::devices::block {

/// The driver `raw`: another node as it is, or a part of it.
class RawDevice final : public BlockDevice {
 public:
  /// `child` outlives it. @param size  bytes; empty: all there is behind `offset`
  /// @return kInvalidArgument if that part is not within the child
  static Result<std::unique_ptr<RawDevice>> Create(std::string id, BlockDevice& child,
                                                   std::uint64_t offset,
                                                   std::optional<std::uint64_t> size,
                                                   bool readonly);

  const std::string& id() const noexcept override { return id_; }
  std::uint64_t size() const noexcept override;
  std::uint32_t block_size() const noexcept override { return child_.block_size(); }
  bool readonly() const noexcept override { return readonly_ || child_.readonly(); }
  bool supports(Operation operation) const noexcept override;
  NodeInfo info() const override;
  Status PrepareFor(std::uint32_t block_size, bool share_write) override {
    return child_.PrepareFor(block_size, share_write);
  }
  void Release() noexcept override { child_.Release(); }
  Status Resize(std::uint64_t bytes) override;
  Result<std::unique_ptr<Submitter>> MakeSubmitter(EventLoop& loop) override;

  BlockDevice& child() const noexcept { return child_; }

 private:
  RawDevice(std::string id, BlockDevice& child, std::uint64_t offset,
            std::optional<std::uint64_t> size, bool readonly)
      : id_(std::move(id)), child_(child), offset_(offset), size_(size), readonly_(readonly) {}

  const std::string id_;
  BlockDevice& child_;
  const std::uint64_t offset_;
  const std::optional<std::uint64_t> size_;
  const bool readonly_;
};

}  // namespace holdfast::devices::block
