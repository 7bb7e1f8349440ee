// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/dirty_rings.h>
#include <holdfast/units.h>
#include <holdfast/vcpu.h>
#include <holdfast/vm.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "kvm/flex_buffer.h"
#include "kvm/ioctl.h"

namespace holdfast::kvm {
namespace {

// More make KVM_GET_MSRS fail with E2BIG (MAX_IO_MSRS, 6.18).
constexpr std::size_t kMostMsrsAtOnce = 255;

// Where a nested state has its size: behind flags and format.
constexpr std::size_t kNestedSizeOffset = offsetof(kvm_nested_state, size);

template <typename T>
Result<T> Get(int fd, const Request<T>& request) {
  T state{};
  HF_TRY_STATUS(Call(fd, request, state));
  return state;
}

template <typename T>
Status Set(int fd, const Request<T>& request, const T& state) {
  HF_TRY_STATUS(Call(fd, request, state));
  return {};
}

}  // namespace

Result<Vcpu> Vcpu::Create(const Vm& vm, unsigned id) {
  auto fd = Call(vm.fd(), kCreateVcpu, id);
  if (!fd) return Fail(std::move(fd).error().Wrap(fmt::format("creating vCPU {}", id)));
  UniqueFd owner(*fd);
  HF_TRY(Mapping run, Mapping::MapFile(owner.get(), 0, vm.vcpu_mmap_size(), PROT_READ | PROT_WRITE,
                                       "a vCPU's shared area"));
  if (vm.dirty_rings() != nullptr) HF_TRY_STATUS(vm.dirty_rings()->Add(owner.get()));
  return Vcpu(std::move(owner), std::move(run), id, vm.dirty_rings());
}

Result<Vcpu::RunOutcome> Vcpu::Run() {
  // Full rings are no business of the guest's. A request to exit ends this: KVM sees it at entry.
  while (internal::Ioctl(fd_.get(), kRun.number, 0) >= 0) {
    if (run().exit_reason != KVM_EXIT_DIRTY_RING_FULL || rings_ == nullptr)
      return RunOutcome::kExit;
    HF_TRY_STATUS(rings_->Harvest());
  }
  switch (errno) {
    case EINTR:
    case EAGAIN:  // an application processor that waits for its INIT and was woken
      return RunOutcome::kInterrupted;
    case EFAULT:
    case EHWPOISON:
      if (run().exit_reason == abi::kExitMemoryFault) return RunOutcome::kExit;
      [[fallthrough]];
    default:
      return FailErrno(kRun.name);
  }
}

std::span<std::byte> Vcpu::io_data() const noexcept {
  const auto& io = run().io;
  const std::uint64_t length = std::uint64_t{io.size} * io.count;
  if (!RangeFits(io.data_offset, length, run_.size())) return {};
  return run_.bytes().subspan(io.data_offset, length);
}

abi::MemoryFaultExit Vcpu::memory_fault() const noexcept {
  // The distribution's kvm_run does not have this member of the union; where it lies, all lie.
  abi::MemoryFaultExit fault{};
  std::memcpy(&fault, &run().io, sizeof fault);
  return fault;
}

void Vcpu::RequestExit() const noexcept {
  std::atomic_ref(run().immediate_exit).store(1, std::memory_order_relaxed);
}

void Vcpu::ClearExitRequest() const noexcept {
  std::atomic_ref(run().immediate_exit).store(0, std::memory_order_relaxed);
}

Status Vcpu::SetCpuid(std::span<const kvm_cpuid_entry2> entries) const {
  FlexBuffer<kvm_cpuid_entry2, abi::kCpuid2HeaderSize> buffer(entries);
  HF_TRY_STATUS(Call(fd_.get(), kSetCpuid2, buffer.data()));
  return {};
}

Result<std::vector<kvm_cpuid_entry2>> Vcpu::GetCpuid() const {
  // The most a vCPU may have (KVM_MAX_CPUID_ENTRIES).
  FlexBuffer<kvm_cpuid_entry2, abi::kCpuid2HeaderSize> buffer(256);
  HF_TRY_STATUS(Call(fd_.get(), kGetCpuid2, buffer.data()));
  return buffer.Entries();
}

Result<kvm_regs> Vcpu::GetRegs() const {
  return Get(fd_.get(), kGetRegs);
}
Status Vcpu::SetRegs(const kvm_regs& regs) const {
  return Set(fd_.get(), kSetRegs, regs);
}
Result<kvm_sregs> Vcpu::GetSregs() const {
  return Get(fd_.get(), kGetSregs);
}
Status Vcpu::SetSregs(const kvm_sregs& sregs) const {
  return Set(fd_.get(), kSetSregs, sregs);
}
Result<kvm_fpu> Vcpu::GetFpu() const {
  return Get(fd_.get(), kGetFpu);
}
Status Vcpu::SetFpu(const kvm_fpu& fpu) const {
  return Set(fd_.get(), kSetFpu, fpu);
}
Result<kvm_lapic_state> Vcpu::GetLapic() const {
  return Get(fd_.get(), kGetLapic);
}
Status Vcpu::SetLapic(const kvm_lapic_state& lapic) const {
  return Set(fd_.get(), kSetLapic, lapic);
}
Status Vcpu::InjectNmi() const {
  if (internal::Ioctl(fd_.get(), kNmi.number, 0) < 0) return FailErrno(kNmi.name);
  return {};
}

Result<kvm_mp_state> Vcpu::GetMpState() const {
  return Get(fd_.get(), kGetMpState);
}
Status Vcpu::SetMpState(const kvm_mp_state& state) const {
  return Set(fd_.get(), kSetMpState, state);
}
Result<kvm_vcpu_events> Vcpu::GetEvents() const {
  return Get(fd_.get(), kGetVcpuEvents);
}
Status Vcpu::SetEvents(const kvm_vcpu_events& events) const {
  return Set(fd_.get(), kSetVcpuEvents, events);
}
Result<kvm_debugregs> Vcpu::GetDebugRegs() const {
  return Get(fd_.get(), kGetDebugregs);
}
Status Vcpu::SetDebugRegs(const kvm_debugregs& regs) const {
  return Set(fd_.get(), kSetDebugregs, regs);
}
Result<kvm_xcrs> Vcpu::GetXcrs() const {
  return Get(fd_.get(), kGetXcrs);
}
Status Vcpu::SetXcrs(const kvm_xcrs& xcrs) const {
  return Set(fd_.get(), kSetXcrs, xcrs);
}

Result<kvm_sregs2> Vcpu::GetSregs2() const {
  return Get(fd_.get(), kGetSregs2);
}
Status Vcpu::SetSregs2(const kvm_sregs2& sregs) const {
  return Set(fd_.get(), kSetSregs2, sregs);
}

Result<std::vector<std::byte>> Vcpu::GetXsave(std::size_t size) const {
  std::vector<std::byte> area(std::max<std::size_t>(size, abi::kXsaveHeaderSize));
  HF_TRY_STATUS(area.size() > abi::kXsaveHeaderSize ? Call(fd_.get(), kGetXsave2, area.data())
                                                    : Call(fd_.get(), kGetXsave, area.data()));
  return area;
}
Status Vcpu::SetXsave(std::span<const std::byte> area) const {
  std::vector<std::byte> copy(area.begin(), area.end());
  HF_TRY_STATUS(Call(fd_.get(), kSetXsave, copy.data()));
  return {};
}

Result<std::vector<std::byte>> Vcpu::GetNestedState(std::size_t most) const {
  std::vector<std::byte> state(std::max<std::size_t>(most, abi::kNestedStateHeaderSize));
  auto size = static_cast<std::uint32_t>(state.size());
  std::memcpy(state.data() + kNestedSizeOffset, &size, sizeof size);
  HF_TRY_STATUS(Call(fd_.get(), kGetNestedState, state.data()));
  std::memcpy(&size, state.data() + kNestedSizeOffset, sizeof size);
  state.resize(std::min<std::size_t>(size, state.size()));
  return state;
}
Status Vcpu::SetNestedState(std::span<const std::byte> state) const {
  std::vector<std::byte> copy(state.begin(), state.end());
  std::uint32_t size = 0;
  if (copy.size() >= abi::kNestedStateHeaderSize)
    std::memcpy(&size, copy.data() + kNestedSizeOffset, sizeof size);
  if (size != copy.size()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("a nested state of {} bytes says that it has {}", copy.size(), size));
  }
  HF_TRY_STATUS(Call(fd_.get(), kSetNestedState, copy.data()));
  return {};
}

Result<unsigned> Vcpu::GetTscKhz() const {
  HF_TRY(const int khz, Call(fd_.get(), kGetTscKhz));
  return static_cast<unsigned>(khz);
}
Status Vcpu::SetTscKhz(unsigned khz) const {
  HF_TRY_STATUS(Call(fd_.get(), kSetTscKhz, khz));
  return {};
}

Result<std::optional<std::uint64_t>> Vcpu::GetTscOffset() const {
  std::uint64_t offset = 0;
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<std::uint64_t>(&offset);
  if (!Call(fd_.get(), kHasDeviceAttr, attribute)) return std::nullopt;
  HF_TRY_STATUS(Call(fd_.get(), kGetDeviceAttr, attribute));
  return offset;
}
Status Vcpu::SetTscOffset(std::uint64_t offset) const {
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<std::uint64_t>(&offset);
  HF_TRY_STATUS(Call(fd_.get(), kSetDeviceAttr, attribute));
  return {};
}

Status Vcpu::NotifyPaused() const {
  HF_TRY_STATUS(Call(fd_.get(), kKvmclockCtrl));
  return {};
}

Result<std::uint64_t> Vcpu::PreFault(GuestAddress from, std::uint64_t size) const {
  abi::PreFaultMemory request{};
  request.gpa = from.value();
  request.size = size;
  while (request.size > 0) {
    const auto answer = Call(fd_.get(), kPreFaultMemory, request);
    if (answer) continue;
    // What is mapped so far is mapped; a slot that is just being exchanged is there again soon.
    if (answer.error().os_errno() == EAGAIN) continue;
    if (request.size < size) break;
    return Fail(answer.error());
  }
  return size - request.size;
}

Result<std::optional<std::uint64_t>> Vcpu::Translate(std::uint64_t linear_address) const {
  kvm_translation translation{};
  translation.linear_address = linear_address;
  HF_TRY_STATUS(Call(fd_.get(), kTranslate, translation));
  if (translation.valid == 0) return std::nullopt;
  return translation.physical_address;
}

Result<std::vector<kvm_msr_entry>> Vcpu::GetMsrs(std::span<const std::uint32_t> indices) const {
  std::vector<kvm_msr_entry> known;
  std::vector<kvm_msr_entry> wanted(indices.size());
  for (std::size_t i = 0; i < indices.size(); ++i) wanted[i].index = indices[i];
  std::span<const kvm_msr_entry> rest(wanted);
  // The kernel stops at the first MSR this vCPU does not have and says how many it read: skip
  // that one and go on.
  while (!rest.empty()) {
    const auto some = rest.first(std::min(kMostMsrsAtOnce, rest.size()));
    FlexBuffer<kvm_msr_entry, abi::kMsrsHeaderSize> buffer(some);
    HF_TRY(const int done, Call(fd_.get(), kGetMsrs, buffer.data()));
    const auto count = std::min(static_cast<std::size_t>(done), some.size());
    const std::vector<kvm_msr_entry> read = buffer.Entries();
    known.insert(known.end(), read.begin(), read.begin() + static_cast<std::ptrdiff_t>(count));
    rest = rest.subspan(count < some.size() ? count + 1 : count);
  }
  return known;
}

Status Vcpu::SetMsrs(std::span<const kvm_msr_entry> entries) const {
  FlexBuffer<kvm_msr_entry, abi::kMsrsHeaderSize> buffer(entries);
  HF_TRY(const int done, Call(fd_.get(), kSetMsrs, buffer.data()));
  if (static_cast<std::size_t>(done) != entries.size()) {
    return Fail(Errc::kUnsupported,
                fmt::format("KVM refuses to set MSR {:#x} of vCPU {}",
                            entries[static_cast<std::size_t>(done)].index, id_));
  }
  return {};
}

}  // namespace holdfast::kvm
