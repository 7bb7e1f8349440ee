// SPDX-License-Identifier: Apache-2.0
#include "model/stand_in.h"

#include <fmt/format.h>
#include <holdfast/units.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace holdfast::model {
namespace {

namespace abi = kvm::abi;

constexpr unsigned long kSetAttributes2 = _IOWR(abi::kIoctlType, 0xd2, abi::MemoryAttributes2);
constexpr unsigned long kCreateMemfd = _IOWR(abi::kIoctlType, 0xd4, abi::CreateGuestMemfd);
constexpr std::uint64_t kBothFlags = abi::kGuestMemfdFlagMmap | abi::kGuestMemfdFlagInitShared;

int AskKernel(int fd, unsigned long number, unsigned long argument) {
  const int answer = ::ioctl(fd, number, argument);
  return answer < 0 ? -errno : answer;
}

}  // namespace

KernelStandIn::KernelStandIn(const Options& options)
    : options_(options),
      before_(kvm::SetIoctlHandler(this)),
      model_(Rules::OfRelease(7, 4).WithInPlace()),
      protected_vm_(model_.CreateVm(abi::kVmTypeSwProtected)) {}

KernelStandIn::~KernelStandIn() {
  kvm::SetIoctlHandler(before_);
}

std::optional<KernelStandIn::FileId> KernelStandIn::Identify(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return std::nullopt;
  return FileId(status.st_dev, status.st_ino);
}

std::optional<Handle> KernelStandIn::Find(int fd) const {
  const auto id = Identify(fd);
  if (!id) return std::nullopt;
  const auto found = files_.find(*id);
  return found == files_.end() ? std::nullopt : std::optional(found->second);
}

Status KernelStandIn::Register(int fd, std::uint64_t size, bool starts_shared) {
  const auto id = Identify(fd);
  if (!id) return FailErrno("fstat of a file to stand for a guest_memfd");
  const MutexLock lock(mutex_);
  const std::uint64_t flags =
      abi::kGuestMemfdFlagMmap | (starts_shared ? abi::kGuestMemfdFlagInitShared : 0);
  const Handle file = model_.CreateGuestMemfd(protected_vm_, size, flags);
  if (file < 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("a guest_memfd of {:#x} bytes: {}", size, std::strerror(-file)));
  }
  files_[*id] = file;
  return {};
}

bool KernelStandIn::Pin(int fd, std::uint64_t offset) {
  const MutexLock lock(mutex_);
  const auto file = Find(fd);
  return file && model_.PinPage(*file, offset / kPageSize);
}

bool KernelStandIn::Unpin(int fd, std::uint64_t offset) {
  const MutexLock lock(mutex_);
  const auto file = Find(fd);
  return file && model_.UnpinPage(*file, offset / kPageSize);
}

std::optional<bool> KernelStandIn::IsPrivate(int fd, std::uint64_t offset) const {
  const MutexLock lock(mutex_);
  const auto file = Find(fd);
  if (!file) return std::nullopt;
  const auto attribute = model_.AttributeOf(*file, offset / kPageSize);
  return attribute ? std::optional(*attribute == Attribute::kPrivate) : std::nullopt;
}

void KernelStandIn::FailNext(int count, int error) {
  const MutexLock lock(mutex_);
  model_.FailConversions(count, error);
}

std::uint64_t KernelStandIn::asked() const {
  const MutexLock lock(mutex_);
  return asked_;
}

std::uint64_t KernelStandIn::refused() const {
  const MutexLock lock(mutex_);
  return refused_;
}

std::optional<int> KernelStandIn::Ioctl(int fd, unsigned long number, unsigned long argument) {
  const MutexLock lock(mutex_);
  switch (number) {
    case kSetAttributes2:
      return SetAttributes(fd, argument);
    case KVM_CHECK_EXTENSION:
      return CheckExtension(fd, argument);
    case KVM_CREATE_VM:
      return CreateVm(fd, argument);
    case kCreateMemfd:
      return CreateGuestMemfd(fd, argument);
    default:
      return std::nullopt;
  }
}

std::optional<int> KernelStandIn::CheckExtension(int fd, unsigned long capability) const {
  if (capability == abi::kCapGuestMemfdMemoryAttributes) return int{abi::kMemoryAttributePrivate};
  if (!options_.vms) return std::nullopt;
  if (capability == abi::kCapMemoryAttributes) return 0;  // one of the two, never both
  if (capability == abi::kCapVmTypes) {
    const int types = AskKernel(fd, KVM_CHECK_EXTENSION, capability);
    return types < 0 ? types : types | 1 << abi::kVmTypeSwProtected;
  }
  return std::nullopt;
}

std::optional<int> KernelStandIn::CreateVm(int fd, unsigned long type) {
  if (!options_.vms || type != abi::kVmTypeSwProtected) return std::nullopt;
  const int vm = AskKernel(fd, KVM_CREATE_VM, abi::kVmTypeDefault);
  if (vm < 0) return vm;
  if (const auto id = Identify(vm)) vms_[*id] = model_.CreateVm(abi::kVmTypeSwProtected);
  return vm;
}

std::optional<int> KernelStandIn::CreateGuestMemfd(int fd, unsigned long argument) {
  const auto vm_id = Identify(fd);
  if (!options_.vms || argument == 0 || !vm_id) return std::nullopt;
  const auto vm = vms_.find(*vm_id);
  if (vm == vms_.end()) return std::nullopt;
  abi::CreateGuestMemfd request{};
  std::memcpy(&request, reinterpret_cast<const void*>(argument), sizeof request);
  const Handle file = model_.CreateGuestMemfd(vm->second, request.size, request.flags);
  if (file < 0) return file;
  // Whatever starts private could never be seen by the host on a kernel that cannot convert.
  request.flags |= kBothFlags;
  const int made = AskKernel(fd, kCreateMemfd, reinterpret_cast<unsigned long>(&request));
  if (made < 0) return made;
  if (const auto id = Identify(made)) files_[*id] = file;
  return made;
}

std::optional<int> KernelStandIn::SetAttributes(int fd, unsigned long argument) {
  const auto file = Find(fd);
  if (!file) return std::nullopt;
  if (argument == 0) return -EFAULT;
  auto* const user = reinterpret_cast<void*>(argument);
  abi::MemoryAttributes2 request{};
  std::memcpy(&request, user, sizeof request);
  ++asked_;
  const int answer = model_.SetAttributes(*file, request);
  if (answer < 0) ++refused_;
  // The kernel writes back only with these two; the caller's bytes are its own otherwise.
  if (answer == -EAGAIN || answer == -ENOMEM) std::memcpy(user, &request, sizeof request);
  return answer;
}

}  // namespace holdfast::model
