// SPDX-License-Identifier: Apache-2.0
// In-place conversion: guest_memfd_conversions_test of the series, and what it leaves out.
#include <linux/falloc.h>
#include <sys/mman.h>

#include <cerrno>
#include <functional>

#include "conformance/case.h"

namespace holdfast::conformance {
namespace {

using kvm::abi::MemoryAttributes2;
using model::GuestAccess;
using model::Handle;
using model::Kernel;

constexpr int kHole = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
constexpr std::uint64_t kUntouched = 0x5a5a;

struct InPlace : Scene {
  InPlace(Kernel& used_kernel, Check& used_check, std::uint64_t pages,
          std::uint64_t flags = kSharedFlags)
      : Scene(used_kernel, used_check,
              {.type = kvm::abi::kVmTypeSwProtected, .pages = pages, .flags = flags}) {}

  int Convert(std::uint64_t page, std::uint64_t count, bool to_private) {
    request = {};
    request.offset = page * kPageSize;
    request.size = count * kPageSize;
    request.attributes = to_private ? kPrivateAttribute : 0;
    request.error_offset = kUntouched;
    return kernel.SetAttributes(file, request);
  }

  // The page is private and holds `found`; the guest leaves `left`.
  void TestPrivate(std::uint64_t page, model::Value found, model::Value left) {
    check.Equal("a write of the host to a private page", Write(page, 0xee), kBusError);
    check.Equal("what the guest finds", GuestRead(page), GuestHolds(found));
    check.Equal("a write of the guest", GuestWrite(page, left), GuestHolds(0));
    check.Equal("a read of the host of a private page", Read(page), kBusError);
  }
  // The page is shared and holds `found`; the host writes `host`, the guest `left`.
  void TestShared(std::uint64_t page, model::Value found, model::Value by_host, model::Value left) {
    check.Equal("what the host finds", Read(page), Holds(found));
    check.Equal("a write of the host", Write(page, by_host), kWritten);
    check.Equal("what the guest finds", GuestRead(page), GuestHolds(by_host));
    check.Equal("a write of the guest", GuestWrite(page, left), GuestHolds(0));
    check.Equal("what the host finds then", Read(page), Holds(left));
  }
  void ToPrivate(std::uint64_t page, model::Value found, model::Value left) {
    check.Answer("to private", Convert(page, 1, true), 0);
    TestPrivate(page, found, left);
  }
  void ToShared(std::uint64_t page, model::Value found, model::Value by_host, model::Value left) {
    check.Answer("to shared", Convert(page, 1, false), 0);
    TestShared(page, found, by_host, left);
  }

  MemoryAttributes2 request{};
};

void InitPrivate(Kernel& kernel, Check& check) {
  InPlace scene(kernel, check, 1, kMmapFlag);
  scene.TestPrivate(0, 0, 'A');
  scene.ToShared(0, 'A', 'B', 'C');
  scene.ToPrivate(0, 'C', 'E');
}

void InitShared(Kernel& kernel, Check& check) {
  InPlace scene(kernel, check, 1);
  scene.TestShared(0, 0, 'A', 'B');
  scene.ToPrivate(0, 'B', 'C');
  scene.ToShared(0, 'C', 'D', 'E');
}

void Indexing(Kernel& kernel, Check& check) {
  for (std::uint64_t converted = 0; converted < 4; ++converted) {
    InPlace scene(kernel, check, 4);
    for (std::uint64_t page = 4; page-- > 0;) scene.TestShared(page, 0, 0x100 + page, 0x200 + page);
    scene.ToPrivate(converted, 0x200 + converted, 0x300);
    for (std::uint64_t page = 0; page < 4; ++page) {
      if (page != converted) scene.TestShared(page, 0x200 + page, 0x400 + page, 0x500 + page);
    }
    scene.ToShared(converted, 0x300, 0x400 + converted, 0x500 + converted);
    for (std::uint64_t page = 0; page < 4; ++page)
      check.Equal("what is left", scene.Read(page), Holds(0x500 + page));
  }
}

void BeforeAllocation(Kernel& kernel, Check& check) {
  InPlace shared(kernel, check, 1);
  shared.ToPrivate(0, 0, 'A');
  InPlace closed(kernel, check, 1, kMmapFlag);
  closed.ToShared(0, 0, 'A', 'B');
}

void PartlyAllocated(Kernel& kernel, Check& check) {
  for (std::uint64_t touched = 0; touched < 8; ++touched) {
    InPlace scene(kernel, check, 8);
    scene.Write(touched, 'A');
    scene.Write(4, 'A');
    check.Answer("all to private", scene.Convert(0, 8, true), 0);
    for (std::uint64_t page = 0; page < 8; ++page)
      scene.TestPrivate(page, page == touched || page == 4 ? 'A' : 0, 'B');
    for (std::uint64_t page = 0; page < 8; ++page) scene.ToShared(page, 'B', 'C', 'D');
  }
}

void Truncated(Kernel& kernel, Check& check) {
  InPlace scene(kernel, check, 1);
  scene.Write(0, 'A');
  check.Answer("a hole", scene.Fallocate(kHole, 0, 1), 0);
  check.Equal("it is shared still", scene.Read(0), Holds(0));
  scene.ToPrivate(0, 0, 'B');
  check.Answer("a hole", scene.Fallocate(kHole, 0, 1), 0);
  check.Equal("it is private still", scene.Read(0), kBusError);
  check.Equal("and empty", scene.GuestRead(0), GuestHolds(0));
}

void Forked(Kernel& kernel, Check& check) {
  InPlace scene(kernel, check, 1);
  scene.TestShared(0, 0, 'A', 'B');
  check.Answer("a child of the fork", kernel.InChild([&]() -> std::int64_t {
    // The child has the page in its own page tables, and converts it itself.
    if (scene.Read(0) != Holds('B')) return 1;
    if (scene.Convert(0, 1, true) != 0) return 2;
    if (scene.Read(0) != kBusError || scene.Write(0, 1) != kBusError) return 3;
    return 0;
  }),
               0);
  scene.TestPrivate(0, 'B', 'C');
  check.Answer("a later child", kernel.InChild([&]() -> std::int64_t {
    return scene.Read(0) == kBusError && scene.Write(0, 1) == kBusError ? 0 : 1;
  }),
               0);
  scene.ToShared(0, 'C', 'D', 'E');
}

void ElevatedReferences(Kernel& kernel, Check& check) {
  for (std::uint64_t pinned = 0; pinned < 4; ++pinned) {
    InPlace scene(kernel, check, 4);
    for (std::uint64_t page = 0; page < 4; ++page) scene.TestShared(page, 0, 'A', 'B');
    const Handle pin = kernel.Pin(scene.host, pinned * kPageSize);
    if (!check.True("a pin", pin >= 0)) return;
    check.Answer("all to private", scene.Convert(0, 4, true), -EAGAIN);
    check.Answer("the offset that refuses", scene.request.error_offset, pinned * kPageSize);
    for (std::uint64_t page = 0; page < 4; ++page)
      check.Equal("nothing has changed", scene.Read(page), Holds('B'));
    for (std::uint64_t page = 0; page < 4; ++page) {
      if (page == pinned) {
        check.Answer("the pinned page", scene.Convert(page, 1, true), -EAGAIN);
        check.Answer("its offset", scene.request.error_offset, page * kPageSize);
      } else {
        scene.ToPrivate(page, 'B', 'C');
      }
    }
    kernel.Unpin(pin);
    check.Answer("all to private then", scene.Convert(0, 4, true), 0);
    for (std::uint64_t page = 0; page < 4; ++page)
      scene.TestPrivate(page, page == pinned ? 'B' : 'C', 'D');
  }
}

void Arguments(Kernel& kernel, Check& check) {
  constexpr std::uint64_t kScenePages = 4;
  using R = MemoryAttributes2;
  const struct {
    const char* what;
    std::function<void(R&)> spoil;
  } kRequests[] = {
      {"flags", [](R& r) { r.flags = 1; }},
      {"reserved[0]", [](R& r) { r.reserved[0] = 1; }},
      {"reserved[10]", [](R& r) { r.reserved[10] = 1ULL << 63; }},
      {"an unknown attribute", [](R& r) { r.attributes = 1; }},
      {"no size", [](R& r) { r.size = 0; }},
      {"a range that wraps",
       [](R& r) {
         r.offset = ~0ULL << 12;
         r.size = 2 * kPageSize;
       }},
      {"an offset inside a page", [](R& r) { r.offset = 8; }},
      {"half a page", [](R& r) { r.size = 2048; }},
      {"the end", [](R& r) { r.offset = kScenePages * kPageSize; }},
      {"a page too many", [](R& r) { r.size = (kScenePages + 1) * kPageSize; }},
  };
  InPlace scene(kernel, check, kScenePages);
  for (const auto& test : kRequests) {
    R request{};
    request.size = kPageSize;
    request.attributes = kPrivateAttribute;
    request.error_offset = kUntouched;
    test.spoil(request);
    check.Answer(test.what, kernel.SetAttributes(scene.file, request), -EINVAL);
    check.Answer("the error offset", request.error_offset, kUntouched);
  }
  check.Equal("nothing has changed", scene.Read(0), Holds(0));
  check.Answer("a good one", scene.Convert(0, 1, true), 0);
  check.Answer("its error offset", scene.request.error_offset, kUntouched);
  Scene plain(kernel, check, {.pages = 1});
  R request{};
  request.size = kPageSize;
  check.Answer("in a default VM", kernel.SetAttributes(plain.file, request), -EINVAL);
  check.Answer("of a VM", kernel.SetVmAttributes(scene.vm, {kGuestBase, kPageSize, 1, 0}) < 0, 1);
}

void AlreadySo(Kernel& kernel, Check& check) {
  InPlace scene(kernel, check, 2);
  scene.Write(0, 'A');
  const Handle pin = kernel.Pin(scene.host, 0);
  check.Answer("shared to shared with a pin", scene.Convert(0, 2, false), 0);
  check.Answer("the other to private", scene.Convert(1, 1, true), 0);
  check.Answer("private to private beside the pin", scene.Convert(1, 1, true), 0);
  check.Answer("a mixed range with the pin", scene.Convert(0, 2, true), -EAGAIN);
  check.Equal("the host's mapping comes back", scene.Read(0), Holds('A'));
  kernel.Unpin(pin);
  check.Answer("a mixed range", scene.Convert(0, 2, true), 0);
  check.Answer("a whole one again", scene.Convert(0, 2, true), 0);
}

void Elsewhere(Kernel& kernel, Check& check) {
  InPlace scene(kernel, check, 2);
  check.Answer("another process", kernel.InChild([&] { return scene.Convert(0, 1, true); }), 0);
  check.Equal("what it did", scene.Read(0), kBusError);
  kernel.CloseVm(scene.vm);
  check.Answer("without the VM's descriptor", scene.Convert(0, 2, false), 0);
  check.Equal("what that did", scene.Read(0), Holds(0));
}

void PrivateIsClosed(Kernel& kernel, Check& check) {
  InPlace scene(kernel, check, 2);
  scene.Write(0, 'A');
  check.Answer("to private", scene.Convert(0, 1, true), 0);
  check.Answer("a pin of a private page", kernel.Pin(scene.host, 0), -EFAULT);
  check.Answer("MADV_POPULATE_READ of it",
               kernel.Advise(scene.host, 0, kPageSize, MADV_POPULATE_READ), -EFAULT);
  const Handle late = kernel.Map(scene.file, 0, kPageSize, PROT_READ, MAP_SHARED);
  check.True("a mapping of it", late >= 0);
  check.Equal("a read through that", kernel.Read(late, 0), kBusError);
  check.Equal("the page beside it", scene.Read(1), Holds(0));
}

void SlotDeleted(Kernel& kernel, Check& check) {
  InPlace scene(kernel, check, 1, kMmapFlag);
  scene.GuestWrite(0, 'A');
  check.Answer("the slot's deletion", scene.DeleteSlot(), 0);
  check.Equal("an access", scene.GuestRead(0), kMmioExit);
}

void ClosedFile(Kernel& kernel, Check& check) {
  InPlace scene(kernel, check, 1, kMmapFlag);
  kernel.Unmap(scene.host);
  kernel.Close(scene.file);
  check.Equal("a shared access", scene.GuestRead(0),
              GuestAccess{GuestAccess::End::kMemoryFault, EFAULT, 0, kGuestBase, 0});
}

void Capability(Kernel& kernel, Check& check) {
  const int capability = kvm::abi::kCapGuestMemfdMemoryAttributes;
  check.Answer("at system scope", kernel.CheckExtension(model::kNoHandle, capability),
               kPrivateAttribute);
  check.Answer("of a software-protected VM",
               kernel.CheckExtension(kernel.CreateVm(kvm::abi::kVmTypeSwProtected), capability),
               kPrivateAttribute);
  check.Answer("of a default VM", kernel.CheckExtension(kernel.CreateVm(0), capability), 0);
  check.Answer("VM attributes",
               kernel.CheckExtension(model::kNoHandle, kvm::abi::kCapMemoryAttributes), 0);
}

constexpr Case kCases[] = {
    {"in_place/capability", Needs::kInPlace, Capability,
     "252 as applied for Linux 7.4; the number has moved before"},
    {"in_place/init_private", Needs::kInPlace, InitPrivate, ""},
    {"in_place/init_shared", Needs::kInPlace, InitShared, ""},
    {"in_place/indexing", Needs::kInPlace, Indexing, ""},
    {"in_place/before_allocation", Needs::kInPlace, BeforeAllocation, ""},
    {"in_place/partly_allocated", Needs::kInPlace, PartlyAllocated, ""},
    {"in_place/truncated", Needs::kInPlace, Truncated, ""},
    {"in_place/forked", Needs::kInPlace, Forked, ""},
    {"in_place/elevated_references", Needs::kInPlace, ElevatedReferences, ""},
    {"in_place/arguments", Needs::kInPlace, Arguments, ""},
    {"in_place/already_so", Needs::kInPlace, AlreadySo, ""},
    {"in_place/elsewhere", Needs::kInPlace, Elsewhere, ""},
    {"in_place/private_is_closed", Needs::kInPlace, PrivateIsClosed, ""},
    {"in_place/slot_deleted", Needs::kInPlace, SlotDeleted, "in two layers a memory fault exit"},
    {"in_place/closed_file", Needs::kInPlace, ClosedFile, ""},
};

}  // namespace

std::span<const Case> InPlaceCases() {
  return kCases;
}

}  // namespace holdfast::conformance
