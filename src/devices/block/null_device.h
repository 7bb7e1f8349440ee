// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "devices/block/block_device.h"

namespace holdfast::devices::block {

/// The driver `null-co`: takes every write, and reads as whatever was in the buffer, or as zeroes.
/// For measuring what is above it.
class NullDevice final : public BlockDevice {
 public:
  NullDevice(std::string id, std::uint64_t size, bool read_zeroes, bool readonly)
      : id_(std::move(id)), size_(size), read_zeroes_(read_zeroes), readonly_(readonly) {}

  const std::string& id() const noexcept override { return id_; }
  std::uint64_t size() const noexcept override { return size_; }
  std::uint32_t block_size() const noexcept override { return 512; }
  bool readonly() const noexcept override { return readonly_; }
  bool supports(Operation) const noexcept override { return true; }
  NodeInfo info() const override { return {.driver = "null-co", .filename = "null-co://"}; }
  Status PrepareFor(std::uint32_t, bool) override { return {}; }
  void Release() noexcept override {}
  Status Resize(std::uint64_t) override;
  Result<std::unique_ptr<Submitter>> MakeSubmitter(EventLoop& loop) override;

 private:
  const std::string id_;
  const std::uint64_t size_;
  const bool read_zeroes_;
  const bool readonly_;
};

}  // namespace holdfast::devices::block
