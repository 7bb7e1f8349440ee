// SPDX-License-Identifier: Apache-2.0
#include "support/kvm_fixture.h"

#include <sys/mman.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace holdfast::test {

::testing::AssertionResult IsOk(const char* expression, const std::optional<std::string>& error) {
  if (!error) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << expression << " failed: " << *error;
}

void KvmTest::SetUp() {
  auto system = kvm::System::Open();
  if (!system) GTEST_SKIP() << system.error().ToString();
  system_ = *std::move(system);
  auto capabilities = kvm::Capabilities::Detect(*system_);
  ASSERT_OK(capabilities);
  capabilities_ = *capabilities;
  if (!capabilities_.CanRunOnGuestMemfd()) {
    for (const kvm::CapabilityRow& row : kvm::Describe(capabilities_)) {
      if (!row.available && row.without == "cannot run guests")
        GTEST_SKIP() << "this KVM has no " << row.feature << "; needs " << row.needs;
    }
    GTEST_SKIP() << "this KVM cannot run guests on guest_memfd";
  }
  auto vm = kvm::Vm::Create(*system_);
  ASSERT_OK(vm);
  vm_ = *std::move(vm);
}

std::unique_ptr<GuestVm> GuestTest::Make(GuestVm::Options options) {
  options.bound = bound();
  auto guest = GuestVm::Create(options);
  EXPECT_OK(guest);
  return guest ? *std::move(guest) : nullptr;
}

std::string BoundName(const ::testing::TestParamInfo<bool>& info) {
  return info.param ? "bound" : "unbound";
}

GuestOutcome RunWell(GuestVm& guest, std::span<const std::byte> image,
                     const GuestVm::Arguments& arguments) {
  GuestOutcome outcome = guest.Run(image, arguments);
  EXPECT_EQ(outcome.error, "");
  EXPECT_EQ(outcome.end_code, 0);
  return outcome;
}

std::uint64_t PresentPages(std::span<const std::byte> mapping) {
  std::vector<unsigned char> present(mapping.size() / kPageSize);
  void* start = const_cast<std::byte*>(mapping.data());  // mincore only looks
  if (::mincore(start, mapping.size(), present.data()) != 0) {
    ADD_FAILURE() << "mincore: errno " << errno;
    return 0;
  }
  return static_cast<std::uint64_t>(
      std::ranges::count_if(present, [](unsigned char flags) { return (flags & 1U) != 0; }));
}

std::pair<int, int> KernelRelease() {
  struct utsname name{};
  int major = 0;
  int minor = 0;
  if (::uname(&name) != 0 || std::sscanf(name.release, "%d.%d", &major, &minor) != 2)
    ADD_FAILURE() << "no kernel release in '" << name.release << "'";
  return {major, minor};
}

}  // namespace holdfast::test
