// SPDX-License-Identifier: Apache-2.0
// The host's view of guest_memfd: mappings, faults, advice, pins, broken memory.
#include <linux/falloc.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>

#include <cerrno>

#include "conformance/case.h"

namespace holdfast::conformance {
namespace {

using model::Fault;
using model::Handle;
using model::HostAccess;
using model::Kernel;

constexpr int kHole = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;
constexpr int kBindTo = MPOL_BIND;
constexpr int kNoPolicy = MPOL_DEFAULT;

void MmapShared(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {.bound = false});
  for (std::uint64_t page = 0; page < 4; ++page) scene.Write(page, 0xaa);
  check.Answer("a hole", scene.Fallocate(kHole, 0, 1), 0);
  check.Equal("the punched page", scene.Read(0), Holds(0));
  for (std::uint64_t page = 1; page < 4; ++page)
    check.Equal("a page beside it", scene.Read(page), Holds(0xaa));
  check.Equal("a write", scene.Write(0, 0xbb), kWritten);
  check.Equal("what it wrote", scene.Read(0), Holds(0xbb));
}

void BeyondTheEnd(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {.bound = false});
  const Handle wide = kernel.Map(scene.file, 0, 16 * kPageSize, kReadWrite, MAP_SHARED);
  check.True("a mapping four times the size", wide >= 0);
  for (std::uint64_t page = 0; page < 4; ++page)
    check.Equal("inside", kernel.Write(wide, page * kPageSize, 0xaa), kWritten);
  check.Equal("a write beyond the end", kernel.Write(wide, 4 * kPageSize, 1), kBusError);
  check.Equal("a read beyond the end", kernel.Read(wide, 15 * kPageSize), kBusError);
  check.Answer("a pin beyond the end", kernel.Pin(wide, 4 * kPageSize), -EFAULT);
  for (std::uint64_t page = 0; page < 4; ++page)
    check.Equal("what is inside", scene.Read(page), Holds(0xaa));
}

void PrivateFaults(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {.flags = kMmapFlag, .bound = false});
  check.Equal("a write", scene.Write(0, 0xaa), kBusError);
  check.Equal("a read", scene.Read(0), kBusError);
  check.Answer("a pin", kernel.Pin(scene.host, 0), -EFAULT);
  check.Answer("MADV_POPULATE_READ", kernel.Advise(scene.host, 0, kPageSize, MADV_POPULATE_READ),
               -EFAULT);
  check.Answer("MADV_POPULATE_WRITE", kernel.Advise(scene.host, 0, kPageSize, MADV_POPULATE_WRITE),
               -EFAULT);
}

void CopyOnWrite(Kernel& kernel, Check& check) {
  for (const std::uint64_t flags : {kMmapFlag, kSharedFlags}) {
    const Handle file = kernel.CreateGuestMemfd(kernel.CreateVm(0), kPageSize, flags);
    check.Answer("MAP_PRIVATE", kernel.Map(file, 0, kPageSize, kReadWrite, MAP_PRIVATE), -EINVAL);
    check.Answer("PROT_EXEC", kernel.Map(file, 0, kPageSize, PROT_EXEC, MAP_SHARED), -EPERM);
    check.Answer("MAP_SYNC",
                 kernel.Map(file, 0, kPageSize, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC),
                 -EOPNOTSUPP);
    check.Answer("MAP_HUGETLB", kernel.Map(file, 0, kPageSize, PROT_READ, MAP_SHARED | MAP_HUGETLB),
                 -EINVAL);
    check.Answer("an unaligned offset", kernel.Map(file, 7, kPageSize, PROT_READ, MAP_SHARED),
                 -EINVAL);
  }
}

void NotMappable(Kernel& kernel, Check& check) {
  const Handle file = kernel.CreateGuestMemfd(kernel.CreateVm(0), 4 * kPageSize, 0);
  for (const std::uint64_t pages : {std::uint64_t{1}, std::uint64_t{4}}) {
    for (const int sharing : {MAP_SHARED, MAP_PRIVATE}) {
      check.Answer("mmap without the flag",
                   kernel.Map(file, 0, pages * kPageSize, kReadWrite, sharing), -ENODEV);
    }
  }
}

void ReadOnly(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {.bound = false});
  const Handle view = kernel.Map(scene.file, 0, 4 * kPageSize, PROT_READ, MAP_SHARED);
  check.Equal("a read", kernel.Read(view, 0), Holds(0));
  check.Equal("a write", kernel.Write(view, 0, 1), HostAccess{Fault::kSegv, 0});
}

void Advice(Kernel& kernel, Check& check) {
  constexpr int kCollapse = 25;
  Scene scene(kernel, check, {.pages = 1024, .bound = false});
  scene.Write(0, 0xaa);
  const struct {
    const char* name;
    int advice;
    int answer;
  } kAdvice[] = {
      {"DONTNEED", MADV_DONTNEED, 0},
      {"COLD", MADV_COLD, 0},
      {"PAGEOUT", MADV_PAGEOUT, 0},
      {"WILLNEED", MADV_WILLNEED, 0},
      {"HUGEPAGE", MADV_HUGEPAGE, 0},
      {"NOHUGEPAGE", MADV_NOHUGEPAGE, 0},
      {"DONTDUMP", MADV_DONTDUMP, 0},
      {"POPULATE_READ", MADV_POPULATE_READ, 0},
      {"POPULATE_WRITE", MADV_POPULATE_WRITE, 0},
      {"FREE", MADV_FREE, -EINVAL},
      {"WIPEONFORK", MADV_WIPEONFORK, -EINVAL},
      {"COLLAPSE", kCollapse, -EINVAL},
  };
  for (const auto& entry : kAdvice) {
    // Some of these are for hugetlb or transparent huge pages, which a kernel may not have.
    const int got = kernel.Advise(scene.host, 0, 1024 * kPageSize, entry.advice);
    const bool huge = entry.advice == MADV_HUGEPAGE || entry.advice == MADV_NOHUGEPAGE;
    if (huge && got == -EINVAL) continue;
    check.Answer(fmt::format("MADV_{}", entry.name), got, entry.answer);
    check.Equal(fmt::format("contents after MADV_{}", entry.name), scene.Read(0), Holds(0xaa));
  }
  check.Answer("MADV_REMOVE", kernel.Advise(scene.host, 0, kPageSize, MADV_REMOVE), 0);
  check.Equal("contents after MADV_REMOVE", scene.Read(0), Holds(0));
}

void Guards(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  const HostAccess caught{Fault::kSegv, 0};
  scene.Write(1, 0x11);
  const int guarded = kernel.Advise(scene.host, kPageSize, kPageSize, model::kAdviceGuardInstall);
  if (guarded == -EINVAL) return check.NotOffered("guard pages in files (Linux 6.15)");
  check.Answer("MADV_GUARD_INSTALL", guarded, 0);
  check.Equal("the host at the guard", scene.Read(1), caught);
  check.Equal("the host beside it", scene.Write(2, 0x22), kWritten);
  check.Answer("a pin at the guard", kernel.Pin(scene.host, kPageSize), -EFAULT);
  check.Equal("the guest behind the guard", scene.GuestRead(1), GuestHolds(0x11));
  check.Equal("a write of the guest", scene.GuestWrite(1, 0x12), GuestHolds(0));
  check.Answer("a hole", scene.Fallocate(kHole, 1, 1), 0);
  check.Equal("the host at the guard after a hole", scene.Read(1), caught);
  check.Equal("the guest after a hole", scene.GuestRead(1), GuestHolds(0));
  scene.GuestWrite(1, 0x13);
  check.Answer("MADV_GUARD_REMOVE",
               kernel.Advise(scene.host, kPageSize, kPageSize, model::kAdviceGuardRemove), 0);
  check.Equal("the host without the guard", scene.Read(1), Holds(0x13));
}

// Truncation that finds a page mapped anywhere takes guards of that page with it, everywhere.
void GuardsAndHoles(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  const HostAccess caught{Fault::kSegv, 0};
  const Handle other = kernel.Map(scene.file, 0, 4 * kPageSize, kReadWrite, MAP_SHARED);
  const int guarded = kernel.Advise(scene.host, 0, 4 * kPageSize, model::kAdviceGuardInstall);
  if (guarded == -EINVAL) return check.NotOffered("guard pages in files (Linux 6.15)");
  check.Answer("MADV_GUARD_INSTALL", guarded, 0);
  kernel.Write(other, kPageSize, 0x11);
  scene.GuestWrite(2, 0x22);
  check.Answer("a hole", scene.Fallocate(kHole, 0, 4), 0);
  check.Equal("where nothing was", scene.Read(0), caught);
  check.Equal("where the other mapping had the page", scene.Read(1), Holds(0));
  check.Equal("where only the guest had it", scene.Read(2), caught);
}

void Pins(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {.bound = false});
  scene.Write(1, 0x11);
  const Handle pin = kernel.Pin(scene.host, kPageSize);
  if (!check.True("a pin", pin >= 0)) return;
  scene.Write(1, 0x12);
  check.Answer("what the pin shows", kernel.PinnedValue(pin), 0x12);
  check.Answer("a hole under the pin", scene.Fallocate(kHole, 1, 1), 0);
  check.Equal("the file after the hole", scene.Read(1), Holds(0));
  check.Answer("what the pin shows then", kernel.PinnedValue(pin), 0x12);
  kernel.Unpin(pin);
}

// Why placement cannot be looked at; empty: it can.
std::string_view NoPlacement(Kernel& kernel) {
  if (!kernel.rules().file_policy) return "memory policies of the file (Linux 6.19)";
  return kernel.Nodes() < 2 ? "two NUMA nodes" : "";
}

void NumaPolicy(Kernel& kernel, Check& check) {
  if (const auto why = NoPlacement(kernel); !why.empty()) return check.NotOffered(why);
  Scene scene(kernel, check, {.bound = false});
  const Handle other = kernel.Map(scene.file, 0, 4 * kPageSize, kReadWrite, MAP_SHARED);
  check.Answer("mbind", kernel.SetPolicy(scene.host, 0, 2 * kPageSize, kBindTo, 1), 0);
  check.Answer("the policy there", kernel.PolicyOf(scene.host, kPageSize), kBindTo);
  check.Answer("the policy through another mapping", kernel.PolicyOf(other, 0), kBindTo);
  check.Answer("the policy beside it", kernel.PolicyOf(other, 2 * kPageSize), kNoPolicy);
  check.Answer("none, through a mapping that has none",
               kernel.SetPolicy(other, 0, 4 * kPageSize, kNoPolicy, 0), 0);
  check.Answer("the policy after that", kernel.PolicyOf(scene.host, 0), kBindTo);
  check.Answer("none", kernel.SetPolicy(scene.host, 0, 4 * kPageSize, kNoPolicy, 0), 0);
  check.Answer("the policy then", kernel.PolicyOf(scene.host, 0), kNoPolicy);
  check.Answer("policy 999", kernel.SetPolicy(scene.host, 0, kPageSize, 999, 0), -EINVAL);
}

void NumaPlacement(Kernel& kernel, Check& check) {
  if (const auto why = NoPlacement(kernel); !why.empty()) return check.NotOffered(why);
  Scene scene(kernel, check, {.bound = false});
  const auto place = [&](unsigned first, unsigned second) {
    check.Answer("mbind", kernel.SetPolicy(scene.host, 0, 2 * kPageSize, kBindTo, first), 0);
    check.Answer("mbind",
                 kernel.SetPolicy(scene.host, 2 * kPageSize, 2 * kPageSize, kBindTo, second), 0);
    check.Answer("allocation", scene.Fallocate(FALLOC_FL_KEEP_SIZE, 0, 4), 0);
  };
  const auto look = [&](std::string_view what, int first, int second) {
    for (std::uint64_t page = 0; page < 4; ++page) {
      scene.Read(page);
      check.Answer(what, kernel.NodeOf(scene.host, page * kPageSize), page < 2 ? first : second);
    }
  };
  place(1, 0);
  look("a page's node", 1, 0);
  place(0, 1);
  look("the node of a page that was there", 1, 0);
  check.Answer("a hole", scene.Fallocate(kHole, 0, 4), 0);
  place(0, 1);
  look("a new page's node", 0, 1);
}

void Userfault(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {.bound = false});
  const int answer = kernel.RegisterUserfault(scene.host);
  if (answer == -EPERM || answer == -ENOSYS) return check.NotOffered("permission for userfaultfd");
  check.Answer("UFFDIO_REGISTER for missing pages", answer, -EINVAL);
}

void Poison(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  scene.Read(0);
  scene.Write(1, 0x22);
  const int answer = kernel.Poison(scene.host, 0);
  if (answer == -EPERM)
    return check.NotOffered("--poison and root: it breaks a page of this machine's memory");
  if (answer == -EINVAL) return check.NotOffered("CONFIG_MEMORY_FAILURE");
  check.Answer("MADV_HWPOISON", answer, -EBUSY);
  const HostAccess broken{Fault::kBusPoisoned, 0};
  check.Equal("the host", scene.Read(0), broken);
  check.Equal("the host beside it", scene.Read(1), Holds(0x22));
  const Handle fresh = kernel.Map(scene.file, 0, kPageSize, kReadWrite, MAP_SHARED);
  check.Equal("a new mapping", kernel.Read(fresh, 0), broken);
  const model::GuestAccess poisoned{model::GuestAccess::End::kMemoryFault, EHWPOISON, 0, kGuestBase,
                                    0};
  check.Equal("the guest", scene.GuestRead(0), poisoned);
  check.Answer("allocation", scene.Fallocate(FALLOC_FL_KEEP_SIZE, 0, 1), 0);
  check.Equal("the guest after allocation", scene.GuestRead(0), poisoned);
  check.Answer("a hole", scene.Fallocate(kHole, 0, 1), 0);
  check.Equal("the guest after a hole", scene.GuestRead(0), GuestHolds(0));
  check.Equal("the mapping in which it showed", scene.Read(0), broken);
}

constexpr Case kCases[] = {
    {"host/mmap", Needs::kGuestMemfd, MmapShared, ""},
    {"host/beyond_end", Needs::kGuestMemfd, BeyondTheEnd, ""},
    {"host/private", Needs::kGuestMemfd, PrivateFaults, ""},
    {"host/refused_mappings", Needs::kGuestMemfd, CopyOnWrite, ""},
    {"host/not_mappable", Needs::kGuestMemfd, NotMappable, ""},
    {"host/read_only", Needs::kGuestMemfd, ReadOnly, ""},
    {"host/advice", Needs::kGuestMemfd, Advice, ""},
    {"host/guards", Needs::kGuestMemfd, Guards, "what conversion=guard stands on; Linux 6.15"},
    {"host/guards_and_holes", Needs::kGuestMemfd, GuardsAndHoles,
     "a hole in a page that another mapping shows drops the guard: install it again"},
    {"host/pins", Needs::kGuestMemfd, Pins, ""},
    {"host/numa_policy", Needs::kGuestMemfd, NumaPolicy,
     "Linux 6.19; before, of one mapping and without effect"},
    {"host/numa_placement", Needs::kGuestMemfd, NumaPlacement, "Linux 6.19"},
    {"host/userfaultfd", Needs::kGuestMemfd, Userfault, ""},
    {"host/poison", Needs::kGuestMemfd, Poison, ""},
};

}  // namespace

std::span<const Case> HostCases() {
  return kCases;
}

}  // namespace holdfast::conformance
