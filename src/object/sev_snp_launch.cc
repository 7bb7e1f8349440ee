// SPDX-License-Identifier: Apache-2.0
#include "object/sev_snp_launch.h"

#include <fmt/format.h>
#include <holdfast/mapping.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "object/launch_image.h"

namespace holdfast::object {
namespace {

using kvm::abi::SnpCpuidEntry;
using kvm::abi::SnpCpuidPage;
using kvm::abi::SnpLaunchUpdate;

// ---- The CPUID page
// ------------------------------------------------------------------------------
constexpr std::uint32_t kXsaveLeaf = 0xd;
// Header and legacy area: what XSAVE needs while XCR0 is 1. Linux works out the rest itself.
constexpr std::uint32_t kXsaveSizeAtStart = 0x240;

constexpr std::uint32_t kEncryptionLeaf = 0x8000001f;
constexpr std::uint32_t kSev = 1U << 1;
constexpr std::uint32_t kSevEs = 1U << 3;
constexpr std::uint32_t kSevSnp = 1U << 4;

// Bits that the firmware refuses in any guest's page: what they stand for is the host's.
void LeaveOutHostBits(SnpCpuidEntry& entry) {
  constexpr std::uint32_t kTscDeadline = 1U << 24;     // 1, ECX
  constexpr std::uint32_t kTscAdjust = 1U << 1;        // 7.0, EBX
  constexpr std::uint32_t kSpeculation = 0x3fU << 26;  // 7.0, EDX: SPEC_CTRL to SSBD
  constexpr std::uint32_t kVirtualSsbd = 1U << 25;     // 0x80000008, EBX
  if (entry.eax_in == 1) entry.ecx &= ~kTscDeadline;
  if (entry.eax_in == 7 && entry.ecx_in == 0) {
    entry.ebx &= ~kTscAdjust;
    entry.edx &= ~kSpeculation;
  }
  if (entry.eax_in == 0x80000008) entry.ebx &= ~kVirtualSsbd;
}

// ---- Linux
// ---------------------------------------------------------------------------------------
constexpr std::uint64_t kPresent = 1;
constexpr std::uint64_t kLarge = 1 << 7;
constexpr std::uint64_t kAddressMask = 0x000ffffffffff000;
constexpr std::size_t kEntries = 512;
constexpr unsigned kTopLevel = 4;  // PML4
constexpr unsigned kDirectoryPointers = 3;
constexpr std::size_t kMostTables = 64;  // the loaders make six

// Documentation/arch/x86/boot.rst, zero-page.rst.
constexpr std::uint64_t kHeaderMagicAt = 0x202;
constexpr std::uint32_t kHeaderMagic = 0x53726448;  // "HdrS"
constexpr std::uint64_t kSetupDataAt = 0x250;
constexpr std::uint32_t kSetupCcBlob = 7;

struct __attribute__((packed)) CcSetupData {
  std::uint64_t next;
  std::uint32_t type;
  std::uint32_t length;
  std::uint32_t blob_address;
};
struct __attribute__((packed)) CcBlob {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint16_t reserved;
  std::uint64_t secrets_address;
  std::uint32_t secrets_length;
  std::uint32_t reserved1;
  std::uint64_t cpuid_address;
  std::uint32_t cpuid_length;
  std::uint32_t reserved2;
};
static_assert(sizeof(CcSetupData) == 20 && sizeof(CcBlob) == 40);
constexpr std::uint32_t kCcBlobMagic = 0x45444d41;  // "AMDE"
constexpr std::uint64_t kBlobOffset = 0x40;         // in the blob page, behind the setup_data

template <typename T>
Result<T> ReadAs(const AddressSpace& memory, GuestAddress from) {
  T value{};
  HF_TRY_STATUS(memory.Read(from, std::as_writable_bytes(std::span(&value, 1))));
  return value;
}
template <typename T>
Status WriteAs(const AddressSpace& memory, GuestAddress to, const T& value) {
  return memory.Write(to, std::as_bytes(std::span(&value, 1)));
}

// Sets `bit` in every entry of the tree of page tables below `table`. A table that is in the tree
// twice has its bits already when it comes the second time.
Status Encrypt(const AddressSpace& memory, GuestAddress table, unsigned level, std::uint64_t bit,
               std::size_t& tables) {
  if (++tables > kMostTables) {
    return Fail(Errc::kMalformed, "the guest's first page tables are no tree that Holdfast made");
  }
  using Table = std::array<std::uint64_t, kEntries>;
  HF_TRY(Table entries, ReadAs<Table>(memory, table));
  for (std::uint64_t& entry : entries) {
    if ((entry & kPresent) == 0) continue;
    const bool maps = level == 1 || (level <= kDirectoryPointers && (entry & kLarge) != 0);
    if (!maps) {
      HF_TRY_STATUS(
          Encrypt(memory, GuestAddress(entry & kAddressMask & ~bit), level - 1, bit, tables));
    }
    entry |= bit;
  }
  return WriteAs(memory, table, entries);
}

// ---- The firmware
// --------------------------------------------------------------------------------
Error CpuidRefused(const Error& error, const SnpCpuidPage& given, const SnpCpuidPage& left) {
  const std::string mismatch = DescribeCpuidMismatch(given, left);
  if (mismatch.empty()) return error;
  return Error(Errc::kUnsupported,
               fmt::format("the SEV firmware refuses the guest's CPUID: {}", mismatch),
               "It accepts only what this processor gives such guests.", error.os_errno());
}

class Launcher {
 public:
  Launcher(const kvm::SnpCommands& commands, const ConfidentialGuest::Guest& guest, bool in_place)
      : commands_(commands), guest_(guest), in_place_(in_place) {}

  Status Zero(GuestAddress base, std::uint64_t size) {
    HF_TRY_STATUS(MakeLaunchPrivate(guest_.converter, base, size));
    return Update(base, size, 0, kvm::abi::kSnpPageZero);
  }
  Status Contents(GuestAddress base, std::uint64_t size, std::uint8_t type) {
    if (in_place_) {
      HF_TRY_STATUS(MakeLaunchPrivate(guest_.converter, base, size));
      return Update(base, size, 0, type);
    }
    return LaunchFromBuffer(guest_.memory, guest_.converter, base, size,
                            [&](GuestAddress at, std::span<std::byte> copy) {
                              return Update(at, copy.size(),
                                            reinterpret_cast<std::uint64_t>(copy.data()), type);
                            });
  }
  // Always from a copy: there the firmware leaves what it would have accepted.
  Status Cpuid(const SnpCpuidPage& page) {
    HF_TRY(const Mapping copy, Mapping::MapAnonymous(kPageSize, "a copy of the CPUID page"));
    std::memcpy(copy.data(), &page, sizeof page);
    HF_TRY_STATUS(MakeLaunchPrivate(guest_.converter, kSnpCpuidPage, kPageSize));
    const Status done = Update(kSnpCpuidPage, kPageSize, copy.address(), kvm::abi::kSnpPageCpuid);
    if (done || firmware_status_ != kvm::abi::kSevInvalidParameter) return done;
    const auto left = std::make_unique<SnpCpuidPage>();
    std::memcpy(left.get(), copy.data(), sizeof page);
    return Fail(CpuidRefused(done.error(), page, *left));
  }

 private:
  Status Update(GuestAddress base, std::uint64_t size, std::uint64_t source, std::uint8_t type) {
    SnpLaunchUpdate update{};
    update.gfn_start = base.value() / kPageSize;
    update.uaddr = source;
    update.len = size;
    update.type = type;
    return commands_.LaunchUpdate(update, firmware_status_);
  }

  const kvm::SnpCommands& commands_;
  const ConfidentialGuest::Guest& guest_;
  bool in_place_;
  std::uint32_t firmware_status_ = 0;
};

}  // namespace

Result<SnpCpuidPage> MakeSnpCpuidPage(std::span<const kvm_cpuid_entry2> entries,
                                      const SnpAddressBits& bits) {
  // One more: that of memory encryption, which is ours.
  if (entries.size() >= kvm::abi::kSnpCpuidMost) {
    return Fail(Errc::kUnsupported,
                fmt::format("SEV-SNP: the guest's CPUID has {} entries, and a page holds {}",
                            entries.size() + 1, kvm::abi::kSnpCpuidMost));
  }
  SnpCpuidPage page{};
  for (const kvm_cpuid_entry2& from : entries) {
    if (from.function == kEncryptionLeaf) continue;
    SnpCpuidEntry& to = page.entries[page.count++];
    to.eax_in = from.function;
    if ((from.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0) to.ecx_in = from.index;
    to.eax = from.eax;
    to.ebx = from.ebx;
    to.ecx = from.ecx;
    to.edx = from.edx;
    if (to.eax_in == kXsaveLeaf && to.ecx_in <= 1) {
      to.ebx = kXsaveSizeAtStart;
      to.xcr0_in = 1;
    }
    LeaveOutHostBits(to);
  }
  SnpCpuidEntry& encryption = page.entries[page.count++];
  encryption.eax_in = kEncryptionLeaf;
  encryption.eax = kSev | kSevEs | kSevSnp;
  encryption.ebx = bits.cbitpos | bits.reduced_phys_bits << 6;
  return page;
}

std::string DescribeCpuidMismatch(const SnpCpuidPage& given, const SnpCpuidPage& wanted) {
  if (given.count != wanted.count)
    return fmt::format("it has {} entries, expected {}", given.count, wanted.count);
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(given.count, given.entries.size()); ++i) {
    const SnpCpuidEntry& a = given.entries[i];
    const SnpCpuidEntry& b = wanted.entries[i];
    if (std::memcmp(&a, &b, sizeof a) == 0) continue;
    text += fmt::format(
        "{}function {:#x}, index {:#x}: provided eax {:#x} ebx {:#x} ecx {:#x} edx {:#x}, expected "
        "eax {:#x} ebx {:#x} ecx {:#x} edx {:#x}",
        text.empty() ? "" : "; ", a.eax_in, a.ecx_in, a.eax, a.ebx, a.ecx, a.edx, b.eax, b.ebx,
        b.ecx, b.edx);
  }
  return text;
}

Status PrepareSnpLinux(const AddressSpace& memory, const kvm::Vcpu& first, unsigned cbitpos) {
  HF_TRY(const kvm_regs regs, first.GetRegs());
  const GuestAddress zero_page(regs.rsi);
  const auto magic = ReadAs<std::uint32_t>(memory, zero_page + kHeaderMagicAt);
  if (!magic || *magic != kHeaderMagic) {
    return Fail(Errc::kUnsupported, "SEV-SNP guests are booted from a Linux bzImage only",
                "Name the kernel's vmlinuz with -kernel; a PVH kernel does not learn what it must "
                "know.");
  }
  HF_TRY(const std::uint64_t next, ReadAs<std::uint64_t>(memory, zero_page + kSetupDataAt));
  const CcSetupData data{
      .next = next,
      .type = kSetupCcBlob,
      .length = sizeof(std::uint32_t),
      .blob_address = static_cast<std::uint32_t>(kSnpBlobPage.value() + kBlobOffset)};
  const CcBlob blob{.magic = kCcBlobMagic,
                    .version = 0,
                    .reserved = 0,
                    .secrets_address = kSnpSecretsPage.value(),
                    .secrets_length = kPageSize,
                    .reserved1 = 0,
                    .cpuid_address = kSnpCpuidPage.value(),
                    .cpuid_length = kPageSize,
                    .reserved2 = 0};
  HF_TRY_STATUS(WriteAs(memory, kSnpBlobPage, data));
  HF_TRY_STATUS(WriteAs(memory, kSnpBlobPage + kBlobOffset, blob));
  HF_TRY_STATUS(WriteAs(memory, zero_page + kSetupDataAt, kSnpBlobPage.value()));

  // CR3 stays as it is: the processor takes page tables as encrypted whatever it says.
  HF_TRY(const kvm_sregs sregs, first.GetSregs());
  const std::uint64_t bit = 1ULL << cbitpos;
  std::size_t tables = 0;
  return Encrypt(memory, GuestAddress(sregs.cr3 & kAddressMask & ~bit), kTopLevel, bit, tables);
}

Status LaunchSnpMemory(const kvm::SnpCommands& commands, const ConfidentialGuest::Guest& guest,
                       const SnpCpuidPage& cpuid, bool in_place) {
  HF_TRY(const std::vector<LaunchRun> runs, FindLaunchRuns(guest.memory));
  Launcher launcher(commands, guest, in_place);
  const auto give = [&](GuestAddress base, std::uint64_t size, bool zero) -> Status {
    if (size == 0) return {};
    return zero ? launcher.Zero(base, size)
                : launcher.Contents(base, size, kvm::abi::kSnpPageNormal);
  };
  static_assert(kSnpCpuidPage == kSnpSecretsPage + kPageSize);
  constexpr std::uint64_t kSpecialEnd = kSnpCpuidPage.value() + kPageSize;
  for (const LaunchRun& run : runs) {
    // The part below the two pages, these, and the part above them.
    const std::uint64_t begin = run.base.value();
    const std::uint64_t end = begin + run.size;
    const std::uint64_t below = std::clamp(kSnpSecretsPage.value(), begin, end);
    const std::uint64_t above = std::clamp(kSpecialEnd, begin, end);
    HF_TRY_STATUS(give(run.base, below - begin, run.zero));
    const auto has = [&](GuestAddress page) {
      return page.value() >= below && page.value() < above;
    };
    if (has(kSnpSecretsPage))
      HF_TRY_STATUS(launcher.Contents(kSnpSecretsPage, kPageSize, kvm::abi::kSnpPageSecrets));
    if (has(kSnpCpuidPage)) HF_TRY_STATUS(launcher.Cpuid(cpuid));
    HF_TRY_STATUS(give(GuestAddress(above), end - above, run.zero));
  }
  return {};
}

}  // namespace holdfast::object
