// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <holdfast/capabilities.h>
#include <holdfast/error.h>
#include <holdfast/kvm_system.h>
#include <holdfast/vm.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "support/guest_vm.h"

namespace holdfast::test {

/// ASSERT_OK(status), EXPECT_OK(result): success, or the error's text in the failure.
#define ASSERT_OK(expression) \
  ASSERT_PRED_FORMAT1(::holdfast::test::IsOk, ::holdfast::test::ErrorOf(expression))
#define EXPECT_OK(expression) \
  EXPECT_PRED_FORMAT1(::holdfast::test::IsOk, ::holdfast::test::ErrorOf(expression))

template <typename T>
std::optional<std::string> ErrorOf(const Result<T>& result) {
  if (result) return std::nullopt;
  return result.error().ToString();
}
::testing::AssertionResult IsOk(const char* expression, const std::optional<std::string>& error);

/// The errno an expected failure carries; 0 for success or an error without one.
template <typename T>
int ErrnoOf(const Result<T>& result) {
  return result ? 0 : result.error().os_errno();
}

/// A test that needs a KVM with host-mappable guest_memfd; skips itself with the reason elsewhere.
class KvmTest : public ::testing::Test {
 protected:
  void SetUp() override;

  kvm::System& system() { return *system_; }
  kvm::Vm& vm() { return *vm_; }
  const kvm::Capabilities& capabilities() const { return capabilities_; }

 private:
  std::optional<kvm::System> system_;
  std::optional<kvm::Vm> vm_;
  kvm::Capabilities capabilities_;
};

/// The same once with an unbound and once with a bound memslot. Make() builds the VM.
class GuestTest : public KvmTest, public ::testing::WithParamInterface<bool> {
 protected:
  bool bound() const { return GetParam(); }
  /// Fails the test and returns null if KVM refuses.
  std::unique_ptr<GuestVm> Make(GuestVm::Options options = {});
};

/// "bound" or "unbound", for INSTANTIATE_TEST_SUITE_P.
std::string BoundName(const ::testing::TestParamInfo<bool>& info);

/// Runs a guest and expects it to reach its end with code 0.
GuestOutcome RunWell(GuestVm& guest, std::span<const std::byte> image,
                     const GuestVm::Arguments& arguments);

/// Pages of a shared mapping that its file holds in memory and somebody has used. (Pages that were
/// only allocated do not count: mincore wants them up to date.)
std::uint64_t PresentPages(std::span<const std::byte> mapping);

/// Major and minor number of the running kernel.
std::pair<int, int> KernelRelease();

}  // namespace holdfast::test
