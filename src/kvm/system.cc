// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/kvm_system.h>

#include <cstring>

#include "kvm/flex_buffer.h"
#include "kvm/ioctl.h"

namespace holdfast::kvm {
namespace {

constexpr int kExpectedApiVersion = 12;
// More than any host reports (about 60 CPUID entries, 200 MSRs); doubled on E2BIG up to the limit.
constexpr std::size_t kFirstGuess = 256;
constexpr std::size_t kMostEntries = 4096;

Error OpenError(const std::string& path, int os_errno) {
  Error error = Error::FromErrno("cannot open the KVM device '" + path + "'", os_errno);
  switch (os_errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return std::move(error).WithHint(
          "Holdfast needs KVM: load kvm_intel or kvm_amd, enable virtualisation in the firmware, "
          "or nested virtualisation if this is a virtual machine.");
    case EACCES:
    case EPERM:
      return std::move(error).WithHint(
          fmt::format("Run as root, or join the group that owns it: sudo usermod -aG kvm $USER, "
                      "then log in again (ls -l {}).",
                      path));
    default:
      return error;
  }
}

}  // namespace

Result<System> System::Open(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return Fail(OpenError(path, errno));
  const auto version = Call(fd.get(), kGetApiVersion);
  if (!version || *version != kExpectedApiVersion) {
    return Fail(Errc::kUnsupported, fmt::format("'{}' is not a KVM device", path),
                "Name the real one, usually /dev/kvm.");
  }
  HF_TRY(const int mmap_size, Call(fd.get(), kGetVcpuMmapSize));
  if (mmap_size < static_cast<int>(sizeof(kvm_run))) {
    return Fail(Errc::kUnsupported, fmt::format("KVM's vCPU area is only {} bytes", mmap_size));
  }
  return System(std::move(fd), static_cast<std::size_t>(mmap_size));
}

int System::CheckExtension(int capability) const noexcept {
  const auto answer = Call(fd_.get(), kCheckExtension, static_cast<unsigned long>(capability));
  return answer ? *answer : 0;
}

Result<std::vector<kvm_cpuid_entry2>> System::SupportedCpuid() const {
  for (std::size_t count = kFirstGuess; count <= kMostEntries; count *= 2) {
    FlexBuffer<kvm_cpuid_entry2, abi::kCpuid2HeaderSize> buffer(count);
    auto answer = Call(fd_.get(), kGetSupportedCpuid, buffer.data());
    if (answer) return buffer.Entries();
    if (answer.error().os_errno() != E2BIG) return Fail(std::move(answer).error());
  }
  return Fail(Errc::kUnsupported, "KVM reports more CPUID entries than Holdfast can take");
}

Result<std::vector<std::uint32_t>> System::MsrIndexList() const {
  for (std::size_t count = kFirstGuess; count <= kMostEntries; count *= 2) {
    FlexBuffer<std::uint32_t, abi::kMsrListHeaderSize> buffer(count);
    auto answer = Call(fd_.get(), kGetMsrIndexList, buffer.data());
    if (answer) return buffer.Entries();
    if (answer.error().os_errno() != E2BIG) return Fail(std::move(answer).error());
  }
  return Fail(Errc::kUnsupported, "KVM reports more MSRs than Holdfast can take");
}

}  // namespace holdfast::kvm
