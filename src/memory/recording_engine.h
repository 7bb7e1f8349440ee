// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <holdfast/conversion.h>
#include <holdfast/units.h>

#include <cerrno>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace holdfast {

/// For tests: an engine that converts nothing, notes what it was told ("private 3+5", in pages) and
/// fails when it is told to.
class RecordingEngine final : public ConversionEngine {
 public:
  ConversionEngineKind kind() const noexcept override { return ConversionEngineKind::kGuard; }
  bool contents_survive() const noexcept override { return true; }

  Result<Busy> Apply(std::uint64_t offset, std::uint64_t size, MemoryAttribute to) override {
    if (on_apply_) {
      on_apply_(to);
    } else {
      calls_.push_back(fmt::format("{} {}+{}",
                                   to == MemoryAttribute::kPrivate ? "private" : "shared",
                                   offset / kPageSize, size / kPageSize));
    }
    if (std::exchange(fail_, false)) return Fail(Error::FromErrno("the engine", ENOMEM));
    return std::exchange(busy_, std::nullopt);
  }

  Status KeepClosed(std::uint64_t offset, std::uint64_t size) override {
    calls_.push_back(fmt::format("closed {}+{}", offset / kPageSize, size / kPageSize));
    return {};
  }

  const std::vector<std::string>& calls() const noexcept { return calls_; }
  void Forget() { calls_.clear(); }
  void FailNext() { fail_ = true; }
  void BusyNext(std::uint64_t offset) { busy_ = offset; }
  /// Instead of taking notes.
  void OnApply(std::function<void(MemoryAttribute)> run) { on_apply_ = std::move(run); }

 private:
  std::vector<std::string> calls_;
  std::function<void(MemoryAttribute)> on_apply_;
  bool fail_ = false;
  Busy busy_;
};

}  // namespace holdfast
