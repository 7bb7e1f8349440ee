// SPDX-License-Identifier: Apache-2.0
// Holds one idle VM open while a test program runs.
//
// KVM patches a branch in the kernel's scheduler whenever the host's first VM appears and its last
// one goes (preempt notifiers are a static key). Under emulation a CPU may still run the breakpoint
// of such a patch after it is gone, and the lab's kernel dies of "Oops: int3" in __schedule; seen
// with a few hundred short-lived VMs on 7.3. With one VM always there the branch is patched twice.
#include <gtest/gtest.h>
#include <holdfast/kvm_system.h>
#include <holdfast/vm.h>

#include <optional>

namespace holdfast::test {
namespace {

class KeepKvmInUse : public ::testing::Environment {
 public:
  void SetUp() override {
    const auto system = kvm::System::Open();
    if (!system) return;  // the tests will say so themselves
    auto vm = kvm::Vm::Create(*system);
    if (vm) vm_ = *std::move(vm);
  }
  void TearDown() override { vm_.reset(); }

 private:
  std::optional<kvm::Vm> vm_;
};

[[maybe_unused]] const auto* const kEnvironment =
    ::testing::AddGlobalTestEnvironment(new KeepKvmInUse);

}  // namespace
}  // namespace holdfast::test
