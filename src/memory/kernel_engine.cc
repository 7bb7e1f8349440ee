// SPDX-License-Identifier: Apache-2.0
#include "memory/conversion_engines.h"

namespace holdfast {
namespace {

class KernelEngine : public ConversionEngine {
 public:
  explicit KernelEngine(const kvm::GuestMemfd& memfd) : memfd_(memfd) {}

  ConversionEngineKind kind() const noexcept override { return ConversionEngineKind::kKernel; }
  // The kernel leaves the bytes alone. A processor that encrypts private memory makes others of
  // them; the objects for such guests rely on nothing that a page held.
  bool contents_survive() const noexcept override { return true; }

  Result<Busy> Apply(std::uint64_t offset, std::uint64_t size, MemoryAttribute to) override {
    HF_TRY(
        const auto answer,
        memfd_.SetAttributes(
            offset, size, to == MemoryAttribute::kPrivate ? kvm::abi::kMemoryAttributePrivate : 0));
    return answer.busy_offset;
  }

 private:
  const kvm::GuestMemfd& memfd_;
};

}  // namespace

std::unique_ptr<ConversionEngine> MakeKernelEngine(const kvm::GuestMemfd& memfd) {
  return std::make_unique<KernelEngine>(memfd);
}

}  // namespace holdfast
