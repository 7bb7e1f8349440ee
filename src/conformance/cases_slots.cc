// SPDX-License-Identifier: Apache-2.0
// Memslots: guest_memfd in set_memory_region_test, and what it leaves out.
#include <linux/kvm.h>

#include <cerrno>
#include <functional>

#include "conformance/case.h"

namespace holdfast::conformance {
namespace {

using model::Handle;
using model::Kernel;
using model::OtherFile;
using model::Region;

// Where two slots share a guest_memfd's pages.
int OverlapError(const Kernel& kernel) {
  return kernel.rules().overlap_is_exist ? -EEXIST : -EINVAL;
}

void SlotFlags(Kernel& kernel, Check& check) {
  const Handle vm = kernel.CreateVm(0);
  const Handle file = kernel.CreateGuestMemfd(vm, kPageSize, 0);
  const Handle memory = kernel.MapAnonymous(kPageSize);
  for (unsigned bit = 0; bit < 32; ++bit) {
    Region region = OnePageRegion(1, kGuestBase, file, 0);
    region.flags = 1U << bit;
    region.user = memory;
    const bool old = region.flags == KVM_MEM_LOG_DIRTY_PAGES || region.flags == KVM_MEM_READONLY;
    for (const bool first_version : {true, false}) {
      region.first_version = first_version;
      const bool good = old || (!first_version && region.flags == kvm::abi::kMemGuestMemfd);
      check.Answer(fmt::format("flag {:#x} of version {}", region.flags, first_version ? 1 : 2),
                   kernel.SetRegion(vm, region), good ? 0 : -EINVAL);
      if (!good) continue;
      Region gone = region;
      gone.size = 0;
      gone.flags = 0;
      check.Answer("the slot's deletion", kernel.SetRegion(vm, gone), 0);
    }
  }
  for (const auto other : {KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY}) {
    Region region = OnePageRegion(1, kGuestBase, file, 0);
    region.flags |= static_cast<std::uint32_t>(other);
    check.Answer(fmt::format("flags {:#x}", region.flags), kernel.SetRegion(vm, region), -EINVAL);
  }
}

void Fields(Kernel& kernel, Check& check) {
  const Handle vm = kernel.CreateVm(0);
  const Handle file = kernel.CreateGuestMemfd(vm, 4 * kPageSize, kSharedFlags);
  const struct {
    const char* what;
    std::function<void(Region&)> spoil;
    int answer;
  } kRegions[] = {
      {"an unaligned size", [](Region& r) { r.size += 512; }, -EINVAL},
      {"an unaligned guest address", [](Region& r) { r.gpa += 512; }, -EINVAL},
      {"an unaligned host address", [](Region& r) { r.user_offset = 512; }, -EINVAL},
      {"an unaligned offset", [](Region& r) { r.file_offset = 512; }, -EINVAL},
      {"an offset that wraps", [](Region& r) { r.file_offset = ~0ULL << 12; }, -EINVAL},
      {"slot 32764", [](Region& r) { r.slot = 32764; }, -EINVAL},
      {"a guest range that wraps", [](Region& r) { r.gpa = ~0ULL << 12; }, -EINVAL},
      {"an offset at the end", [](Region& r) { r.file_offset = 4 * kPageSize; }, -EINVAL},
      {"one page too many", [](Region& r) { r.file_offset = 3 * kPageSize; }, -EINVAL},
      {"a closed file", [](Region& r) { r.file = model::kNoHandle; }, -EBADF},
      {"the deletion of nothing", [](Region& r) { r.size = 0; }, -EINVAL},
  };
  for (const auto& test : kRegions) {
    Region region = OnePageRegion(1, kGuestBase, file, 0);
    region.size = 2 * kPageSize;
    test.spoil(region);
    check.Answer(test.what, kernel.SetRegion(vm, region), test.answer);
  }
}

void WrongFiles(Kernel& kernel, Check& check) {
  const Handle vm = kernel.CreateVm(0);
  const Handle other = kernel.CreateVm(0);
  const Handle strangers[] = {kernel.Open(OtherFile::kKvmDevice), kernel.Open(OtherFile::kVm),
                              kernel.Open(OtherFile::kMemfd),
                              kernel.CreateGuestMemfd(other, kPageSize, 0)};
  for (const Handle file : strangers) {
    check.True("a file", file >= 0);
    check.Answer("a file that is not this VM's guest_memfd",
                 kernel.SetRegion(vm, OnePageRegion(1, kGuestBase, file, 0)), -EINVAL);
  }
  const Handle own = kernel.CreateGuestMemfd(vm, kPageSize, 0);
  for (std::uint64_t offset = 1; offset < kPageSize; offset += 97) {
    check.Answer(fmt::format("offset {}", offset),
                 kernel.SetRegion(vm, OnePageRegion(1, kGuestBase, own, offset)), -EINVAL);
  }
  check.Answer("its own", kernel.SetRegion(vm, OnePageRegion(1, kGuestBase, own, 0)), 0);
  check.Answer("the other VM's",
               kernel.SetRegion(other, OnePageRegion(1, kGuestBase, strangers[3], 0)), 0);
}

void Overlaps(Kernel& kernel, Check& check) {
  constexpr std::uint64_t kRegion = 2 * kMiB;
  const Handle vm = kernel.CreateVm(0);
  const Handle file = kernel.CreateGuestMemfd(vm, 5 * kRegion, 0);
  const auto set = [&](std::uint32_t slot, std::uint64_t gpa, std::uint64_t offset,
                       std::uint64_t size) {
    Region region = OnePageRegion(slot, gpa, file, offset);
    region.size = size;
    if (size == 0) region.flags = 0;
    return kernel.SetRegion(vm, region);
  };
  check.Answer("a", set(1, kGuestBase, 0, 2 * kRegion), 0);
  check.Answer("b", set(2, 2 * kGuestBase, 2 * kRegion, 2 * kRegion), 0);
  check.Answer("a without its slot", set(1, kGuestBase, 0, 0), 0);
  check.Answer("over b's first pages", set(1, kGuestBase, kRegion, 2 * kRegion),
               OverlapError(kernel));
  check.Answer("over b's last pages", set(1, kGuestBase, 3 * kRegion, 2 * kRegion),
               OverlapError(kernel));
  check.Answer("over b's guest addresses, from below",
               set(1, 2 * kGuestBase - kRegion, 0, 2 * kRegion), -EEXIST);
  check.Answer("over b's guest addresses, from above",
               set(1, 2 * kGuestBase + kRegion, 0, 2 * kRegion), -EEXIST);
  check.Answer("a again", set(1, kGuestBase, 0, 2 * kRegion), 0);
}

void OverlapThroughDuplicate(Kernel& kernel, Check& check) {
  const Handle vm = kernel.CreateVm(0);
  const Handle file = kernel.CreateGuestMemfd(vm, kPageSize, 0);
  check.Answer("the slot", kernel.SetRegion(vm, OnePageRegion(1, kGuestBase, file, 0)), 0);
  const Handle other = kernel.Duplicate(file);
  check.Answer("the same page through another descriptor",
               kernel.SetRegion(vm, OnePageRegion(2, 2 * kGuestBase, other, 0)),
               OverlapError(kernel));
}

void FarBinding(Kernel& kernel, Check& check) {
  const Handle vm = kernel.CreateVm(0);
  const Handle file = kernel.CreateGuestMemfd(vm, 4 * kPageSize, 0);
  const std::uint64_t far = static_cast<std::uint64_t>(INT64_MAX) & ~(kPageSize - 1);
  check.Answer("the last page that a file could have",
               kernel.SetRegion(vm, OnePageRegion(1, kGuestBase, file, far)),
               kernel.rules().binding_is_unsigned ? -EINVAL : 0);
}

void Immutable(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  Region region = OnePageRegion(1, kGuestBase, scene.file, 0);
  region.size = 4 * kPageSize;
  region.user = scene.host;
  check.Answer("the same slot again", kernel.SetRegion(scene.vm, region), -EINVAL);
  region.gpa = 2 * kGuestBase;
  check.Answer("another place", kernel.SetRegion(scene.vm, region), -EINVAL);
  region.gpa = kGuestBase;
  region.flags = 0;
  check.Answer("without its file", kernel.SetRegion(scene.vm, region), -EINVAL);
  region.flags = KVM_MEM_LOG_DIRTY_PAGES;
  check.Answer("with a dirty log", kernel.SetRegion(scene.vm, region), -EINVAL);
  check.Answer("its deletion", scene.DeleteSlot(), 0);
}

constexpr Case kCases[] = {
    {"slot/flags", Needs::kGuestMemfd, SlotFlags, ""},
    {"slot/fields", Needs::kGuestMemfd, Fields, ""},
    {"slot/wrong_files", Needs::kGuestMemfd, WrongFiles, ""},
    {"slot/overlaps", Needs::kGuestMemfd, Overlaps,
     "two slots on one page: EEXIST from Linux 7.2 on, before EINVAL"},
    {"slot/overlap_by_duplicate", Needs::kGuestMemfd, OverlapThroughDuplicate,
     "EEXIST from Linux 7.2 on, before EINVAL"},
    {"slot/far_binding", Needs::kGuestMemfd, FarBinding,
     "EINVAL from Linux 7.2 on; before, the end overflowed and the slot was made"},
    {"slot/immutable", Needs::kGuestMemfd, Immutable, ""},
};

}  // namespace

std::span<const Case> SlotCases() {
  return kCases;
}

}  // namespace holdfast::conformance
