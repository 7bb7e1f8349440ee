// SPDX-License-Identifier: Apache-2.0
// The guest's view: accesses, lifetimes, pre-faulting (guest_memfd_test, pre_fault_memory_test).
#include <linux/falloc.h>
#include <sys/mman.h>

#include <cerrno>

#include "conformance/case.h"

namespace holdfast::conformance {
namespace {

using model::GuestAccess;
using model::Handle;
using model::Kernel;
using model::PreFaulted;

constexpr int kHole = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;

void HostAndGuest(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  for (std::uint64_t page = 0; page < 4; ++page) scene.Write(page, 0xaa);
  check.Answer("munmap", kernel.Unmap(scene.host), 0);
  for (std::uint64_t page = 0; page < 4; ++page) {
    check.Equal("what the guest finds", scene.GuestRead(page), GuestHolds(0xaa));
    check.Equal("a write of the guest", scene.GuestWrite(page, 0xff), GuestHolds(0));
  }
  scene.host = kernel.Map(scene.file, 0, 4 * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED);
  for (std::uint64_t page = 0; page < 4; ++page)
    check.Equal("what the host finds", scene.Read(page), Holds(0xff));
}

void FreshAndPunched(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  check.Equal("a page that nobody touched", scene.GuestRead(0), GuestHolds(0));
  check.Answer("allocation", scene.Fallocate(FALLOC_FL_KEEP_SIZE, 0, 4), 0);
  check.Equal("an allocated page", scene.GuestRead(1), GuestHolds(0));
  scene.GuestWrite(1, 0x11);
  scene.GuestWrite(2, 0x22);
  check.Answer("allocation again", scene.Fallocate(FALLOC_FL_KEEP_SIZE, 0, 4), 0);
  check.Equal("a page after allocation", scene.GuestRead(1), GuestHolds(0x11));
  check.Answer("a hole", scene.Fallocate(kHole, 1, 1), 0);
  check.Equal("the punched page", scene.GuestRead(1), GuestHolds(0));
  check.Equal("the page beside it", scene.GuestRead(2), GuestHolds(0x22));
}

void NoSlot(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  check.Equal("a read where nothing is", kernel.GuestRead(scene.vm, 2 * kGuestBase), kMmioExit);
  check.Equal("a write where nothing is", kernel.GuestWrite(scene.vm, 2 * kGuestBase, 1),
              kMmioExit);
  scene.GuestWrite(0, 0x11);
  check.Answer("the slot's deletion", scene.DeleteSlot(), 0);
  check.Equal("a read where the slot was", scene.GuestRead(0), kMmioExit);
}

void Rebound(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  scene.GuestWrite(2, 0x22);
  check.Answer("the slot's deletion", scene.DeleteSlot(), 0);
  model::Region region = OnePageRegion(7, 2 * kGuestBase, scene.file, 2 * kPageSize);
  region.user = scene.host;
  region.user_offset = 2 * kPageSize;
  check.Answer("another slot", kernel.SetRegion(scene.vm, region), 0);
  check.Equal("the page at its new place", kernel.GuestRead(scene.vm, 2 * kGuestBase),
              GuestHolds(0x22));
}

void ClosedFile(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  scene.GuestWrite(0, 0x11);
  check.Answer("close", kernel.Close(scene.file), 0);
  check.Equal("while a mapping holds the file", scene.GuestRead(0), GuestHolds(0x11));
  check.Answer("munmap", kernel.Unmap(scene.host), 0);
  check.Equal("when the file is gone", scene.GuestRead(0),
              GuestAccess{GuestAccess::End::kMemoryFault, EFAULT, 0, kGuestBase, 0});
  const Handle file = kernel.CreateGuestMemfd(scene.vm, kPageSize, kSharedFlags);
  check.Answer("a slot on its addresses",
               kernel.SetRegion(scene.vm, OnePageRegion(2, kGuestBase, file, 0)), -EEXIST);
  check.Answer("the slot's deletion", scene.DeleteSlot(), 0);
  check.Answer("a slot then", kernel.SetRegion(scene.vm, OnePageRegion(2, kGuestBase, file, 0)), 0);
}

// Without the MMAP flag a default VM's accesses go to the host's addresses, not to the file.
void HostMemory(Kernel& kernel, Check& check) {
  if (kernel.rules().in_place)
    return check.NotOffered(
        "a kernel without in-place conversion, where not every slot is served from its file");
  Scene scene(kernel, check, {.flags = 0});
  scene.Write(0, 0x11);
  check.Equal("the guest", scene.GuestRead(0), GuestHolds(0x11));
  scene.GuestWrite(0, 0x12);
  check.Equal("the host", scene.Read(0), Holds(0x12));
}

void PreFaultShared(Kernel& kernel, Check& check) {
  constexpr std::uint64_t kLarge = 2 * kMiB;
  Scene scene(kernel, check, {.pages = kLarge / kPageSize + 1});
  const Handle vm = scene.vm;
  check.Equal("2 MiB", kernel.PreFault(vm, kGuestBase, kLarge, 0), PreFaulted{0, 0});
  PreFaulted answer = kernel.PreFault(vm, kGuestBase + kLarge, 2 * kPageSize, 0);
  if (answer.result == 0 && answer.left == kPageSize)
    answer = kernel.PreFault(vm, kGuestBase + kLarge + kPageSize, kPageSize, 0);
  check.Equal("a page beyond the slot", answer, PreFaulted{-ENOENT, kPageSize});
  check.Equal("nothing but that",
              kernel.PreFault(vm, kGuestBase + kLarge + kPageSize, kPageSize, 0),
              PreFaulted{-ENOENT, kPageSize});
  for (std::uint64_t page = 0; page <= kLarge / kPageSize; page += 64)
    check.Equal("the guest", scene.GuestRead(page), GuestHolds(0));
  check.Equal("flags", kernel.PreFault(vm, kGuestBase, kPageSize, 1),
              PreFaulted{-EINVAL, kPageSize});
  check.Equal("an address inside a page", kernel.PreFault(vm, kGuestBase + 8, kPageSize, 0),
              PreFaulted{-EINVAL, kPageSize});
  check.Equal("half a page", kernel.PreFault(vm, kGuestBase, 2048, 0), PreFaulted{-EINVAL, 2048});
  check.Equal("nothing", kernel.PreFault(vm, kGuestBase, 0, 0), PreFaulted{-EINVAL, 0});
}

void PreFaultClosed(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  scene.GuestRead(0);
  kernel.Unmap(scene.host);
  kernel.Close(scene.file);
  check.Equal("a slot without its file", kernel.PreFault(scene.vm, kGuestBase, kPageSize, 0),
              PreFaulted{-EFAULT, kPageSize});
}

constexpr Case kCases[] = {
    {"guest/host_and_guest", Needs::kGuestMemfd, HostAndGuest, ""},
    {"guest/fresh_and_punched", Needs::kGuestMemfd, FreshAndPunched, ""},
    {"guest/no_slot", Needs::kGuestMemfd, NoSlot, ""},
    {"guest/rebound", Needs::kGuestMemfd, Rebound, ""},
    {"guest/closed_file", Needs::kGuestMemfd, ClosedFile, ""},
    {"guest/host_memory", Needs::kGuestMemfd, HostMemory, ""},
    {"pre_fault/shared", Needs::kPreFault, PreFaultShared, ""},
    {"pre_fault/closed_file", Needs::kPreFault, PreFaultClosed, ""},
};

}  // namespace

std::span<const Case> GuestCases() {
  return kCases;
}

}  // namespace holdfast::conformance
