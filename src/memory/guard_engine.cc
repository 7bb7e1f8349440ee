// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/units.h>
#include <sys/mman.h>

#include <cerrno>

#include "memory/conversion_engines.h"
#include "memory/guard_pages.h"

namespace holdfast {
namespace {

class GuardEngine : public ConversionEngine {
 public:
  explicit GuardEngine(std::span<std::byte> host_view) : host_view_(host_view) {}

  ConversionEngineKind kind() const noexcept override { return ConversionEngineKind::kGuard; }
  bool contents_survive() const noexcept override { return true; }

  Result<Busy> Apply(std::uint64_t offset, std::uint64_t size, MemoryAttribute to) override {
    HF_TRY_STATUS(SetGuardPages(host_view_.subspan(offset, size), to == MemoryAttribute::kPrivate));
    return Busy{};
  }

  // A hole takes guards with it where any mapping, the guest view for one, shows the page (Linux
  // 6.18 to 7.3: truncation of a mapped page drops all that stands in its place).
  Status KeepClosed(std::uint64_t offset, std::uint64_t size) override {
    return SetGuardPages(host_view_.subspan(offset, size), true);
  }

 private:
  const std::span<std::byte> host_view_;
};

}  // namespace

std::unique_ptr<ConversionEngine> MakeGuardEngine(std::span<std::byte> host_view) {
  return std::make_unique<GuardEngine>(host_view);
}

}  // namespace holdfast
