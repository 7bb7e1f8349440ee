// SPDX-License-Identifier: Apache-2.0
// What the running kernel answers through KVM's file descriptors.
#include "conformance/host_kernel.h"

#include <holdfast/units.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string_view>

namespace holdfast::conformance {
namespace {

namespace abi = kvm::abi;

constexpr unsigned long kCreateMemfd = _IOWR(abi::kIoctlType, 0xd4, abi::CreateGuestMemfd);
constexpr unsigned long kSetRegion2 = _IOW(abi::kIoctlType, 0x49, abi::UserspaceMemoryRegion2);
constexpr unsigned long kSetAttributes = _IOW(abi::kIoctlType, 0xd2, abi::MemoryAttributes);
constexpr unsigned long kSetAttributes2 = _IOWR(abi::kIoctlType, 0xd2, abi::MemoryAttributes2);
constexpr unsigned long kPreFaultMemory = _IOWR(abi::kIoctlType, 0xd5, abi::PreFaultMemory);

// "6.18.44-cloud" -> {6, 18}.
std::pair<unsigned, unsigned> ReadRelease(std::string_view text) {
  unsigned numbers[2] = {0, 0};
  for (unsigned& number : numbers) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc()) break;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (!text.starts_with('.')) break;
    text.remove_prefix(1);
  }
  return {numbers[0], numbers[1]};
}

}  // namespace

Result<std::unique_ptr<HostKernel>> HostKernel::Open() {
  HF_TRY(kvm::System system, kvm::System::Open());
  struct utsname name{};
  if (::uname(&name) != 0) return FailErrno("uname");
  std::unique_ptr<HostKernel> kernel(new HostKernel(std::move(system), name.release));
  HF_TRY_STATUS(kernel->FindRules());
  return kernel;
}

HostKernel::~HostKernel() = default;

Status HostKernel::FindRules() {
  const auto [major, minor] = ReadRelease(release_);
  rules_ = model::Rules::OfRelease(major, minor);
  rules_.vm_types = std::max(
      1U, static_cast<std::uint32_t>(std::max(0, system_.CheckExtension(abi::kCapVmTypes))));
  rules_.pre_fault = system_.CheckExtension(abi::kCapPreFaultMemory) > 0;
  HF_TRY(const kvm::Vm plain, kvm::Vm::Create(system_));
  if (plain.CheckExtension(abi::kCapGuestMemfd) <= 0) {
    return Fail(Errc::kUnsupported, "KVM does not support guest_memfd",
                "It needs Linux 6.8 or later with CONFIG_KVM_GUEST_MEMFD.");
  }
  if ((rules_.vm_types >> abi::kVmTypeSwProtected & 1) == 0) return {};
  HF_TRY(const kvm::Vm guarded, kvm::Vm::Create(system_, abi::kVmTypeSwProtected));
  rules_.vm_attributes = guarded.CheckExtension(abi::kCapMemoryAttributes) > 0;
  // The capability's number is no proof (it has been others' before); how the ioctl answers is one.
  abi::CreateGuestMemfd create{};
  create.size = kPageSize;
  const UniqueFd file(::ioctl(guarded.fd(), kCreateMemfd, &create));
  abi::MemoryAttributes2 request{};
  request.flags = 1;
  const bool known = ::ioctl(file.get(), kSetAttributes2, &request) < 0 && errno == EINVAL;
  const int mask = system_.CheckExtension(abi::kCapGuestMemfdMemoryAttributes);
  rules_.in_place = known;
  rules_.gmem_attributes = known && mask > 0 ? static_cast<std::uint64_t>(mask) : 0;
  return {};
}

HostKernel::VmEntry* HostKernel::VmOf(Handle vm) const {
  const auto i = static_cast<std::size_t>(vm);
  return vm >= 0 && i < vms_.size() ? vms_[i].get() : nullptr;
}

GuestRunner* HostKernel::RunnerOf(Handle vm) const {
  VmEntry* const entry = VmOf(vm);
  if (entry == nullptr) return nullptr;
  if (entry->runner == nullptr) {
    auto runner = GuestRunner::Create(system_, entry->vm);
    if (runner) entry->runner = *std::move(runner);
  }
  return entry->runner.get();
}

void HostKernel::Recycle() {
  for (auto& entry : vms_) {
    if (entry == nullptr) continue;
    for (const std::uint32_t slot : entry->slots) {
      kvm_userspace_memory_region gone{};
      gone.slot = slot;
      ::ioctl(entry->vm.fd(), KVM_SET_USER_MEMORY_REGION, &gone);
    }
    entry->slots.clear();
    for (kvm::abi::MemoryAttributes range : entry->closed) {
      range.attributes = 0;
      ::ioctl(entry->vm.fd(), kSetAttributes, &range);
    }
    entry->closed.clear();
    spare_vms_.push_back(std::move(entry));
  }
  vms_.clear();
  for (std::size_t pin = 0; pin < pins_.size(); ++pin) Unpin(static_cast<Handle>(pin));
  pins_.clear();
  mappings_.clear();
  unmapped_.clear();
  files_.clear();
}

int HostKernel::CheckExtension(Handle vm, int capability) {
  const VmEntry* const entry = VmOf(vm);
  return entry != nullptr ? entry->vm.CheckExtension(capability)
                          : system_.CheckExtension(capability);
}

model::Handle HostKernel::CreateVm(unsigned type) {
  const auto spare = std::ranges::find(spare_vms_, type, [](const auto& e) { return e->type; });
  if (spare != spare_vms_.end()) {
    vms_.push_back(std::move(*spare));
    spare_vms_.erase(spare);
  } else {
    auto vm = kvm::Vm::Create(system_, type);
    if (!vm) return -vm.error().os_errno();
    vms_.push_back(std::make_unique<VmEntry>(VmEntry{type, *std::move(vm), nullptr, {}, {}}));
  }
  return static_cast<Handle>(vms_.size() - 1);
}

void HostKernel::CloseVm(Handle vm) {
  if (VmOf(vm) != nullptr) vms_[static_cast<std::size_t>(vm)].reset();
}

model::Handle HostKernel::CreateGuestMemfd(Handle vm, std::uint64_t size, std::uint64_t flags) {
  const VmEntry* const entry = VmOf(vm);
  if (entry == nullptr) return -EBADF;
  abi::CreateGuestMemfd request{};
  request.size = size;
  request.flags = flags;
  request.reserved[3] = 1;  // not looked at
  return AddFile(Answer(::ioctl(entry->vm.fd(), kCreateMemfd, &request)));
}

int HostKernel::SetRegion(Handle vm, const model::Region& region) {
  VmEntry* const entry = VmOf(vm);
  if (entry == nullptr) return -EBADF;
  abi::UserspaceMemoryRegion2 request{};
  request.slot = region.slot;
  request.flags = region.flags;
  request.guest_phys_addr = region.gpa;
  request.memory_size = region.size;
  const Mapping* const user = MappingOf(region.user);
  request.userspace_addr = (user != nullptr ? user->address() : 0) + region.user_offset;
  request.guest_memfd_offset = region.file_offset;
  request.guest_memfd = static_cast<std::uint32_t>(FdOf(region.file));
  const unsigned long number = region.first_version ? KVM_SET_USER_MEMORY_REGION : kSetRegion2;
  const int answer = Answer(::ioctl(entry->vm.fd(), number, &request));
  if (answer == 0) {
    std::erase(entry->slots, region.slot);
    if (region.size != 0) entry->slots.push_back(region.slot);
  }
  return answer;
}

int HostKernel::SetVmAttributes(Handle vm, const abi::MemoryAttributes& request) {
  VmEntry* const entry = VmOf(vm);
  if (entry == nullptr) return -EBADF;
  abi::MemoryAttributes copy = request;
  const int answer = Answer(::ioctl(entry->vm.fd(), kSetAttributes, &copy));
  if (answer == 0 && request.attributes != 0) entry->closed.push_back(request);
  return answer;
}

int HostKernel::SetAttributes(Handle file, abi::MemoryAttributes2& request) {
  return Answer(::ioctl(FdOf(file), kSetAttributes2, &request));
}

model::GuestAccess HostKernel::GuestRead(Handle vm, std::uint64_t gpa) {
  GuestRunner* const runner = RunnerOf(vm);
  if (runner == nullptr) return {model::GuestAccess::End::kError, EBADF, 0, 0, 0};
  return runner->Read(gpa);
}

model::GuestAccess HostKernel::GuestWrite(Handle vm, std::uint64_t gpa, model::Value value) {
  GuestRunner* const runner = RunnerOf(vm);
  if (runner == nullptr) return {model::GuestAccess::End::kError, EBADF, 0, 0, 0};
  return runner->Write(gpa, value);
}

model::PreFaulted HostKernel::PreFault(Handle vm, std::uint64_t gpa, std::uint64_t size,
                                       std::uint64_t flags) {
  GuestRunner* const runner = RunnerOf(vm);
  if (runner == nullptr) return {-EBADF, size};
  abi::PreFaultMemory request{};
  request.gpa = gpa;
  request.size = size;
  request.flags = flags;
  int answer = 0;
  do {
    answer = Answer(::ioctl(runner->vcpu_fd(), kPreFaultMemory, &request));
  } while (answer == -EINTR);
  return {answer, request.size};
}

std::int64_t HostKernel::InChild(const std::function<std::int64_t()>& what) {
  int ends[2] = {-1, -1};
  if (::pipe(ends) != 0) return -errno;
  const UniqueFd out(ends[0]);
  UniqueFd in(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return -errno;
  if (child == 0) {
    const std::int64_t answer = what();
    const bool told = ::write(in.get(), &answer, sizeof answer) == sizeof answer;
    ::_exit(told ? 0 : 1);
  }
  in.reset();
  std::int64_t answer = -EPIPE;
  if (::read(out.get(), &answer, sizeof answer) != sizeof answer) answer = -EPIPE;
  ::waitpid(child, nullptr, 0);
  return answer;
}

}  // namespace holdfast::conformance
