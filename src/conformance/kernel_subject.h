// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <functional>
#include <memory>

#include "conformance/host_kernel.h"
#include "conformance/sequence.h"
#include "model/kernel.h"

namespace holdfast::conformance {

/// What a fuzzed sequence does with a kernel: files, mappings, pins and slots in a few places each.
OpTable KernelOps();
/// A file with its mapping and its slot.
Sequence KernelStart();

/// A kernel, or the model of one, as a side of a comparison.
class KernelSubject final : public Subject {
 public:
  /// @param renew  makes the kernel forget everything, and returns it; what it returned stays valid
  ///               until it is called again
  explicit KernelSubject(std::function<model::Kernel*()> renew);
  void Reset() override;
  OpAnswer Apply(const Op& op) override;

 private:
  using Handle = model::Handle;
  static constexpr std::size_t kFiles = 3;
  static constexpr std::size_t kMappings = 4;
  static constexpr std::size_t kPins = 4;

  struct View {
    Handle handle = model::kNoHandle;
    std::uint64_t pages = 0;
  };

  OpAnswer OfFile(const Op& op);
  OpAnswer OfMapping(const Op& op);
  OpAnswer OfGuest(const Op& op);
  OpAnswer OfAttributes(const Op& op);
  OpAnswer Create(const Op& op);
  OpAnswer OddFallocate(const Op& op);
  OpAnswer Map(const Op& op);
  OpAnswer Advise(const Op& op);
  OpAnswer Bind(const Op& op);
  Handle& FileAt(const Op& op, std::size_t argument) {
    return files_.at(op.arguments.at(argument));
  }

  std::function<model::Kernel*()> renew_;
  model::Kernel* kernel_ = nullptr;
  Handle vm_ = model::kNoHandle;
  std::array<Handle, kFiles> files_ = {};
  std::array<View, kMappings> mappings_ = {};
  std::array<Handle, kPins> pins_ = {};
};

}  // namespace holdfast::conformance
