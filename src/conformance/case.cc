// SPDX-License-Identifier: Apache-2.0
#include "conformance/case.h"

#include <sys/mman.h>

#include <cstring>

namespace holdfast::conformance {

std::string Text(std::int64_t answer) {
  if (answer >= 0 || answer < -4095) return fmt::format("{:#x}", answer);
  const char* const name = ::strerrorname_np(static_cast<int>(-answer));
  return name != nullptr ? std::string(name) : fmt::format("{}", answer);
}

std::string Text(const model::HostAccess& access) {
  switch (access.fault) {
    case model::Fault::kNone:
      return fmt::format("{:#x}", access.value);
    case model::Fault::kBus:
      return "SIGBUS";
    case model::Fault::kBusPoisoned:
      return "SIGBUS of broken memory";
    case model::Fault::kSegv:
      return "SIGSEGV";
    case model::Fault::kTorn:
      return fmt::format("{:#x} and something else at the page's end", access.value);
  }
  return "?";
}

std::string Text(const model::GuestAccess& access) {
  using End = model::GuestAccess::End;
  switch (access.end) {
    case End::kDone:
      return fmt::format("{:#x}", access.value);
    case End::kMmio:
      return "MMIO exit";
    case End::kMemoryFault:
      return fmt::format("memory fault exit at {:#x} with flags {:#x} and {}", access.gpa,
                         access.flags, Text(-access.error));
    case End::kError:
      return fmt::format("{} from KVM_RUN", Text(-access.error));
  }
  return "?";
}

std::string Text(const model::PreFaulted& answer) {
  return fmt::format("{} with {:#x} bytes left", Text(answer.result), answer.left);
}

Scene::Scene(model::Kernel& used_kernel, Check& used_check, const Options& options)
    : kernel(used_kernel),
      check(used_check),
      vm(kernel.CreateVm(options.type)),
      file(kernel.CreateGuestMemfd(vm, options.pages * kPageSize, options.flags)) {
  check.True("a VM", vm >= 0);
  check.True("a guest_memfd", file >= 0);
  const std::uint64_t size = options.pages * kPageSize;
  host = (options.flags & kMmapFlag) != 0
             ? kernel.Map(file, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED)
             : kernel.MapAnonymous(size);
  check.True("a mapping", host >= 0);
  if (!options.bound) return;
  model::Region region = OnePageRegion(1, kGuestBase, file, 0);
  region.size = size;
  region.user = host;
  check.Answer("binding the slot", kernel.SetRegion(vm, region), 0);
}

int Scene::DeleteSlot() {
  model::Region region;
  region.slot = 1;
  return kernel.SetRegion(vm, region);
}

model::Region OnePageRegion(std::uint32_t slot, std::uint64_t gpa, model::Handle file,
                            std::uint64_t file_offset) {
  model::Region region;
  region.slot = slot;
  region.flags = kvm::abi::kMemGuestMemfd;
  region.gpa = gpa;
  region.size = kPageSize;
  region.file = file;
  region.file_offset = file_offset;
  return region;
}

}  // namespace holdfast::conformance
