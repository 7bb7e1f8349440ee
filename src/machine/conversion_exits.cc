// SPDX-License-Identifier: Apache-2.0
#include "machine/conversion_exits.h"

#include <fmt/format.h>
#include <holdfast/units.h>

#include <cerrno>
#include <limits>

namespace holdfast::machine {
namespace {

using std::chrono::steady_clock;

// A vCPU that waits for a device cannot be stopped meanwhile. Requests take far less, unless the
// host's disk hangs; then the guest asks again.
constexpr std::chrono::milliseconds kPatience{100};
constexpr auto kBetweenReports =
    std::chrono::duration_cast<steady_clock::duration>(std::chrono::seconds{1});
constexpr std::int64_t kUnknownHypercall = -1000;  // -KVM_ENOSYS (linux/kvm_para.h)

std::uint64_t AsResult(std::int64_t value) {
  return static_cast<std::uint64_t>(value);
}

}  // namespace

std::optional<ConversionExits::Range> ConversionExits::OnHypercall(kvm_run& run) {
  auto& call = run.hypercall;
  if (call.nr != kvm::abi::kHypercallMapGpaRange) {
    call.ret = AsResult(kUnknownHypercall);
    return std::nullopt;
  }
  const GuestAddress start(call.args[0]);
  const std::uint64_t pages = call.args[1];
  const auto to = (call.args[2] & kvm::abi::kMapGpaRangeEncrypted) != 0 ? MemoryAttribute::kPrivate
                                                                        : MemoryAttribute::kShared;
  const auto size = CheckedMul(pages, kPageSize);
  if (!size) {
    Report({start, std::numeric_limits<std::uint64_t>::max(), to,
            fmt::format("{:#x} pages are more than there are addresses", pages)});
    call.ret = AsResult(-EINVAL);
    return std::nullopt;
  }
  auto outcome = converter_.ConvertPatiently(start, *size, to, kPatience);
  if (!outcome) {
    const bool no_memory = outcome.error().code() == Errc::kExhausted;
    Report({start, *size, to, outcome.error().message()});
    call.ret = AsResult(no_memory ? -ENOMEM : -EINVAL);
    return std::nullopt;
  }
  call.ret = AsResult(outcome->busy ? -EAGAIN : 0);
  if (outcome->busy || outcome->changed_pages == 0) return std::nullopt;
  return Range{start, *size};
}

Result<std::optional<ConversionExits::Range>> ConversionExits::OnMemoryFault(
    const kvm::abi::MemoryFaultExit& fault) {
  const auto to = (fault.flags & kvm::abi::kMemoryExitFlagPrivate) != 0 ? MemoryAttribute::kPrivate
                                                                        : MemoryAttribute::kShared;
  const GuestAddress start(fault.gpa);
  auto outcome = converter_.ConvertPatiently(start, fault.size, to, kPatience);
  if (!outcome) {
    Report({start, fault.size, to, outcome.error().message()});
    return Fail(std::move(outcome).error());
  }
  // Busy: the access faults again, and by then the device may be done.
  if (outcome->busy) return std::optional<Range>();
  if (outcome->changed_pages == 0) {
    return Fail(Errc::kUnsupported,
                fmt::format("the guest cannot reach its {} memory at guest physical address {:#x}",
                            to == MemoryAttribute::kPrivate ? "private" : "shared", fault.gpa));
  }
  return std::optional(Range{start, fault.size});
}

// A guest can ask for nonsense as fast as it likes; whoever listens is told once a second.
void ConversionExits::Report(Refusal refusal) {
  if (!refused_) return;
  const auto now = steady_clock::now().time_since_epoch().count();
  auto next = next_report_.load(std::memory_order_relaxed);
  if (now < next || !next_report_.compare_exchange_strong(next, now + kBetweenReports.count(),
                                                          std::memory_order_relaxed)) {
    unreported_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  refusal.unreported = unreported_.exchange(0, std::memory_order_relaxed);
  refused_(refusal);
}

}  // namespace holdfast::machine
