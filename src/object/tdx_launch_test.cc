// SPDX-License-Identifier: Apache-2.0
// Launches of TDX guests on a fake of KVM and TDX module (fake_confidential_kvm.h): what they are
// told and in which order, not what hardware makes of it.
#include "object/tdx_launch.h"

#include <gmock/gmock.h>

#include "base/base64.h"
#include "object/launch_test_support.h"
#include "object/tdx_guest.h"

namespace holdfast::object {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace abi = kvm::abi;

// RAM that ends where 32 bits do, as a firmware's would.
constexpr std::uint64_t kBase = 4 * kGiB - kMiB;

ConfidentialHost TdxHost() {
  ConfidentialHost host;
  host.vendor = "GenuineIntel";
  host.vm_types = 1U << abi::kVmTypeTdx | 1U;
  return host;
}

kvm_cpuid_entry2 Entry(std::uint32_t function, std::uint32_t index, std::uint32_t eax,
                       std::uint32_t others) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  entry.eax = eax;
  entry.ebx = entry.ecx = entry.edx = others;
  return entry;
}

class TdxLaunch : public ::testing::TestWithParam<bool> {
 protected:
  bool in_place() const { return GetParam(); }

  void Host(FakeConfidentialKvm::Options options) {
    options.vm_type = abi::kVmTypeTdx;
    options.in_place = in_place();
    fake.emplace(std::move(options));
    // What KVM has; what may be configured of it is less.
    fake->cpuid = {Entry(1, 0, 0xff, 0xff00ff00), Entry(7, 0, 1, 1), Entry(0xd, 0, 0x207, 0),
                   Entry(0x80000008, 0, 0x3030, 0)};
    fake->tdx_configurable = {Entry(1, 0, 0x0f, 0xffff0000), Entry(0x80000008, 0, 0xff00ff, 0),
                              Entry(0x24, 0, 1, 1)};
    guest.set_host(TdxHost());
  }
  void Load(unsigned vcpus = 2) {
    auto made = LaunchMachine::Make(guest, GuestAddress(kBase), kMiB, vcpus);
    ASSERT_TRUE(made) << made.error().ToString();
    machine = *std::move(made);
    machine->FillPage(kBase + 2 * kPageSize, std::byte{0x22});
    for (std::uint64_t i = 0; i < 4; ++i)
      machine->FillPage(kBase + kMiB - (4 - i) * kPageSize, std::byte{0x33});
  }

  std::optional<FakeConfidentialKvm> fake;
  TdxGuest guest{"td0"};
  std::unique_ptr<LaunchMachine> machine;
};

INSTANTIATE_TEST_SUITE_P(, TdxLaunch, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "InPlace" : "FromBuffer"; });

TEST_P(TdxLaunch, AddsWhatIsLoadedBetweenTheVcpusAndTheEnd) {
  Host({});
  ASSERT_NO_FATAL_FAILURE(Load());
  const Status launched = machine->Launch(guest);
  ASSERT_TRUE(launched) << launched.error().ToString();
  EXPECT_THAT(fake->commands(), ElementsAre("init", "vcpu 0x0", "vcpu 0x0", "add 0xfff02000+0x1000",
                                            "add 0xffffc000+0x4000", "finalize"));
  ASSERT_EQ(fake->pages().size(), 5U);
  for (const auto& [gpa, page] : fake->pages()) {
    std::uint64_t mark = 0;
    std::memcpy(&mark, page.bytes.data(), sizeof mark);
    EXPECT_EQ(mark, gpa);
    EXPECT_EQ(page.bytes.back(), gpa < 0xffff0000 ? std::byte{0x22} : std::byte{0x33});
    EXPECT_TRUE(page.measured);
    EXPECT_EQ(page.in_place, in_place());
  }
}

TEST_P(TdxLaunch, TheVmIsConfiguredBeforeItsVcpus) {
  Host({});
  const std::string digest = EncodeBase64(std::vector(48, std::byte{7}));
  ObjectStore store;
  const auto made = store.AddFromOption("tdx-guest,id=t,mrconfigid=" + digest +
                                        ",mrowner=" + digest + ",mrownerconfig=" + digest);
  ASSERT_TRUE(made) << made.error().ToString();
  auto& object = dynamic_cast<TdxGuest&>(**made);
  object.set_host(TdxHost());
  const auto all = LaunchMachine::Make(object, GuestAddress(kBase), kMiB, 1);
  ASSERT_TRUE(all) << all.error().ToString();
  EXPECT_EQ(fake->tdx_init.attributes, abi::kTdAttributeSeptVeDisable);
  EXPECT_EQ(fake->tdx_init.xfam, 0x7U) << "0x207 is what KVM has, 0x7 what the module knows";
  EXPECT_EQ(fake->apic_bus_ns, 40U);
  for (const auto* words :
       {&fake->tdx_init.mrconfigid, &fake->tdx_init.mrowner, &fake->tdx_init.mrownerconfig})
    EXPECT_THAT(*words, Each(0x0707070707070707U));
}

TEST_P(TdxLaunch, OnlyWhatCanBeConfiguredIs) {
  Host({});
  ASSERT_NO_FATAL_FAILURE(Load(1));
  ASSERT_EQ(fake->tdx_cpuid.size(), 2U) << "7 is the module's, 0x24 KVM does not have";
  EXPECT_EQ(fake->tdx_cpuid[0].function, 1U);
  EXPECT_EQ(fake->tdx_cpuid[0].eax, 0x0fU);
  EXPECT_EQ(fake->tdx_cpuid[0].ebx, 0xff000000U);
  EXPECT_EQ(fake->tdx_cpuid[1].function, 0x80000008U);
  EXPECT_EQ(fake->tdx_cpuid[1].eax, 0x300030U) << "48 bits of guest physical address";
}

TEST_P(TdxLaunch, AttributesThatTheModuleLacksAreRefused) {
  Host({});
  guest.settings().attributes = abi::kTdAttributePks;
  const auto made = LaunchMachine::Make(guest, GuestAddress(kBase), kMiB, 1);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().message(),
            "Invalid attributes 0x40000000 for TDX VM (KVM supported: 0x10000000)");
  EXPECT_TRUE(fake->commands().empty());
}

TEST_P(TdxLaunch, AGuestWithoutFirmwareIsRefused) {
  Host({});
  auto made = LaunchMachine::Make(guest, GuestAddress(0), kMiB, 1);
  ASSERT_TRUE(made);
  const Status done = (*made)->Launch(guest);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().message(),
            "a TDX guest starts in its firmware at 0xfffffff0, and this machine has none");
}

TEST_P(TdxLaunch, AFailureNamesCommandAndModuleStatus) {
  const struct {
    std::uint32_t command;
    const char* message;
  } cases[] = {{abi::kTdxCapabilities,
                "KVM_TDX_CAPABILITIES: Input/output error (the TDX module "
                "answered 0xc000020000000000)"},
               {abi::kTdxInitVm, "KVM_TDX_INIT_VM: "},
               {abi::kTdxInitVcpu, "KVM_TDX_INIT_VCPU: "},
               {abi::kTdxInitMemRegion, "KVM_TDX_INIT_MEM_REGION: "},
               {abi::kTdxFinalizeVm, "KVM_TDX_FINALIZE_VM: "}};
  for (const auto& c : cases) {
    fake.reset();
    Host({.fail = {{c.command, 0xc000020000000000}}});
    Status done;
    if (auto made = LaunchMachine::Make(guest, GuestAddress(kBase), kMiB, 1); made) {
      (*made)->FillPage(kBase, std::byte{1});
      done = (*made)->Launch(guest);
    } else {
      done = Fail(made.error());
    }
    ASSERT_FALSE(done) << c.message;
    EXPECT_THAT(done.error().message(), HasSubstr(c.message));
  }
}

TEST_P(TdxLaunch, MoreConfigurableLeavesThanExpectedAreRead) {
  Host({});
  for (std::uint32_t i = 0; i < 100; ++i)
    fake->tdx_configurable.push_back(Entry(0x40000000 + i, 0, 1, 1));
  EXPECT_TRUE(LaunchMachine::Make(guest, GuestAddress(kBase), kMiB, 1));
}

}  // namespace
}  // namespace holdfast::object
