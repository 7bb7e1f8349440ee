// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <holdfast/vm.h>

#include <algorithm>
#include <vector>

#include "memory/conversion_engines.h"
#include "memory/guard_pages.h"

namespace holdfast {
namespace {

class AttributesEngine : public ConversionEngine {
 public:
  AttributesEngine(kvm::Vm& vm, int shared_fd, std::span<std::byte> host_view,
                   const kvm::GuestMemfd& private_layer)
      : vm_(vm), shared_fd_(shared_fd), host_view_(host_view), private_layer_(private_layer) {}

  ConversionEngineKind kind() const noexcept override { return ConversionEngineKind::kAttributes; }
  bool contents_survive() const noexcept override { return false; }

  // In either direction the new side is open before the attribute says so and the old one is given
  // back only after it: the guest finds memory at any time.
  Result<Busy> Apply(std::uint64_t offset, std::uint64_t size, MemoryAttribute to) override {
    const std::span<std::byte> pages = host_view_.subspan(offset, size);
    if (to == MemoryAttribute::kPrivate) {
      HF_TRY_STATUS(SetAttributes(offset, size, kvm::abi::kMemoryAttributePrivate));
      HF_TRY_STATUS(SetGuardPages(pages, true));
      if (::fallocate(shared_fd_, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                      static_cast<off_t>(offset), static_cast<off_t>(size)) != 0) {
        return FailErrno("giving back the shared side of private memory");
      }
    } else {
      HF_TRY_STATUS(SetGuardPages(pages, false));
      HF_TRY_STATUS(SetAttributes(offset, size, 0));
      HF_TRY_STATUS(private_layer_.PunchHole(offset, size));
    }
    return Busy{};
  }

  void Mapped(GuestAddress base, std::uint64_t block_offset, std::uint64_t size) override {
    parts_.push_back({base, block_offset, size});
  }

 private:
  struct Part {
    GuestAddress base;
    std::uint64_t block_offset;
    std::uint64_t size;
  };

  // KVM keeps this attribute by guest physical address.
  Status SetAttributes(std::uint64_t offset, std::uint64_t size, std::uint64_t attributes) {
    for (const Part& part : parts_) {
      const std::uint64_t first = std::max(offset, part.block_offset);
      const std::uint64_t end = std::min(offset + size, part.block_offset + part.size);
      if (first >= end) continue;
      HF_TRY_STATUS(vm_.SetMemoryAttributes(part.base + (first - part.block_offset), end - first,
                                            attributes));
    }
    return {};
  }

  kvm::Vm& vm_;
  const int shared_fd_;
  const std::span<std::byte> host_view_;
  const kvm::GuestMemfd& private_layer_;
  std::vector<Part> parts_;  // grows while the machine is built, before anything is converted
};

}  // namespace

std::unique_ptr<ConversionEngine> MakeAttributesEngine(kvm::Vm& vm, int shared_fd,
                                                       std::span<std::byte> host_view,
                                                       const kvm::GuestMemfd& private_layer) {
  return std::make_unique<AttributesEngine>(vm, shared_fd, host_view, private_layer);
}

}  // namespace holdfast
