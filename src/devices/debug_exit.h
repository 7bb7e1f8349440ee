// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <utility>

#include "devices/bus.h"

namespace holdfast::devices {

/// isa-debug-exit: a guest that writes `value` ends the monitor with the status (value << 1) | 1.
/// Reads as zero.
///
/// Thread-safety: any thread; the callback runs on the vCPU's.
class DebugExit final : public BusDevice {
 public:
  using Callback = std::function<void(int status)>;
  explicit DebugExit(Callback callback) : callback_(std::move(callback)) {}

  std::string_view name() const noexcept override { return "isa-debug-exit"; }
  void Read(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
  void Reset() noexcept override {}

 private:
  const Callback callback_;
};

}  // namespace holdfast::devices
