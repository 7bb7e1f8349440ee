// SPDX-License-Identifier: Apache-2.0
#include <holdfast/mapping.h>
#include <holdfast/units.h>
#include <holdfast/vm.h>
#include <sys/mman.h>

#include <cstdint>

#include "memory/conversion_engines.h"

namespace holdfast {
namespace {

constexpr std::byte kMark{0x5a};

// Whether the host gets at the page, asked without the signal that touching it would mean.
bool HostReaches(const Mapping& page) {
  return ::madvise(page.data(), kPageSize, MADV_POPULATE_READ) == 0;
}

// Shared, private, shared again: the host is let in, kept out, let in and finds what it left.
bool ConvertsInPlace(ConversionEngine& engine, const Mapping& page) {
  if (!HostReaches(page)) return false;
  page.data()[0] = kMark;
  const auto closed = engine.Apply(0, kPageSize, MemoryAttribute::kPrivate);
  if (!closed || *closed || HostReaches(page)) return false;
  const auto opened = engine.Apply(0, kPageSize, MemoryAttribute::kShared);
  return opened && !*opened && HostReaches(page) && page.data()[0] == kMark;
}

}  // namespace

bool EngineWorks(kvm::Vm& vm, ConversionEngineKind kind) {
  if (kind == ConversionEngineKind::kAttributes) {
    const auto offered =
        static_cast<std::uint64_t>(vm.CheckExtension(kvm::abi::kCapMemoryAttributes));
    // Page 0 has no memslot yet and is shared at the start.
    return (offered & kvm::abi::kMemoryAttributePrivate) != 0 &&
           vm.SetMemoryAttributes(GuestAddress(0), kPageSize, kvm::abi::kMemoryAttributePrivate) &&
           vm.SetMemoryAttributes(GuestAddress(0), kPageSize, 0);
  }
  const auto memfd = kvm::GuestMemfd::Create(vm, kPageSize, kvm::GuestMemfd::Access::kHostShared);
  if (!memfd) return false;
  const auto page =
      Mapping::MapFile(memfd->fd(), 0, kPageSize, PROT_READ | PROT_WRITE, "a page of guest memory");
  if (!page) return false;
  const auto engine = kind == ConversionEngineKind::kKernel ? MakeKernelEngine(*memfd)
                                                            : MakeGuardEngine(page->bytes());
  return ConvertsInPlace(*engine, *page);
}

std::string_view EngineNeeds(ConversionEngineKind kind) noexcept {
  switch (kind) {
    case ConversionEngineKind::kKernel:
      return "a kernel after 7.3 with kvm.gmem_in_place_conversion=1 and a VM type with private "
             "memory";
    case ConversionEngineKind::kGuard:
      return "Linux 6.18 or later";
    case ConversionEngineKind::kAttributes:
      break;
  }
  return "Linux 6.8 or later and a VM type with private memory (CONFIG_KVM_SW_PROTECTED_VM for "
         "software-protected ones)";
}

}  // namespace holdfast
