// SPDX-License-Identifier: Apache-2.0
#include "kvm/tdx_commands.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include <holdfast/units.h>
#include <holdfast/vcpu.h>
#include <holdfast/vm.h>

#include "kvm/ioctl.h"
#include "kvm/sev_abi.h"

namespace holdfast::kvm {
namespace {

// KVM_MAX_CPUID_ENTRIES of the kernel: it never wants room for more.
constexpr std::uint32_t kMostCpuidEntries = 256;
constexpr std::uint32_t kFirstCpuidEntries = 32;
constexpr std::chrono::seconds kLongestWait{30};

Status Issue(int fd, std::uint32_t id, std::string_view name, std::uint32_t flags,
             std::uint64_t data) {
  abi::TdxCommand command{.id = id, .flags = flags, .data = data, .hw_error = 0};
  if (internal::CallRaw(fd, abi::kMemoryEncryptOp, &command) >= 0) return {};
  const int saved = errno;
  Error error = Error::FromErrno(name, saved);
  if (command.hw_error == 0) return Fail(std::move(error));
  return Fail(
      Error(error.code(),
            fmt::format("{} (the TDX module answered {:#x})", error.message(), command.hw_error),
            {}, saved));
}

// `T` followed by room for `count` CPUID entries.
template <typename T>
std::vector<std::uint64_t> WithEntries(std::size_t count) {
  static_assert(sizeof(T) % sizeof(std::uint64_t) == 0);
  return std::vector<std::uint64_t>((sizeof(T) + count * sizeof(kvm_cpuid_entry2)) /
                                    sizeof(std::uint64_t));
}

}  // namespace

Result<TdxLimits> TdxCapabilities(const Vm& vm) {
  for (std::uint32_t room = kFirstCpuidEntries;; room *= 2) {
    std::vector<std::uint64_t> storage = WithEntries<abi::TdxCapabilities>(room);
    abi::TdxCapabilities header{};
    header.cpuid.nent = room;
    std::memcpy(storage.data(), &header, sizeof header);
    const Status done = Issue(vm.fd(), abi::kTdxCapabilities, "KVM_TDX_CAPABILITIES", 0,
                              reinterpret_cast<std::uint64_t>(storage.data()));
    if (!done) {
      if (done.error().os_errno() == E2BIG && room < kMostCpuidEntries) continue;
      return Fail(done.error());
    }
    std::memcpy(&header, storage.data(), sizeof header);
    TdxLimits limits{
        .attributes = header.supported_attrs, .xfam = header.supported_xfam, .cpuid = {}};
    limits.cpuid.resize(std::min(header.cpuid.nent, room));
    if (!limits.cpuid.empty()) {
      std::memcpy(limits.cpuid.data(), storage.data() + sizeof header / sizeof(std::uint64_t),
                  limits.cpuid.size() * sizeof(kvm_cpuid_entry2));
    }
    return limits;
  }
}

Status TdxInitVm(const Vm& vm, const abi::TdxInitVm& init,
                 std::span<const kvm_cpuid_entry2> cpuid) {
  if (cpuid.size() > kMostCpuidEntries) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("KVM_TDX_INIT_VM: {} CPUID entries are more than {}", cpuid.size(),
                            kMostCpuidEntries));
  }
  std::vector<std::uint64_t> storage = WithEntries<abi::TdxInitVm>(cpuid.size());
  abi::TdxInitVm header = init;
  header.cpuid = {.nent = static_cast<std::uint32_t>(cpuid.size()), .padding = 0};
  std::memcpy(storage.data(), &header, sizeof header);
  if (!cpuid.empty()) {
    std::memcpy(storage.data() + sizeof header / sizeof(std::uint64_t), cpuid.data(),
                cpuid.size_bytes());
  }
  const auto end = std::chrono::steady_clock::now() + kLongestWait;
  for (;;) {
    const Status done = Issue(vm.fd(), abi::kTdxInitVm, "KVM_TDX_INIT_VM", 0,
                              reinterpret_cast<std::uint64_t>(storage.data()));
    if (done || done.error().os_errno() != EAGAIN) return done;
    if (std::chrono::steady_clock::now() > end) {
      return Fail(Error(done.error())
                      .WithHint("The processor has no random numbers left: somebody on this host "
                                "uses them all up."));
    }
    ::sched_yield();
  }
}

Status TdxInitVcpu(const Vcpu& vcpu, std::uint64_t rcx) {
  return Issue(vcpu.fd(), abi::kTdxInitVcpu, "KVM_TDX_INIT_VCPU", 0, rcx);
}

Status TdxInitMemRegion(const Vcpu& vcpu, abi::TdxMemRegion& region, bool measure) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point moved = Clock::now();
  while (region.nr_pages != 0) {
    const abi::TdxMemRegion before = region;
    const Status done =
        Issue(vcpu.fd(), abi::kTdxInitMemRegion, "KVM_TDX_INIT_MEM_REGION",
              measure ? abi::kTdxMeasure : 0, reinterpret_cast<std::uint64_t>(&region));
    if (!done && done.error().os_errno() != EAGAIN) return Fail(done.error());
    const std::uint64_t pages = before.nr_pages - region.nr_pages;
    if (region.nr_pages > before.nr_pages || region.gpa != before.gpa + pages * kPageSize) {
      return Fail(Errc::kSystem,
                  fmt::format("KVM_TDX_INIT_MEM_REGION of {} pages at {:#x}: KVM went on to {:#x} "
                              "with {} pages left",
                              before.nr_pages, before.gpa, region.gpa, region.nr_pages));
    }
    if (pages != 0) {
      moved = Clock::now();
    } else if (Clock::now() - moved > kLongestWait) {
      return Fail(Errc::kSystem,
                  fmt::format("KVM_TDX_INIT_MEM_REGION does not get on at {:#x}; {} pages are left",
                              region.gpa, region.nr_pages));
    } else {
      ::sched_yield();
    }
  }
  return {};
}

Status TdxFinalizeVm(const Vm& vm) {
  return Issue(vm.fd(), abi::kTdxFinalizeVm, "KVM_TDX_FINALIZE_VM", 0, 0);
}

}  // namespace holdfast::kvm
