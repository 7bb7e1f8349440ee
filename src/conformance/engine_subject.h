// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/conversion.h>
#include <holdfast/error.h>
#include <holdfast/kvm_system.h>
#include <holdfast/ram_block.h>
#include <holdfast/vm.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>

#include "conformance/fault_guard.h"
#include "conformance/sequence.h"
#include "model/model.h"
#include "model/stand_in.h"

namespace holdfast::conformance {

/// What a fuzzed sequence does with a block of memory that can be converted.
OpTable EngineOps();
inline constexpr std::uint64_t kEnginePages = 12;
inline constexpr std::size_t kEnginePins = 4;

/// What two sides of a comparison of engines have to leave out.
struct EngineTraits {
  bool contents_survive = true;
  bool host_is_caught = false;   ///< an access of the host that did not ask ends with a signal
  bool kernel_has_pins = false;  ///< pages may be in use by the kernel's account
};

/// One of Holdfast's engines, as a side of a comparison.
class EngineSubject final : public Subject {
 public:
  /// A block of kEnginePages pages. The kernel engine works with the running kernel where that
  /// converts in place, and with the stand-in elsewhere.
  /// @return kUnsupported where the engine cannot work here
  static Result<std::unique_ptr<EngineSubject>> Create(ConversionEngineKind kind);
  ~EngineSubject() override;

  const EngineTraits& traits() const noexcept { return traits_; }
  void Reset() override;
  OpAnswer Apply(const Op& op) override;

 private:
  struct Range {
    std::uint64_t offset;
    std::uint64_t size;
  };
  EngineSubject() = default;
  OpAnswer Convert(const Op& op);
  OpAnswer Pin(const Op& op);
  OpAnswer Touch(const Op& op);

  EngineTraits traits_;
  std::unique_ptr<model::KernelStandIn> stand_in_;
  std::optional<kvm::System> system_;
  std::optional<kvm::Vm> vm_;
  std::unique_ptr<RamBlock> block_;
  FaultGuard guard_;
  std::array<std::optional<Range>, kEnginePins> pins_;
  std::array<std::uint8_t, kEnginePages> busy_ = {};
};

/// The contract that engines keep: the model's conversion in place.
class ContractSubject final : public Subject {
 public:
  ContractSubject(const EngineTraits& traits, bool faulty) : traits_(traits), faulty_(faulty) {}
  void Reset() override;
  OpAnswer Apply(const Op& op) override;

 private:
  OpAnswer Convert(const Op& op);
  OpAnswer Pin(const Op& op);
  OpAnswer Touch(const Op& op);
  bool IsPrivate(std::uint64_t page) const;
  void ReleasePin(std::size_t pin);

  const EngineTraits traits_;
  const bool faulty_;
  std::unique_ptr<model::Model> model_;
  model::Handle vm_ = model::kNoHandle;
  model::Handle file_ = model::kNoHandle;
  model::Handle host_ = model::kNoHandle;
  struct Range {
    std::uint64_t first;
    std::uint64_t count;
  };
  std::array<std::optional<Range>, kEnginePins> pins_;
  std::array<std::uint8_t, kEnginePages> held_ = {};  // by pins
  std::array<std::uint8_t, kEnginePages> busy_ = {};  // by the kernel's account
};

}  // namespace holdfast::conformance
