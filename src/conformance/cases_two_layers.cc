// SPDX-License-Identifier: Apache-2.0
// Private memory in two layers: software-protected VMs with VM attributes (the kernel's
// private_mem_conversions_test, private_mem_kvm_exits_test, pre_fault_memory_test).
#include <linux/falloc.h>

#include <cerrno>

#include "conformance/case.h"

namespace holdfast::conformance {
namespace {

using model::GuestAccess;
using model::Handle;
using model::Kernel;
using model::PreFaulted;

constexpr int kHole = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
constexpr unsigned kProtected = kvm::abi::kVmTypeSwProtected;

struct TwoLayers : Scene {
  TwoLayers(Kernel& used_kernel, Check& used_check, std::uint64_t pages)
      : Scene(used_kernel, used_check, {.type = kProtected, .pages = pages, .flags = 0}) {}
  int Set(std::uint64_t page, std::uint64_t count, bool to_private) {
    return kernel.SetVmAttributes(vm, {kGuestBase + page * kPageSize, count * kPageSize,
                                       to_private ? kPrivateAttribute : 0, 0});
  }
};

GuestAccess PrivateFault(std::uint64_t gpa) {
  return {GuestAccess::End::kMemoryFault, EFAULT, kvm::abi::kMemoryExitFlagPrivate, gpa, 0};
}

void BothCopies(Kernel& kernel, Check& check) {
  TwoLayers scene(kernel, check, 4);
  scene.Write(0, 0x11);
  check.Equal("shared", scene.GuestRead(0), GuestHolds(0x11));
  check.Answer("to private", scene.Set(0, 1, true), 0);
  check.Equal("private at first", scene.GuestRead(0), GuestHolds(0));
  scene.GuestWrite(0, 0x22);
  check.Equal("the host's stale copy", scene.Read(0), Holds(0x11));
  check.Answer("to shared", scene.Set(0, 1, false), 0);
  check.Equal("shared again", scene.GuestRead(0), GuestHolds(0x11));
  check.Answer("to private again", scene.Set(0, 1, true), 0);
  check.Equal("private again", scene.GuestRead(0), GuestHolds(0x22));
  check.Answer("a hole", scene.Fallocate(kHole, 0, 1), 0);
  check.Equal("private after a hole", scene.GuestRead(0), GuestHolds(0));
}

void Arguments(Kernel& kernel, Check& check) {
  TwoLayers scene(kernel, check, 1);
  using Request = kvm::abi::MemoryAttributes;
  const struct {
    const char* what;
    Request request;
  } kRequests[] = {
      {"flags", {kGuestBase, kPageSize, kPrivateAttribute, 1}},
      {"an unknown attribute", {kGuestBase, kPageSize, 1, 0}},
      {"no size", {kGuestBase, 0, kPrivateAttribute, 0}},
      {"half a page", {kGuestBase, 2048, kPrivateAttribute, 0}},
      {"an address inside a page", {kGuestBase + 8, kPageSize, kPrivateAttribute, 0}},
      {"a range up to the very end", {~0ULL << 12, kPageSize, kPrivateAttribute, 0}},
  };
  for (const auto& test : kRequests)
    check.Answer(test.what, kernel.SetVmAttributes(scene.vm, test.request), -EINVAL);
  check.Answer("where no slot is",
               kernel.SetVmAttributes(scene.vm, {64 * kGiB, kPageSize, kPrivateAttribute, 0}), 0);
  const Handle plain = kernel.CreateVm(kvm::abi::kVmTypeDefault);
  check.Answer("in a default VM",
               kernel.SetVmAttributes(plain, {kGuestBase, kPageSize, kPrivateAttribute, 0}),
               -EINVAL);
  check.Answer("nothing in a default VM",
               kernel.SetVmAttributes(plain, {kGuestBase, kPageSize, 0, 0}), 0);
}

// The ranges of private_mem_conversions_test.
void Conversions(Kernel& kernel, Check& check) {
  constexpr std::uint64_t kLarge = 2 * kMiB / kPageSize;
  const struct {
    std::uint64_t first, count;
  } kRanges[] = {{0, 1}, {0, kLarge}, {1, 1}, {1, kLarge}, {kLarge, 1}};
  TwoLayers scene(kernel, check, kLarge + 1);
  for (const auto& range : kRanges) {
    const std::uint64_t end = range.first + range.count;
    for (std::uint64_t page = 0; page <= kLarge; page += 37) scene.Write(page, 0xcc);
    scene.GuestWrite(range.first, 0x11);
    check.Answer("to private", scene.Set(range.first, range.count, true), 0);
    check.Answer("to private twice", scene.Set(range.first, range.count, true), 0);
    check.Equal("private", scene.GuestRead(range.first), GuestHolds(0));
    scene.GuestWrite(range.first, 0x22);
    check.Equal("the host's copy", scene.Read(range.first), Holds(0x11));
    check.Equal("the last page", scene.GuestRead(end - 1), GuestHolds(range.count == 1 ? 0x22 : 0));
    for (std::uint64_t page = 0; page <= kLarge; page += 37) {
      if (page < range.first || page >= end)
        check.Equal("a page outside", scene.GuestRead(page), GuestHolds(0xcc));
    }
    check.Answer("to shared", scene.Set(range.first, range.count, false), 0);
    check.Equal("shared", scene.GuestRead(range.first), GuestHolds(0x11));
    check.Answer("a hole", scene.Fallocate(kHole, 0, kLarge + 1), 0);
  }
}

void PunchedPrivate(Kernel& kernel, Check& check) {
  TwoLayers scene(kernel, check, 8);
  check.Answer("to private", scene.Set(0, 8, true), 0);
  for (std::uint64_t page = 0; page < 8; ++page) scene.GuestWrite(page, 0xcc);
  check.Answer("a hole", scene.Fallocate(kHole, 2, 3), 0);
  for (std::uint64_t page = 0; page < 8; ++page) {
    check.Equal("private", scene.GuestRead(page), GuestHolds(page >= 2 && page < 5 ? 0 : 0xcc));
  }
  kernel.CloseVm(scene.vm);
  check.Answer("a hole without the VM", scene.Fallocate(kHole, 0, 8), 0);
  check.Answer("allocation without the VM", scene.Fallocate(FALLOC_FL_KEEP_SIZE, 0, 8), 0);
}

void SlotDeleted(Kernel& kernel, Check& check) {
  TwoLayers scene(kernel, check, 1);
  check.Answer("to private", scene.Set(0, 1, true), 0);
  scene.GuestWrite(0, 0x11);
  check.Answer("the slot's deletion", scene.DeleteSlot(), 0);
  check.Equal("a private access", scene.GuestRead(0), PrivateFault(kGuestBase));
  model::Region region = OnePageRegion(1, kGuestBase, scene.file, 0);
  region.user = scene.host;
  check.Answer("the slot again", kernel.SetRegion(scene.vm, region), 0);
  check.Equal("it is private still", scene.GuestRead(0), GuestHolds(0x11));
}

// What the guest's page tables know of an address without memory, attributes do not change.
void KnownEmpty(Kernel& kernel, Check& check) {
  TwoLayers scene(kernel, check, 1);
  const std::uint64_t empty = kGuestBase + 8 * kPageSize;
  const kvm::abi::MemoryAttributes to_private{empty, 2 * kPageSize, kPrivateAttribute, 0};
  check.Equal("a shared access", kernel.GuestRead(scene.vm, empty), kMmioExit);
  check.Answer("to private", kernel.SetVmAttributes(scene.vm, to_private), 0);
  check.Equal("a private access there", kernel.GuestRead(scene.vm, empty), kMmioExit);
  check.Equal("a private access beside it", kernel.GuestRead(scene.vm, empty + kPageSize),
              PrivateFault(empty + kPageSize));
}

void PlainSlot(Kernel& kernel, Check& check) {
  const Handle vm = kernel.CreateVm(kProtected);
  model::Region region;
  region.slot = 1;
  region.gpa = 3 * kGiB;
  region.size = kPageSize;
  region.user = kernel.MapAnonymous(kPageSize);
  check.Answer("a plain slot", kernel.SetRegion(vm, region), 0);
  check.Answer("to private",
               kernel.SetVmAttributes(vm, {region.gpa, kPageSize, kPrivateAttribute, 0}), 0);
  check.Equal("a private access", kernel.GuestRead(vm, region.gpa), PrivateFault(region.gpa));
}

void ClosedFile(Kernel& kernel, Check& check) {
  TwoLayers scene(kernel, check, 2);
  scene.Write(1, 0x11);
  check.Answer("to private", scene.Set(0, 1, true), 0);
  scene.GuestWrite(0, 0x22);
  kernel.Close(scene.file);
  check.Equal("private", scene.GuestRead(0), PrivateFault(kGuestBase));
  check.Equal("shared", scene.GuestRead(1), GuestHolds(0x11));
}

void PreFaultBoth(Kernel& kernel, Check& check) {
  if (!kernel.rules().pre_fault)
    return check.NotOffered("KVM_PRE_FAULT_MEMORY (Linux 6.11, EPT or NPT)");
  TwoLayers scene(kernel, check, 4);
  check.Answer("to private", scene.Set(0, 2, true), 0);
  check.Equal("private and shared", kernel.PreFault(scene.vm, kGuestBase, 4 * kPageSize, 0),
              PreFaulted{0, 0});
  check.Equal("beyond", kernel.PreFault(scene.vm, kGuestBase + 4 * kPageSize, kPageSize, 0),
              PreFaulted{-ENOENT, kPageSize});
  for (std::uint64_t page = 0; page < 4; ++page)
    check.Equal("the guest", scene.GuestRead(page), GuestHolds(0));
}

// A file that can be mapped serves shared accesses too; what is private depends on the VM alone.
void MappableFile(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {.type = kProtected, .pages = 1, .flags = kMmapFlag});
  check.Equal("the host", scene.Read(0), kBusError);
  scene.GuestWrite(0, 0x11);
  check.Answer("to private",
               kernel.SetVmAttributes(scene.vm, {kGuestBase, kPageSize, kPrivateAttribute, 0}), 0);
  check.Equal("the same page", scene.GuestRead(0), GuestHolds(0x11));
  const Handle file = kernel.CreateGuestMemfd(scene.vm, kPageSize, kSharedFlags);
  check.Answer("INIT_SHARED", file, -EINVAL);
}

constexpr Case kCases[] = {
    {"two_layers/both_copies", Needs::kTwoLayers, BothCopies, ""},
    {"two_layers/arguments", Needs::kTwoLayers, Arguments, ""},
    {"two_layers/conversions", Needs::kTwoLayers, Conversions, ""},
    {"two_layers/punched", Needs::kTwoLayers, PunchedPrivate, ""},
    {"two_layers/slot_deleted", Needs::kTwoLayers, SlotDeleted,
     "with in-place conversion an MMIO exit"},
    {"two_layers/known_empty", Needs::kTwoLayers, KnownEmpty, ""},
    {"two_layers/plain_slot", Needs::kTwoLayers, PlainSlot, ""},
    {"two_layers/closed_file", Needs::kTwoLayers, ClosedFile, ""},
    {"two_layers/pre_fault", Needs::kTwoLayers, PreFaultBoth, ""},
    {"two_layers/mappable_file", Needs::kTwoLayers, MappableFile, ""},
};

}  // namespace

std::span<const Case> TwoLayerCases() {
  return kCases;
}

}  // namespace holdfast::conformance
