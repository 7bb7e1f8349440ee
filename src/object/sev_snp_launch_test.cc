// SPDX-License-Identifier: Apache-2.0
// Launches of SEV-SNP guests on a fake of KVM and firmware (fake_confidential_kvm.h): what they are
// told and in which order, not what hardware makes of it.
#include "object/sev_snp_launch.h"

#include <gmock/gmock.h>

#include "base/base64.h"
#include "object/launch_test_support.h"
#include "object/sev_snp_guest.h"

namespace holdfast::object {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace abi = kvm::abi;

constexpr unsigned kCbit = 51;
constexpr std::uint64_t kEncrypted = 1ULL << kCbit;
constexpr std::uint64_t kTables = 0x2000;
constexpr std::uint64_t kZeroPage = 0x8000;
constexpr std::uint64_t kKernel = kMiB;

ConfidentialHost SnpHost() {
  ConfidentialHost host;
  host.vendor = "AuthenticAMD";
  host.encryption = {.sev = true, .snp = true, .cbitpos = kCbit};
  host.vm_types = 1U << abi::kVmTypeSnp | 1U;
  return host;
}

kvm_cpuid_entry2 Entry(std::uint32_t function, std::uint32_t index, bool indexed,
                       std::uint32_t value) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  entry.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
  entry.eax = entry.ebx = entry.ecx = entry.edx = value;
  return entry;
}

std::string Encoded(std::size_t size, std::byte value) {
  return EncodeBase64(std::vector<std::byte>(size, value));
}

class SnpLaunch : public ::testing::TestWithParam<bool> {
 protected:
  bool in_place() const { return GetParam(); }

  // A fake that is there, with what a first vCPU of Linux looks like.
  void Host(FakeConfidentialKvm::Options options) {
    options.in_place = in_place();
    fake.emplace(std::move(options));
    fake->regs.rsi = kZeroPage;
    fake->sregs.cr3 = kTables;
    fake->cpuid = {Entry(1, 0, false, 0xffffffff), Entry(7, 0, true, 0xffffffff),
                   Entry(0xd, 1, true, 7)};
    guest.settings().cbitpos = kCbit;
    guest.settings().reduced_phys_bits = 1;
    guest.set_host(SnpHost());
    guest.settings().sev_device = "/dev/null";
  }
  // 2 MiB of RAM with a bzImage's boot parameters, page tables of two levels and three pages of
  // kernel.
  void Load() {
    auto made = LaunchMachine::Make(guest, GuestAddress(0), 2 * kMiB, 2);
    ASSERT_TRUE(made) << made.error().ToString();
    machine = *std::move(made);
    machine->Put(kZeroPage + 0x202, std::uint32_t{0x53726448});
    machine->Put(kZeroPage + 0x250, std::uint64_t{0x1234});
    machine->Put(kTables, std::uint64_t{0x3000 | 3});            // PML4: a directory of pointers
    machine->Put(0x3000, std::uint64_t{0x4000 | 3});             // to a directory
    machine->Put(0x3000 + 8, std::uint64_t{0x40000000 | 0x83});  // and a page of 1 GiB
    machine->Put(0x4000, std::uint64_t{0x83});                   // a page of 2 MiB
    for (std::uint64_t i = 0; i < 3; ++i)
      machine->FillPage(kKernel + i * kPageSize, std::byte{0x11});
  }
  const FakeConfidentialKvm::Page& PageAt(std::uint64_t gpa) { return fake->pages().at(gpa); }
  template <typename T>
  T In(std::uint64_t gpa, std::size_t offset) {
    T value{};
    std::memcpy(&value, PageAt(gpa).bytes.data() + offset, sizeof value);
    return value;
  }

  std::optional<FakeConfidentialKvm> fake;
  SevSnpGuest guest{"sev0"};
  std::unique_ptr<LaunchMachine> machine;
};

INSTANTIATE_TEST_SUITE_P(, SnpLaunch, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "InPlace" : "FromBuffer"; });

TEST_P(SnpLaunch, GivesAllMemoryInOrderBetweenStartAndFinish) {
  Host({});
  ASSERT_NO_FATAL_FAILURE(Load());
  EXPECT_EQ(machine->engine,
            in_place() ? ConversionEngineKind::kKernel : ConversionEngineKind::kAttributes);
  EXPECT_FALSE(guest.launched());
  const Status launched = machine->Launch(guest);
  ASSERT_TRUE(launched) << launched.error().ToString();
  EXPECT_TRUE(guest.launched());
  EXPECT_EQ(guest.platform().api_major, 1);
  EXPECT_THAT(fake->commands(),
              ElementsAre("init", "start", "update zero 0x0+0x2000", "update normal 0x2000+0x3000",
                          "update zero 0x5000+0x3000", "update normal 0x8000+0x1000",
                          "update zero 0x9000+0x1000", "update secrets 0xa000+0x1000",
                          "update cpuid 0xb000+0x1000", "update normal 0xc000+0x1000",
                          "update zero 0xd000+0xf3000", "update normal 0x100000+0x3000",
                          "update zero 0x103000+0xfd000", "finish"));
  EXPECT_EQ(fake->pages().size(), 2 * kMiB / kPageSize);
}

TEST_P(SnpLaunch, TheFirmwareGetsWhatWasLoaded) {
  Host({});
  ASSERT_NO_FATAL_FAILURE(Load());
  ASSERT_TRUE(machine->Launch(guest));
  for (std::uint64_t at = kKernel; at < kKernel + 3 * kPageSize; at += kPageSize) {
    EXPECT_EQ(In<std::uint64_t>(at, 0), at);
    EXPECT_EQ(PageAt(at).bytes.back(), std::byte{0x11}) << std::hex << at;
    EXPECT_EQ(PageAt(at).in_place, in_place());
  }
  EXPECT_FALSE(PageAt(kSnpCpuidPage.value()).in_place) << "the firmware answers into a copy";
}

TEST_P(SnpLaunch, LinuxLearnsWhereItsPagesAre) {
  Host({});
  ASSERT_NO_FATAL_FAILURE(Load());
  ASSERT_TRUE(machine->Launch(guest));
  const auto data = In<std::uint64_t>(kZeroPage, 0x250);
  EXPECT_EQ(data, kSnpBlobPage.value());
  EXPECT_EQ(In<std::uint64_t>(data, 0), 0x1234U) << "the list of before goes on";
  EXPECT_EQ(In<std::uint32_t>(data, 8), 7U);
  EXPECT_EQ(In<std::uint32_t>(data, 12), 4U);
  const auto blob = In<std::uint32_t>(data, 16) - static_cast<std::uint32_t>(data);
  EXPECT_EQ(In<std::uint32_t>(data, blob), 0x45444d41U);
  EXPECT_EQ(In<std::uint64_t>(data, blob + 8), kSnpSecretsPage.value());
  EXPECT_EQ(In<std::uint32_t>(data, blob + 16), kPageSize);
  EXPECT_EQ(In<std::uint64_t>(data, blob + 24), kSnpCpuidPage.value());
}

TEST_P(SnpLaunch, ThePageTablesAreEncryptedOnes) {
  Host({});
  ASSERT_NO_FATAL_FAILURE(Load());
  ASSERT_TRUE(machine->Launch(guest));
  EXPECT_EQ(In<std::uint64_t>(kTables, 0), 0x3003U | kEncrypted);
  EXPECT_EQ(In<std::uint64_t>(kTables, 8), 0U) << "what maps nothing stays so";
  EXPECT_EQ(In<std::uint64_t>(0x3000, 0), 0x4003U | kEncrypted);
  EXPECT_EQ(In<std::uint64_t>(0x3000, 8), 0x40000083U | kEncrypted);
  EXPECT_EQ(In<std::uint64_t>(0x4000, 0), 0x83U | kEncrypted);
}

TEST_P(SnpLaunch, TheObjectsPropertiesReachTheFirmware) {
  Host({});
  ObjectStore store;
  const auto made = store.AddFromOption(
      "sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,sev-device=/dev/null,policy=0xb0000,"
      "guest-visible-workarounds=" +
      Encoded(16, std::byte{1}) + ",id-block=" + Encoded(96, std::byte{2}) +
      ",id-auth=" + Encoded(100, std::byte{3}) +
      ",author-key-enabled=on,vcek-disabled=on,host-data=" + Encoded(32, std::byte{4}));
  ASSERT_TRUE(made) << made.error().ToString();
  auto& object = dynamic_cast<SevSnpGuest&>(**made);
  object.set_host(SnpHost());
  auto all = LaunchMachine::Make(object, GuestAddress(0), 2 * kMiB, 1);
  ASSERT_TRUE(all) << all.error().ToString();
  (*all)->Put(kZeroPage + 0x202, std::uint32_t{0x53726448});
  ASSERT_TRUE((*all)->Launch(object));
  EXPECT_EQ(fake->start.policy, 0xb0000U);
  EXPECT_THAT(fake->start.gosvw, ::testing::Each(std::byte{1}));
  EXPECT_EQ(fake->id_block, std::vector(96, std::byte{2}));
  EXPECT_EQ(fake->id_auth[99], std::byte{3});
  EXPECT_EQ(fake->id_auth[100], std::byte{0}) << "all 4096 bytes are there";
  EXPECT_EQ(fake->finish.auth_key_en, 1);
  EXPECT_EQ(fake->finish.vcek_disabled, 1);
  EXPECT_THAT(fake->finish.host_data, ::testing::Each(std::byte{4}));
}

TEST_P(SnpLaunch, AFailureNamesCommandAndFirmwareStatus) {
  const struct {
    std::uint32_t command;
    std::uint64_t status;
    const char* message;
  } cases[] = {
      {abi::kSevInit2, 0x20, "KVM_SEV_INIT2: the SEV firmware answered 0x20 (the RMP must be"},
      {abi::kSnpLaunchStart, 0x7, "SNP_LAUNCH_START: the SEV firmware answered 0x7 (the guest's "},
      {abi::kSnpLaunchStart, 0xffffffff, "SNP_LAUNCH_START: Input/output error"},
      {abi::kSnpLaunchUpdate, 0x1a, "SNP_LAUNCH_UPDATE: the SEV firmware answered 0x1a (a page"},
      {abi::kSnpLaunchFinish, 0xb, "SNP_LAUNCH_FINISH: the SEV firmware answered 0xb (the meas"},
      {abi::kSnpLaunchFinish, 0x99, "SNP_LAUNCH_FINISH: the SEV firmware answered 0x99 (unknown)"},
  };
  for (const auto& c : cases) {
    fake.reset();
    Host({.fail = {{c.command, c.status}}});
    Status done;
    if (auto made = LaunchMachine::Make(guest, GuestAddress(0), 2 * kMiB, 1); made) {
      (*made)->Put(kZeroPage + 0x202, std::uint32_t{0x53726448});
      done = (*made)->Launch(guest);
    } else {
      done = Fail(made.error());
    }
    ASSERT_FALSE(done) << c.message;
    EXPECT_THAT(done.error().message(), HasSubstr(c.message));
  }
}

TEST_P(SnpLaunch, ACpuidThatTheFirmwareRefusesIsShown) {
  Host({.refuse_cpuid_function = 0xd});
  ASSERT_NO_FATAL_FAILURE(Load());
  const Status done = machine->Launch(guest);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().message(),
            "the SEV firmware refuses the guest's CPUID: function 0xd, index 0x1: provided eax 0x7 "
            "ebx 0x240 ecx 0x7 edx 0x7, expected eax 0x7 ebx 0x240 ecx 0x6 edx 0x7");
}

TEST_P(SnpLaunch, OnlyABzImageIsLaunched) {
  Host({});
  ASSERT_NO_FATAL_FAILURE(Load());
  machine->Put(kZeroPage + 0x202, std::uint32_t{0});
  const Status done = machine->Launch(guest);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message(), HasSubstr("from a Linux bzImage only"));
  EXPECT_THAT(fake->commands(), ElementsAre("init", "start"));
}

TEST_P(SnpLaunch, PageTablesInACircleEnd) {
  Host({});
  ASSERT_NO_FATAL_FAILURE(Load());
  // 2^27 ways through tables that point at themselves.
  for (std::uint64_t i = 0; i < 512; ++i) machine->Put(kTables + i * 8U, kTables | 3U);
  const Status done = machine->Launch(guest);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Errc::kMalformed);
}

TEST_P(SnpLaunch, ConvertInPlaceIsAskedForOrRuledOut) {
  Host({});
  const struct {
    OnOffAuto choice;
    bool works;
  } cases[] = {
      {OnOffAuto::kAuto, true}, {OnOffAuto::kOn, in_place()}, {OnOffAuto::kOff, !in_place()}};
  for (const auto& c : cases) {
    fake.reset();
    Host({});
    guest.settings().convert_in_place = c.choice;
    const auto made = LaunchMachine::Make(guest, GuestAddress(0), kMiB, 1);
    EXPECT_EQ(made.has_value(), c.works) << static_cast<int>(c.choice);
    if (made) continue;
    EXPECT_EQ(made.error().code(), Errc::kUnsupported) << made.error().ToString();
  }
}

TEST_P(SnpLaunch, WhatDoesNotFitTheHostIsRefusedBeforeThereIsAVm) {
  Host({});
  guest.settings().cbitpos = 47;
  auto made = LaunchMachine::Make(guest, GuestAddress(0), kMiB, 1);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().message(), "cbitpos check failed, host '51' requested '47'");
  guest.settings().cbitpos = kCbit;
  guest.settings().kernel_hashes = true;
  made = LaunchMachine::Make(guest, GuestAddress(0), kMiB, 1);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().message(),
            "SEV: kernel specified but guest firmware has no hashes table GUID");
  guest.settings().kernel_hashes = false;
  guest.settings().sev_device = "/dev/no-such-device";
  made = LaunchMachine::Make(guest, GuestAddress(0), kMiB, 1);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().ToString(),
              HasSubstr("SEV: Failed to open /dev/no-such-device: No such file or directory. The "
                        "kernel's ccp module makes this device"));
  EXPECT_TRUE(fake->commands().empty());
}

TEST(SevDeviceTest, TellsTheKeyAndTheIdOfThePlatform) {
  const FakeConfidentialKvm fake{{}};
  const auto device = kvm::SevDevice::Open("/dev/null");
  ASSERT_TRUE(device);
  const auto key = device->ExportPdh();
  ASSERT_TRUE(key) << key.error().ToString();
  EXPECT_EQ(key->pdh, std::vector(4, std::byte{1}));
  EXPECT_EQ(key->chain, std::vector(5, std::byte{2}));
  const auto id = device->CpuId();
  ASSERT_TRUE(id) << id.error().ToString();
  EXPECT_EQ(*id, std::vector(6, std::byte{3}));
}

TEST(SnpCpuidPage, LeavesOutWhatTheFirmwareKeepsToTheHost) {
  const std::vector<kvm_cpuid_entry2> entries = {
      Entry(1, 5, false, 0xffffffff), Entry(7, 0, true, 0xffffffff),
      Entry(7, 1, true, 0xffffffff),  Entry(0xd, 0, true, 0xffffffff),
      Entry(0xd, 2, true, 9),         Entry(0x80000008, 0, false, 0xffffffff)};
  const auto page = MakeSnpCpuidPage(entries, {});
  ASSERT_TRUE(page);
  ASSERT_EQ(page->count, 7U);
  const auto& e = page->entries;
  EXPECT_EQ(e[0].ecx, ~(1U << 24));
  EXPECT_EQ(e[0].ecx_in, 0U) << "an index that does not count";
  EXPECT_EQ(e[1].ebx, ~2U);
  EXPECT_EQ(e[1].edx, 0x03ffffffU);
  EXPECT_EQ(e[2].edx, 0xffffffffU);
  EXPECT_EQ(e[3].ebx, 0x240U);
  EXPECT_EQ(e[3].xcr0_in, 1U);
  EXPECT_EQ(e[4].ebx, 9U);
  EXPECT_EQ(e[4].ecx_in, 2U);
  EXPECT_EQ(e[5].ebx, ~(1U << 25));
  EXPECT_TRUE(MakeSnpCpuidPage(std::vector(63, Entry(1, 0, false, 0)), {}));
  EXPECT_FALSE(MakeSnpCpuidPage(std::vector(64, Entry(1, 0, false, 0)), {}));
}

// KVM's own entry tells of the host.
TEST(SnpCpuidPage, TellsTheGuestOfItsEncryption) {
  const std::vector<kvm_cpuid_entry2> entries = {Entry(0x8000001f, 0, false, 0xffffffff)};
  const auto page = MakeSnpCpuidPage(entries, {.cbitpos = 51, .reduced_phys_bits = 1});
  ASSERT_TRUE(page);
  ASSERT_EQ(page->count, 1U);
  EXPECT_EQ(page->entries[0].eax_in, 0x8000001fU);
  EXPECT_EQ(page->entries[0].eax, 0x1aU) << "SEV, SEV-ES, SEV-SNP";
  EXPECT_EQ(page->entries[0].ebx, 51U | 1U << 6);
  EXPECT_EQ(page->entries[0].ecx | page->entries[0].edx, 0U);
}

}  // namespace
}  // namespace holdfast::object
