// SPDX-License-Identifier: Apache-2.0
// guest_memfd as a file: the kernel's guest_memfd_test, vm_types_test, and what they leave out.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <functional>

#include "conformance/case.h"

namespace holdfast::conformance {
namespace {

using model::FileCall;
using model::Handle;
using model::Kernel;

constexpr auto kPage = static_cast<std::int64_t>(kPageSize);
constexpr int kAllocate = FALLOC_FL_KEEP_SIZE;
constexpr int kPunchHole = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
constexpr std::uint64_t kFilePages = 4;
constexpr unsigned kTypes = 32;

bool HasType(const Kernel& kernel, unsigned type) {
  return (kernel.rules().vm_types >> type & 1) != 0;
}

// For each kind of VM and each set of flags that it takes, with a file of four pages.
void ForEachKind(Kernel& kernel, Check& check,
                 const std::function<void(Handle vm, Handle file)>& f) {
  for (unsigned type = 0; type < kTypes; ++type) {
    if (!HasType(kernel, type)) continue;
    const Handle vm = kernel.CreateVm(type);
    const int flags = kernel.CheckExtension(vm, kvm::abi::kCapGuestMemfdFlags);
    for (const std::uint64_t wanted : {std::uint64_t{0}, kMmapFlag, kSharedFlags}) {
      if ((wanted & ~static_cast<std::uint64_t>(flags)) != 0) continue;
      const Handle file = kernel.CreateGuestMemfd(vm, kFilePages * kPageSize, wanted);
      if (check.True("a guest_memfd", file >= 0)) f(vm, file);
    }
  }
}

void VmTypes(Kernel& kernel, Check& check) {
  for (unsigned type = 0; type < 64; ++type) {
    const Handle vm = kernel.CreateVm(type);
    const bool offered = type < kTypes && HasType(kernel, type);
    check.Answer(fmt::format("KVM_CREATE_VM of type {}", type), std::min(vm, 0),
                 offered ? 0 : -EINVAL);
  }
}

void Flags(Kernel& kernel, Check& check) {
  for (unsigned type = 0; type < kTypes; ++type) {
    if (!HasType(kernel, type)) continue;
    const Handle vm = kernel.CreateVm(type);
    const auto known =
        static_cast<std::uint64_t>(kernel.CheckExtension(vm, kvm::abi::kCapGuestMemfdFlags));
    for (unsigned bit = 0; bit < 64; ++bit) {
      const std::uint64_t flag = std::uint64_t{1} << bit;
      const Handle file = kernel.CreateGuestMemfd(vm, kPageSize, flag);
      check.Answer(fmt::format("flag {:#x} in a VM of type {}", flag, type), std::min(file, 0),
                   (known & flag) != 0 ? 0 : -EINVAL);
    }
    if (type == kvm::abi::kVmTypeDefault)
      check.Answer("the flags of a default VM", known, kSharedFlags);
  }
}

void TwoFiles(Kernel& kernel, Check& check) {
  const Handle vm = kernel.CreateVm(0);
  const Handle first = kernel.CreateGuestMemfd(vm, kPageSize, 0);
  const Handle second = kernel.CreateGuestMemfd(vm, 2 * kPageSize, 0);
  check.Answer("the first's size", kernel.Stat(first).size, kPageSize);
  check.Answer("the second's size", kernel.Stat(second).size, 2 * kPageSize);
  check.Answer("the first's size again", kernel.Stat(first).size, kPageSize);
  check.True("they are two inodes", kernel.Stat(first).inode != kernel.Stat(second).inode);
}

void Sizes(Kernel& kernel, Check& check) {
  const Handle vm = kernel.CreateVm(0);
  for (std::uint64_t size = 0; size < kPageSize; ++size) {
    check.Answer(fmt::format("size {}", size), kernel.CreateGuestMemfd(vm, size, 0), -EINVAL);
  }
  check.Answer("a negative size", kernel.CreateGuestMemfd(vm, 1ULL << 63, 0), -EINVAL);
  check.True("the largest size", kernel.CreateGuestMemfd(vm, 0x7ffffffffffff000, 0) >= 0);
}

void ReadAndWrite(Kernel& kernel, Check& check) {
  ForEachKind(kernel, check, [&](Handle, Handle file) {
    check.Answer("read", kernel.Call(file, FileCall::kRead), -EINVAL);
    check.Answer("write", kernel.Call(file, FileCall::kWrite), -EINVAL);
    check.Answer("pread", kernel.Call(file, FileCall::kPread), -ESPIPE);
    check.Answer("pwrite", kernel.Call(file, FileCall::kPwrite), -ESPIPE);
  });
}

void OtherCalls(Kernel& kernel, Check& check) {
  ForEachKind(kernel, check, [&](Handle, Handle file) {
    check.Answer("lseek", kernel.Call(file, FileCall::kSeek), -ESPIPE);
    check.Answer("ftruncate", kernel.Call(file, FileCall::kTruncate), -EINVAL);
    check.Answer("fsync", kernel.Call(file, FileCall::kSync), -EINVAL);
    check.Answer("F_GET_SEALS", kernel.Call(file, FileCall::kGetSeals), -EINVAL);
    check.Answer("an ioctl", kernel.Call(file, FileCall::kUnknownIoctl), -ENOTTY);
    check.Answer("open of /proc/self/fd", kernel.Call(file, FileCall::kReopen), -ENXIO);
  });
}

void NotCloseOnExec(Kernel& kernel, Check& check) {
  const Handle file = kernel.CreateGuestMemfd(kernel.CreateVm(0), kPageSize, 0);
  check.Answer("F_GETFD", kernel.Call(file, FileCall::kDescriptorFlags), 0);
}

void FileStatus(Kernel& kernel, Check& check) {
  ForEachKind(kernel, check, [&](Handle, Handle file) {
    for (const int allocated : {0, 1}) {
      if (allocated != 0) check.Answer("fallocate", kernel.Fallocate(file, kAllocate, 0, kPage), 0);
      const model::FileStatus status = kernel.Stat(file);
      check.Answer("st_size", status.size, kFilePages * kPageSize);
      check.Answer("st_blksize", status.block_size, kPageSize);
      check.Answer("st_blocks", status.blocks, 0);
      check.Answer("st_mode", status.mode, S_IFREG | 0600);
    }
  });
}

void Fallocate(Kernel& kernel, Check& check) {
  constexpr std::int64_t kEnd = kFilePages * kPage;
  const struct {
    const char* what;
    int mode;
    std::int64_t offset, length;
    int answer;
  } kCalls[] = {
      {"all", kAllocate, 0, kEnd, 0},
      {"a hole inside a page", kPunchHole, kPage - 1, kPage, -EINVAL},
      {"a page at the end", kAllocate, kEnd, kPage, -EINVAL},
      {"a page behind the end", kAllocate, kEnd + kPage, kPage, -EINVAL},
      {"a hole at the end", kPunchHole, kEnd, kPage, 0},
      {"a hole behind the end", kPunchHole, kEnd + kPage, kPage, 0},
      {"a hole over the end", kPunchHole, kEnd - kPage, 9 * kPage, 0},
      {"a hole of half a page", kPunchHole, kPage, kPage - 1, -EINVAL},
      {"a hole", kPunchHole, kPage, kPage, 0},
      {"the page again", kAllocate, kPage, kPage, 0},
      {"half a page", kAllocate, kPage, kPage - 1, -EINVAL},
      {"nothing", kAllocate, 0, 0, -EINVAL},
      {"a negative offset", kAllocate, -kPage, kPage, -EINVAL},
      {"more than a file can have", kAllocate, INT64_MAX & ~4095, 2 * kPage, -EFBIG},
      {"a size that grows", 0, 0, kPage, -EOPNOTSUPP},
      {"a hole that may shrink", FALLOC_FL_PUNCH_HOLE, 0, kPage, -EOPNOTSUPP},
      {"zeroes", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, kPage, -EOPNOTSUPP},
      {"a collapsed range", FALLOC_FL_COLLAPSE_RANGE, 0, kPage, -EOPNOTSUPP},
      {"an inserted range", FALLOC_FL_INSERT_RANGE, 0, kPage, -EOPNOTSUPP},
  };
  ForEachKind(kernel, check, [&](Handle, Handle file) {
    for (const auto& call : kCalls) {
      check.Answer(fmt::format("fallocate of {}", call.what),
                   kernel.Fallocate(file, call.mode, call.offset, call.length), call.answer);
    }
  });
}

void InvalidHoles(Kernel& kernel, Check& check) {
  const struct {
    std::int64_t offset;
    std::array<std::int64_t, 4> lengths;
  } kHoles[] = {{0, {1, kPage - 1, kPage + 1, 2 * kPage - 1}},
                {1, {1, kPage - 1, kPage, kPage + 1}},
                {kPage, {1, kPage - 1, kPage + 1, 2}}};
  ForEachKind(kernel, check, [&](Handle, Handle file) {
    for (const auto& hole : kHoles) {
      for (const std::int64_t length : hole.lengths) {
        check.Answer(fmt::format("a hole of {} bytes at {}", length, hole.offset),
                     kernel.Fallocate(file, kPunchHole, hole.offset, length), -EINVAL);
      }
    }
  });
}

void ForkRule(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  scene.Write(0, 0x11);
  check.Answer("KVM_CREATE_GUEST_MEMFD in a child",
               kernel.InChild([&] { return kernel.CreateGuestMemfd(scene.vm, kPageSize, 0); }),
               -EIO);
  check.Answer("KVM_SET_USER_MEMORY_REGION2 in a child", kernel.InChild([&] {
    return kernel.SetRegion(scene.vm, OnePageRegion(2, 8 * kGiB, scene.file, 0));
  }),
               -EIO);
  check.Answer("fallocate in a child",
               kernel.InChild([&] { return scene.Fallocate(kAllocate, 1, 1); }), 0);
  check.Answer("a write in a child", kernel.InChild([&] {
    const model::HostAccess seen = scene.Read(0);
    return seen == Holds(0x11) && scene.Write(1, 0x22) == kWritten ? 1 : 0;
  }),
               1);
  check.Equal("the page that the child wrote", scene.Read(1), Holds(0x22));
}

void ClosedVm(Kernel& kernel, Check& check) {
  Scene scene(kernel, check, {});
  scene.Write(0, 0x11);
  kernel.CloseVm(scene.vm);
  check.Equal("the page's contents", scene.Read(0), Holds(0x11));
  check.Answer("a hole", scene.Fallocate(kPunchHole, 0, 4), 0);
  check.Answer("allocation", scene.Fallocate(kAllocate, 0, 4), 0);
  check.Equal("the page after the hole", scene.Read(0), Holds(0));
}

constexpr Case kCases[] = {
    {"vm/types", Needs::kGuestMemfd, VmTypes, "which types there are depends on the kernel"},
    {"vm/closed", Needs::kGuestMemfd, ClosedVm, ""},
    {"file/flags", Needs::kGuestMemfd, Flags,
     "INIT_SHARED of a VM with private memory: only with in-place conversion"},
    {"file/two", Needs::kGuestMemfd, TwoFiles, ""},
    {"file/sizes", Needs::kGuestMemfd, Sizes, ""},
    {"file/status", Needs::kGuestMemfd, FileStatus, ""},
    {"file/read_write", Needs::kGuestMemfd, ReadAndWrite, ""},
    {"file/other_calls", Needs::kGuestMemfd, OtherCalls, ""},
    {"file/not_close_on_exec", Needs::kGuestMemfd, NotCloseOnExec, ""},
    {"file/fallocate", Needs::kGuestMemfd, Fallocate, ""},
    {"file/invalid_holes", Needs::kGuestMemfd, InvalidHoles, ""},
    {"file/fork", Needs::kGuestMemfd, ForkRule, ""},
};

}  // namespace

std::span<const Case> FileCases() {
  return kCases;
}

}  // namespace holdfast::conformance
