// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "object/confidential_guest.h"
#include "object/fake_confidential_kvm.h"

namespace holdfast::object {

/// Two layers as conversion by VM attributes has them, without guard pages, which old kernels of
/// test machines lack: what the shared side held is gone.
class LosingEngine final : public ConversionEngine {
 public:
  LosingEngine(kvm::Vm& vm, std::span<std::byte> host) : vm_(vm), host_(host) {}
  ConversionEngineKind kind() const noexcept override { return ConversionEngineKind::kAttributes; }
  bool contents_survive() const noexcept override { return false; }
  Result<Busy> Apply(std::uint64_t offset, std::uint64_t size, MemoryAttribute to) override {
    const bool close = to == MemoryAttribute::kPrivate;
    HF_TRY_STATUS(vm_.SetMemoryAttributes(GuestAddress(base_ + offset), size,
                                          close ? kvm::abi::kMemoryAttributePrivate : 0));
    if (close) std::fill_n(host_.begin() + static_cast<std::ptrdiff_t>(offset), size, kGone);
    return Busy{};
  }
  void Mapped(GuestAddress base, std::uint64_t /*offset*/, std::uint64_t /*size*/) override {
    base_ = base.value();
  }
  static constexpr std::byte kGone{0xee};

 private:
  kvm::Vm& vm_;
  std::span<std::byte> host_;
  std::uint64_t base_ = 0;
};

/// A machine for a confidential guest, on a fake KVM: RAM in one region, vCPUs that stand.
class LaunchMachine {
 public:
  /// Does what the machine does with `object` up to the vCPUs. @return the first error
  static Result<std::unique_ptr<LaunchMachine>> Make(ConfidentialGuest& object, GuestAddress base,
                                                     std::uint64_t size, unsigned vcpus) {
    // Any file will do: the fake answers what it is asked.
    HF_TRY(kvm::System system, kvm::System::Open("/dev/null"));
    HF_TRY(const unsigned type, object.ChooseVmType(system));
    HF_TRY(kvm::Vm vm, kvm::Vm::Create(system, type));
    auto machine = std::unique_ptr<LaunchMachine>(new LaunchMachine(std::move(vm)));
    HF_TRY(machine->engine, object.Initialize(machine->vm_));
    HF_TRY_STATUS(machine->MakeRam(base, size));
    for (unsigned i = 0; i < vcpus; ++i) {
      HF_TRY(kvm::Vcpu vcpu, kvm::Vcpu::Create(machine->vm_, i));
      machine->vcpus_.push_back(std::make_unique<kvm::Vcpu>(std::move(vcpu)));
    }
    return machine;
  }

  Status Launch(ConfidentialGuest& object) {
    ConfidentialGuest::Guest guest{
        .vm = vm_, .memory = memory_, .converter = converter_, .vcpus = {}};
    for (const auto& vcpu : vcpus_) guest.vcpus.push_back(vcpu.get());
    return object.Launch(guest);
  }
  const AddressSpace& memory() const noexcept { return memory_; }

  /// Writes a page that holds nothing but `value`, and a mark of where it is.
  void FillPage(std::uint64_t at, std::byte value) {
    ASSERT_TRUE(memory_.Fill(GuestAddress(at), kPageSize, value));
    ASSERT_TRUE(memory_.Write(GuestAddress(at), std::as_bytes(std::span(&at, 1))));
  }
  template <typename T>
  void Put(std::uint64_t at, const T& value) {
    ASSERT_TRUE(memory_.Write(GuestAddress(at), std::as_bytes(std::span(&value, 1))));
  }

  ConversionEngineKind engine = ConversionEngineKind::kGuard;  ///< what Initialize said

 private:
  explicit LaunchMachine(kvm::Vm vm) : vm_(std::move(vm)), memory_(&vm_), converter_(memory_) {}

  Status MakeRam(GuestAddress base, std::uint64_t size) {
    if (engine == ConversionEngineKind::kKernel) {
      HF_TRY(ram_, RamBlock::CreateGuestMemfd(vm_, "ram", size, /*bind=*/true));
      HF_TRY_STATUS(ram_->EnableConversion(vm_, engine));
    } else {
      HF_TRY(ram_, RamBlock::CreateTwoLayer(vm_, "ram", size));
      HF_TRY_STATUS(ram_->EnableConversion(std::make_unique<LosingEngine>(vm_, ram_->host_view())));
    }
    return memory_.AddRam(base, size, *ram_, 0);
  }

  kvm::Vm vm_;
  std::unique_ptr<RamBlock> ram_;
  AddressSpace memory_;
  GuestConverter converter_;
  std::vector<std::unique_ptr<kvm::Vcpu>> vcpus_;
};

}  // namespace holdfast::object
