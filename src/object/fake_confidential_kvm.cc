// SPDX-License-Identifier: Apache-2.0
#include "object/fake_confidential_kvm.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <holdfast/units.h>

namespace holdfast::object {
namespace {

using namespace kvm::abi;  // NOLINT(google-build-using-namespace): this file is about nothing else

// The kernel's numbers as they are, so that ours are held against them.
constexpr unsigned long kGetApiVersion = 0xae00;
constexpr unsigned long kCreateVm = 0xae01;
constexpr unsigned long kCheckExtension = 0xae03;
constexpr unsigned long kGetVcpuMmapSize = 0xae04;
constexpr unsigned long kCreateVcpu = 0xae41;
constexpr unsigned long kGetSupportedCpuid = 0xc008ae05;
constexpr unsigned long kSetUserMemoryRegion2 = 0x40a0ae49;
constexpr unsigned long kGetRegs = 0x8090ae81;
constexpr unsigned long kGetSregs = 0x8138ae83;
constexpr unsigned long kGetCpuid2 = 0xc008ae91;
constexpr unsigned long kEnableCap = 0x4068aea3;
constexpr unsigned long kSetMemoryAttributes = 0x4020aed2;
constexpr unsigned long kSetMemoryAttributes2 = 0xc080aed2;
constexpr unsigned long kCreateGuestMemfd = 0xc040aed4;

constexpr int kVcpuArea = 3 * kPageSize;
constexpr unsigned long kApicBusCycles = 237;
constexpr std::uint64_t kIdBlockSize = 96;
constexpr std::uint64_t kIdAuthSize = 4096;

template <typename T>
T& At(unsigned long address) {
  return *reinterpret_cast<T*>(address);
}

template <typename T, std::size_t kCount>
bool AllZero(const T (&values)[kCount]) {
  return std::all_of(std::begin(values), std::end(values), [](const T& v) { return v == 0; });
}

std::vector<std::byte> Copy(std::uint64_t address, std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::memcpy(bytes.data(), reinterpret_cast<const void*>(address), size);
  return bytes;
}

int Memfd(const char* name, std::uint64_t size) {
  const int fd = ::memfd_create(name, MFD_CLOEXEC);
  if (fd >= 0 && ::ftruncate(fd, static_cast<off_t>(size)) == 0) return fd;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  return -error;
}

std::string_view SnpTypeName(unsigned type) {
  switch (type) {
    case kSnpPageNormal:
      return "normal";
    case kSnpPageZero:
      return "zero";
    case kSnpPageUnmeasured:
      return "unmeasured";
    case kSnpPageSecrets:
      return "secrets";
    case kSnpPageCpuid:
      return "cpuid";
    default:
      return {};
  }
}

}  // namespace

FakeConfidentialKvm::FakeConfidentialKvm(Options options)
    : options_(std::move(options)), before_(kvm::SetIoctlHandler(this)) {}

FakeConfidentialKvm::~FakeConfidentialKvm() {
  kvm::SetIoctlHandler(before_);
}

std::optional<int> FakeConfidentialKvm::Ioctl(int fd, unsigned long number,
                                              unsigned long argument) {
  if (number == kMemoryEncryptOp) {
    if (argument == 0) return options_.vm_type == kVmTypeSnp ? 0 : -ENOTTY;
    if (options_.vm_type == kVmTypeSnp) return Sev(At<SevCommand>(argument));
    return Tdx(vcpus_.contains(fd), At<TdxCommand>(argument));
  }
  if (number == kSevIssueCommand) return SevPlatform(At<SevIssueCommand>(argument));
  if (number == kSetMemoryAttributes) return SetAttributes(At<MemoryAttributes>(argument));
  if (number == kSetMemoryAttributes2) return SetAttributes2(fd, At<MemoryAttributes2>(argument));
  if (number == kGetCpuid2 || number == kGetSupportedCpuid) return GetCpuid(argument);
  if (number == kGetRegs) {
    At<kvm_regs>(argument) = regs;
    return 0;
  }
  if (number == kGetSregs) {
    At<kvm_sregs>(argument) = sregs;
    return 0;
  }
  return Make(fd, number, argument);
}

// What makes the things that a launch works on.
std::optional<int> FakeConfidentialKvm::Make(int /*fd*/, unsigned long number,
                                             unsigned long argument) {
  if (number == kGetApiVersion) return 12;
  if (number == kGetVcpuMmapSize) return kVcpuArea;
  if (number == kCheckExtension) return CheckExtension(argument);
  if (number == kCreateVm) {
    if (argument != options_.vm_type && argument != kVmTypeDefault) return -EINVAL;
    vm_made_ = true;
    const int vm = ::eventfd(0, EFD_CLOEXEC);
    return vm >= 0 ? vm : -errno;
  }
  if (number == kCreateVcpu) {
    // A TD is configured before its first vCPU.
    if (options_.vm_type == kVmTypeTdx && stage_ != Stage::kInitialized) return -EIO;
    const int vcpu = Memfd("fake-vcpu", kVcpuArea);
    if (vcpu >= 0) vcpus_.insert(vcpu);
    return vcpu;
  }
  if (number == kCreateGuestMemfd) return CreateGuestMemfd(argument);
  if (number == kSetUserMemoryRegion2) {
    const auto& region = At<UserspaceMemoryRegion2>(argument);
    if (region.memory_size == 0) return 0;
    if ((region.flags & kMemGuestMemfd) == 0) return -EINVAL;
    slots_.push_back({region.guest_phys_addr, region.memory_size,
                      static_cast<int>(region.guest_memfd), region.guest_memfd_offset});
    return 0;
  }
  if (number == kEnableCap) {
    const auto& request = At<kvm_enable_cap>(argument);
    if (request.cap == kApicBusCycles) apic_bus_ns = request.args[0];
    return 0;
  }
  return -ENOTTY;
}

int FakeConfidentialKvm::CheckExtension(unsigned long capability) const {
  switch (capability) {
    case kCapVmTypes:
      return static_cast<int>(1U << options_.vm_type | 1U);
    case kCapGuestMemfd:
    case kApicBusCycles:
      return 1;
    case kCapGuestMemfdFlags:
      return options_.in_place ? 3 : 1;
    case kCapMemoryAttributes:
      return options_.in_place ? 0 : static_cast<int>(kMemoryAttributePrivate);
    default:
      return 0;
  }
}

int FakeConfidentialKvm::CreateGuestMemfd(unsigned long argument) {
  const auto& request = At<kvm::abi::CreateGuestMemfd>(argument);
  if ((request.flags & kGuestMemfdFlagInitShared) != 0 && !options_.in_place) return -EINVAL;
  const int fd = Memfd("fake-guest-memfd", request.size);
  if (fd >= 0) memfds_[fd] = request.size;
  return fd;
}

int FakeConfidentialKvm::SetAttributes(const MemoryAttributes& request) {
  if (options_.in_place) return -ENOTTY;
  if (request.flags != 0 || (request.attributes & ~kMemoryAttributePrivate) != 0) return -EINVAL;
  if (request.size == 0 || !IsPageAligned(request.address | request.size)) return -EINVAL;
  for (std::uint64_t at = 0; at < request.size; at += kPageSize) {
    const std::uint64_t gfn = (request.address + at) / kPageSize;
    if (request.attributes != 0) {
      private_gfns_.insert(gfn);
    } else {
      private_gfns_.erase(gfn);
    }
  }
  return 0;
}

int FakeConfidentialKvm::SetAttributes2(int fd, MemoryAttributes2& request) {
  if (!options_.in_place || !memfds_.contains(fd)) return -ENOTTY;
  if (request.flags != 0 || !AllZero(request.reserved)) return -EINVAL;
  if ((request.attributes & ~kMemoryAttributePrivate) != 0) return -EINVAL;
  if (request.size == 0 || !IsPageAligned(request.offset | request.size)) return -EINVAL;
  if (!RangeFits(request.offset, request.size, memfds_[fd])) return -EINVAL;
  for (std::uint64_t at = 0; at < request.size; at += kPageSize) {
    const std::pair page(fd, (request.offset + at) / kPageSize);
    if (request.attributes != 0) {
      private_pages_.insert(page);
    } else {
      private_pages_.erase(page);
    }
  }
  return 0;
}

int FakeConfidentialKvm::GetCpuid(unsigned long argument) const {
  auto& header = At<TdxCpuidHeader>(argument);
  if (header.nent < cpuid.size()) return -E2BIG;
  header.nent = static_cast<std::uint32_t>(cpuid.size());
  if (!cpuid.empty()) {
    std::memcpy(reinterpret_cast<void*>(argument + sizeof header), cpuid.data(),
                cpuid.size() * sizeof(kvm_cpuid_entry2));
  }
  return 0;
}

const FakeConfidentialKvm::Slot* FakeConfidentialKvm::SlotOf(std::uint64_t gpa) const {
  for (const Slot& slot : slots_) {
    if (gpa >= slot.gpa && gpa - slot.gpa < slot.size) return &slot;
  }
  return nullptr;
}

bool FakeConfidentialKvm::IsPrivate(std::uint64_t gpa) const {
  if (!options_.in_place) return private_gfns_.contains(gpa / kPageSize);
  const Slot* const slot = SlotOf(gpa);
  return slot != nullptr &&
         private_pages_.contains({slot->memfd, (gpa - slot->gpa + slot->offset) / kPageSize});
}

// Populates one page: it must be in a slot, private, and not given away before.
int FakeConfidentialKvm::Take(std::uint64_t gpa, std::uint64_t source, Page page) {
  const Slot* const slot = SlotOf(gpa);
  if (slot == nullptr || !IsPrivate(gpa)) return -EINVAL;
  if (pages_.contains(gpa)) return -EEXIST;
  page.bytes.resize(kPageSize);
  if (source != 0) {
    page.bytes = Copy(source, kPageSize);
  } else if (page.type != kSnpPageZero) {
    page.in_place = true;
    const auto offset = static_cast<off_t>(gpa - slot->gpa + slot->offset);
    if (::pread(slot->memfd, page.bytes.data(), kPageSize, offset) !=
        static_cast<ssize_t>(kPageSize)) {
      return -EFAULT;
    }
  }
  pages_[gpa] = std::move(page);
  return 0;
}

void FakeConfidentialKvm::Note(const std::string& what, std::uint64_t gpa, std::uint64_t size) {
  const bool goes_on = !commands_.empty() && what == last_what_ && gpa == last_end_;
  if (goes_on) {
    commands_.pop_back();
  } else {
    last_begin_ = gpa;
  }
  last_what_ = what;
  last_end_ = gpa + size;
  commands_.push_back(fmt::format("{} {:#x}+{:#x}", what, last_begin_, last_end_ - last_begin_));
}

bool FakeConfidentialKvm::BusyNow() {
  was_busy_ = options_.busy_at_first && !was_busy_;
  return was_busy_;
}

int FakeConfidentialKvm::Sev(SevCommand& command) {
  const auto failing = options_.fail.find(command.id);
  if (failing != options_.fail.end()) {
    command.error = static_cast<std::uint32_t>(failing->second);
    return -EIO;
  }
  if (!vm_made_ || command.pad0 != 0) return -EINVAL;
  switch (command.id) {
    case kSevInit2: {
      const auto& init = At<SevInit>(command.data);
      if (stage_ != Stage::kNothing || init.flags != 0 || init.pad1 != 0 || !AllZero(init.pad2) ||
          !vcpus_.empty()) {
        return -EINVAL;
      }
      stage_ = Stage::kInitialized;
      commands_.emplace_back("init");
      return 0;
    }
    case kSnpLaunchStart: {
      start = At<SnpLaunchStart>(command.data);
      const bool padded = AllZero(start.pad0) && AllZero(start.pad1);
      if (stage_ != Stage::kInitialized || start.flags != 0 || !padded) return -EINVAL;
      if ((start.policy & 1U << 17) == 0) return -EINVAL;
      stage_ = Stage::kStarted;
      commands_.emplace_back("start");
      return 0;
    }
    case kSnpLaunchUpdate:
      return SnpUpdate(At<SnpLaunchUpdate>(command.data), command.error);
    case kSnpLaunchFinish:
      finish = At<SnpLaunchFinish>(command.data);
      return SnpFinish();
    default:
      return -EINVAL;
  }
}

int FakeConfidentialKvm::SnpUpdate(SnpLaunchUpdate& update, std::uint32_t& status) {
  const bool padded = update.pad0 == 0 && update.pad1 == 0 && AllZero(update.pad2);
  if (stage_ != Stage::kStarted || update.flags != 0 || !padded) return -EINVAL;
  if (update.len == 0 || !IsPageAligned(update.len | update.uaddr)) return -EINVAL;
  if (SnpTypeName(update.type).empty()) return -EINVAL;
  const bool zero = update.type == kSnpPageZero;
  if (!zero && update.uaddr == 0 && !options_.in_place) return -EINVAL;
  if (BusyNow()) return -EAGAIN;
  if (update.type == kSnpPageCpuid && options_.refuse_cpuid_function != 0) {
    auto& page = At<SnpCpuidPage>(update.uaddr);
    for (std::uint32_t i = 0; i < page.count; ++i) {
      if (page.entries[i].eax_in == options_.refuse_cpuid_function) page.entries[i].ecx ^= 1;
    }
    status = kSevInvalidParameter;
    return -EIO;
  }
  const std::uint64_t pages = std::min(options_.pages_at_once, update.len / kPageSize);
  const std::uint64_t gpa = update.gfn_start * kPageSize;
  for (std::uint64_t i = 0; i < pages; ++i) {
    const std::uint64_t source = zero || update.uaddr == 0 ? 0 : update.uaddr + i * kPageSize;
    const Page page{.type = update.type, .measured = true, .in_place = false, .bytes = {}};
    if (Take(gpa + i * kPageSize, source, page) != 0) return -EIO;
  }
  Note(fmt::format("update {}", SnpTypeName(update.type)), gpa, pages * kPageSize);
  update.gfn_start += pages;
  update.len -= pages * kPageSize;
  if (!zero && update.uaddr != 0) update.uaddr += pages * kPageSize;
  return 0;
}

int FakeConfidentialKvm::SnpFinish() {
  const bool padded = AllZero(finish.pad0) && AllZero(finish.pad1);
  if (stage_ != Stage::kStarted || finish.flags != 0 || !padded || vcpus_.empty()) return -EINVAL;
  if (finish.id_block_en != 0) {
    if (finish.id_block_uaddr == 0 || finish.id_auth_uaddr == 0) return -EINVAL;
    id_block = Copy(finish.id_block_uaddr, kIdBlockSize);
    id_auth = Copy(finish.id_auth_uaddr, kIdAuthSize);
  }
  stage_ = Stage::kFinished;
  commands_.emplace_back("finish");
  return 0;
}

// Two buffers of known contents, and a length that must be asked for first.
int FakeConfidentialKvm::SevPlatform(SevIssueCommand& command) const {
  const auto fill = [&](std::uint64_t address, std::uint32_t& length, std::uint32_t size,
                        std::byte value) {
    const bool fits = address != 0 && length >= size;
    if (fits) std::memset(reinterpret_cast<void*>(address), std::to_integer<int>(value), size);
    length = size;
    return fits;
  };
  switch (command.cmd) {
    case kSnpPlatformStatus:
      At<SnpPlatformStatus>(command.data).api_major = 1;
      return 0;
    case kSevPdhCertExport: {
      auto& request = At<SevPdhCertExport>(command.data);
      std::uint32_t pdh = request.pdh_length;
      std::uint32_t chain = request.chain_length;
      const bool fits = fill(request.pdh_address, pdh, 4, std::byte{1}) &&
                        fill(request.chain_address, chain, 5, std::byte{2});
      request.pdh_length = 4;
      request.chain_length = 5;
      if (fits) return 0;
      command.error = kSevInvalidLength;
      return -EIO;
    }
    case kSevGetId2: {
      auto& request = At<SevGetId2>(command.data);
      std::uint32_t length = request.length;
      const bool fits = fill(request.address, length, 6, std::byte{3});
      request.length = length;
      if (fits) return 0;
      command.error = kSevInvalidLength;
      return -EIO;
    }
    default:
      return -EINVAL;
  }
}

int FakeConfidentialKvm::Tdx(bool of_vcpu, TdxCommand& command) {
  const auto failing = options_.fail.find(command.id);
  if (failing != options_.fail.end()) {
    command.hw_error = failing->second;
    return -EIO;
  }
  if (!vm_made_ || command.hw_error != 0) return -EINVAL;
  const bool wants_vcpu = command.id == kTdxInitVcpu || command.id == kTdxInitMemRegion;
  if (of_vcpu != wants_vcpu) return -EINVAL;
  if (command.flags != 0 && command.id != kTdxInitMemRegion) return -EINVAL;
  switch (command.id) {
    case kTdxCapabilities:
      return TdxCapabilities(command.data);
    case kTdxInitVm:
      if (BusyNow()) return -EAGAIN;
      return TdxInitVm(command.data);
    case kTdxInitVcpu:
      if (stage_ != Stage::kInitialized || ready_vcpus_ == vcpus_.size()) return -EINVAL;
      ++ready_vcpus_;
      commands_.push_back(fmt::format("vcpu {:#x}", command.data));
      return 0;
    case kTdxInitMemRegion:
      if ((command.flags & ~kTdxMeasure) != 0 || ready_vcpus_ == 0) return -EINVAL;
      return TdxAdd(At<TdxMemRegion>(command.data), command.flags == kTdxMeasure);
    case kTdxFinalizeVm:
      if (command.data != 0 || ready_vcpus_ != vcpus_.size() || stage_ != Stage::kInitialized)
        return -EINVAL;
      stage_ = Stage::kFinished;
      commands_.emplace_back("finalize");
      return 0;
    default:
      return -EINVAL;
  }
}

int FakeConfidentialKvm::TdxCapabilities(unsigned long data) const {
  auto& caps = At<kvm::abi::TdxCapabilities>(data);
  if (caps.cpuid.nent < tdx_configurable.size()) return -E2BIG;
  caps.supported_attrs = tdx_attributes;
  caps.supported_xfam = tdx_xfam;
  caps.cpuid.nent = static_cast<std::uint32_t>(tdx_configurable.size());
  if (!tdx_configurable.empty()) {
    std::memcpy(reinterpret_cast<void*>(data + sizeof caps), tdx_configurable.data(),
                tdx_configurable.size() * sizeof(kvm_cpuid_entry2));
  }
  return 0;
}

int FakeConfidentialKvm::TdxInitVm(unsigned long data) {
  if (stage_ != Stage::kNothing || !vcpus_.empty()) return -EINVAL;
  tdx_init = At<kvm::abi::TdxInitVm>(data);
  if (!AllZero(tdx_init.reserved) || tdx_init.cpuid.padding != 0) return -EINVAL;
  if ((tdx_init.attributes & ~tdx_attributes) != 0 || (tdx_init.xfam & ~tdx_xfam) != 0)
    return -EINVAL;
  tdx_cpuid.resize(tdx_init.cpuid.nent);
  if (!tdx_cpuid.empty()) {
    std::memcpy(tdx_cpuid.data(), reinterpret_cast<const void*>(data + sizeof tdx_init),
                tdx_cpuid.size() * sizeof(kvm_cpuid_entry2));
  }
  // Every entry must be one that can be configured, and one says how wide addresses are.
  bool wide = false;
  for (const kvm_cpuid_entry2& entry : tdx_cpuid) {
    const bool known = std::any_of(
        tdx_configurable.begin(), tdx_configurable.end(), [&](const kvm_cpuid_entry2& may) {
          return may.function == entry.function && may.index == entry.index;
        });
    if (!known) return -EINVAL;
    const std::uint32_t bits = entry.eax >> 16 & 0xffU;
    if (entry.function == 0x80000008) wide = bits == 48 || bits == 52;
  }
  if (!wide) return -EINVAL;
  stage_ = Stage::kInitialized;
  commands_.emplace_back("init");
  return 0;
}

int FakeConfidentialKvm::TdxAdd(TdxMemRegion& region, bool measure) {
  if (stage_ != Stage::kInitialized || region.nr_pages == 0) return -EINVAL;
  if (!IsPageAligned(region.gpa | region.source_addr)) return -EINVAL;
  if (region.source_addr == 0 && !options_.in_place) return -EOPNOTSUPP;
  if (BusyNow()) return -EAGAIN;
  const std::uint64_t pages = std::min(options_.pages_at_once, region.nr_pages);
  for (std::uint64_t i = 0; i < pages; ++i) {
    const std::uint64_t source = region.source_addr == 0 ? 0 : region.source_addr + i * kPageSize;
    const Page page{.type = 1, .measured = measure, .in_place = false, .bytes = {}};
    if (const int error = Take(region.gpa + i * kPageSize, source, page); error != 0) return error;
  }
  Note(measure ? "add" : "add unmeasured", region.gpa, pages * kPageSize);
  region.gpa += pages * kPageSize;
  region.nr_pages -= pages;
  if (region.source_addr != 0) region.source_addr += pages * kPageSize;
  return 0;
}

}  // namespace holdfast::object
