// SPDX-License-Identifier: Apache-2.0
// A machine's state goes into another machine, which goes on exactly there.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>

#include "base/event_loop.h"
#include "devices/machine_services.h"
#include "kvm/built_machine.h"
#include "machine/machine.h"
#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using machine::Machine;
using machine::RunState;
using ::testing::HasSubstr;

constexpr std::uint64_t kMachineRam = 16 * kMiB;
constexpr GuestAddress kCounter{0x500000};  // where hello.elf counts

// A machine whose guest counts.
struct Instance : BuiltMachine {
  std::uint32_t Count() const {
    std::uint32_t count = 0;
    EXPECT_OK(machine->memory().Read(kCounter, std::as_writable_bytes(std::span(&count, 1))));
    return count;
  }
  // Lets the guest run until it has counted so far.
  void WaitForCount(std::uint32_t count) const {
    const auto give_up = std::chrono::steady_clock::now() +
                         std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                             std::chrono::duration<double>(ScaledSeconds(60)));
    while (Count() < count && std::chrono::steady_clock::now() < give_up)
      ASSERT_OK(loop->RunOnce(std::chrono::milliseconds(1)));
    ASSERT_GE(Count(), count);
  }
};

class MachineStateTest : public KvmTest {
 protected:
  Instance Make(std::string commands, bool incoming, machine::MachineConfig config = {},
                unsigned cpus = 2) {
    Instance made;
    config.kernel = HelloPath();
    config.cmdline = std::move(commands);
    config.incoming = incoming;
    config.smp = {.cpus = cpus, .max_cpus = cpus, .sockets = cpus, .cores = 1, .threads = 1};
    made.Build(system(), kMachineRam, std::move(config));
    return made;
  }

  // One that has counted a little, and its state.
  void CountAndSave() {
    source_ = Make("n", false);
    ASSERT_NE(source_.machine, nullptr);
    ASSERT_OK(source_.machine->Resume());
    ASSERT_NO_FATAL_FAILURE(source_.WaitForCount(1000));
    source_.machine->Pause(RunState::kSaveVm);
    auto saved = source_.machine->SaveState();
    ASSERT_OK(saved);
    saved_ = *std::move(saved);
  }
  static void CopyRam(const Instance& from, const Instance& to) {
    std::ranges::copy(from.ram->host_view(), to.ram->host_view().begin());
  }

  Instance source_;
  std::vector<state::SavedSection> saved_;
};

TEST_F(MachineStateTest, AnotherMachineGoesOnWhereThisOneWasSaved) {
  ASSERT_NO_FATAL_FAILURE(CountAndSave());
  const std::uint32_t at_save = source_.Count();
  const Instance target = Make("", true);
  ASSERT_NE(target.machine, nullptr);
  EXPECT_EQ(target.machine->state(), RunState::kInMigrate);
  const Status too_early = target.machine->Resume();
  ASSERT_FALSE(too_early);
  EXPECT_EQ(target.machine->state(), RunState::kInMigrate);

  EXPECT_FALSE(target.machine->Reset());

  CopyRam(source_, target);
  ASSERT_OK(target.machine->LoadState(saved_));
  EXPECT_EQ(target.machine->state(), RunState::kPaused);
  EXPECT_TRUE(target.machine->saved_running());
  for (unsigned i = 0; i < 2; ++i) {
    const auto there = source_.machine->Registers(i);
    const auto here = target.machine->Registers(i);
    ASSERT_OK(there);
    ASSERT_OK(here);
    EXPECT_EQ(std::memcmp(&there->regs, &here->regs, sizeof here->regs), 0) << i;
    EXPECT_EQ(std::memcmp(&there->sregs, &here->sregs, sizeof here->sregs), 0) << i;
  }
  EXPECT_EQ(target.Count(), at_save);
  ASSERT_OK(target.machine->Resume());
  ASSERT_NO_FATAL_FAILURE(target.WaitForCount(at_save + 1000));
  // The first one was not disturbed either.
  ASSERT_OK(source_.machine->Resume());
  ASSERT_NO_FATAL_FAILURE(source_.WaitForCount(at_save + 1000));
}

TEST_F(MachineStateTest, WhatIsLoadedIsSavedAgainByteByByte) {
  ASSERT_NO_FATAL_FAILURE(CountAndSave());
  const Instance target = Make("", true);
  ASSERT_NE(target.machine, nullptr);
  CopyRam(source_, target);
  ASSERT_OK(target.machine->LoadState(saved_));
  const auto again = target.machine->SaveState();
  ASSERT_OK(again);
  ASSERT_EQ(again->size(), saved_.size());
  for (std::size_t i = 0; i < saved_.size(); ++i) {
    EXPECT_EQ((*again)[i].name, saved_[i].name);
    // Clocks go on, and who ran is paused now.
    const bool moves = saved_[i].name == "machine" || saved_[i].name == "rtc" ||
                       saved_[i].name == "acpi-pm" || saved_[i].name == "pit" ||
                       saved_[i].name.starts_with("vcpu/");
    EXPECT_EQ((*again)[i].bytes.size(), saved_[i].bytes.size()) << saved_[i].name;
    EXPECT_TRUE(moves || (*again)[i].bytes == saved_[i].bytes) << saved_[i].name;
  }
}

TEST_F(MachineStateTest, AMachineGoesBackToItsOwnStateAsOftenAsAsked) {
  ASSERT_NO_FATAL_FAILURE(CountAndSave());
  const std::uint32_t at_save = source_.Count();
  const auto at_save_registers = source_.machine->Registers(0);
  ASSERT_OK(at_save_registers);
  std::vector<std::byte> ram(source_.ram->host_view().begin(), source_.ram->host_view().end());
  ASSERT_OK(source_.machine->Resume());
  for (int round = 0; round < 20; ++round) {
    ASSERT_NO_FATAL_FAILURE(source_.WaitForCount(at_save + 100));
    source_.machine->Pause(RunState::kRestoreVm);
    std::ranges::copy(ram, source_.ram->host_view().begin());
    ASSERT_OK(source_.machine->LoadState(saved_)) << round;
    EXPECT_EQ(source_.Count(), at_save);
    const auto registers = source_.machine->Registers(0);
    ASSERT_OK(registers);
    EXPECT_EQ(registers->regs.rcx, at_save_registers->regs.rcx);
    EXPECT_EQ(registers->regs.rip, at_save_registers->regs.rip);
    ASSERT_OK(source_.machine->Resume());
  }
}

TEST_F(MachineStateTest, KvmclockStandsWhileTheMachineDoes) {
  ASSERT_NO_FATAL_FAILURE(CountAndSave());
  const auto clock = [this] {
    const auto now = source_.vm->GetClock();
    return now ? *now : 0;
  };
  const std::uint64_t stopped = clock();
  // KVM's own clock goes on: that much later it would be.
  const auto later = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
  while (std::chrono::steady_clock::now() < later)
    ASSERT_OK(source_.loop->RunOnce(std::chrono::milliseconds(50)));
  const auto before = std::chrono::steady_clock::now();
  ASSERT_OK(source_.machine->Resume());
  source_.machine->Pause();
  const std::uint64_t after = clock();
  const auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::steady_clock::now() - before);
  EXPECT_LT(after, stopped + static_cast<std::uint64_t>(took.count()) + 200'000'000);
}

TEST_F(MachineStateTest, ARefusedStateLeavesAMachineThatCanBeReset) {
  ASSERT_NO_FATAL_FAILURE(CountAndSave());
  Instance target = Make("n", true);
  ASSERT_NE(target.machine, nullptr);
  std::vector<state::SavedSection> cut = saved_;
  const auto vcpu = std::ranges::find(cut, "vcpu/1", &state::SavedSection::name);
  ASSERT_NE(vcpu, cut.end());
  vcpu->bytes.resize(vcpu->bytes.size() / 2);
  const Status loaded = target.machine->LoadState(cut);
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().message(), HasSubstr("section 'vcpu/1'"));
  EXPECT_EQ(target.machine->state(), RunState::kInternalError);
  EXPECT_FALSE(target.machine->Resume());
  ASSERT_OK(target.machine->Reset());
  ASSERT_OK(target.machine->Resume());
  ASSERT_NO_FATAL_FAILURE(target.WaitForCount(10));
}

TEST_F(MachineStateTest, AMachineOfAnotherShapeIsRefusedInASentence) {
  ASSERT_NO_FATAL_FAILURE(CountAndSave());
  const Instance one_cpu = Make("", true, {}, 1);
  const Status cpus = one_cpu.machine->LoadState(saved_);
  ASSERT_FALSE(cpus);
  EXPECT_THAT(cpus.error().message(), HasSubstr("'vcpu/1'"));

  machine::MachineConfig config;
  config.pvpanic.emplace();  // without a state of its own
  const Instance with_panic = Make("", true, std::move(config));
  EXPECT_OK(with_panic.machine->LoadState(saved_));
}

TEST_F(MachineStateTest, ARestoredGuestGetsANewGeneration) {
  machine::MachineConfig config;
  config.vmgenid.emplace();
  source_ = Make("n", false, config);
  ASSERT_NE(source_.machine, nullptr);
  source_.machine->Pause();
  const auto saved = source_.machine->SaveState();
  ASSERT_OK(saved);
  const Instance target = Make("", true, config);
  ASSERT_NE(target.machine, nullptr);
  CopyRam(source_, target);
  ASSERT_OK(target.machine->LoadState(*saved));
  const std::string before = target.machine->services().vm_generation_id;
  EXPECT_EQ(before, source_.machine->services().vm_generation_id) << "what its memory says";
  ASSERT_OK(target.machine->NewGeneration());
  EXPECT_NE(target.machine->services().vm_generation_id, before);
  // Sixteen bytes among the firmware's tables, and nothing else, have changed.
  const auto changed = [&](std::size_t from, std::size_t to) -> std::ptrdiff_t {
    const auto there = source_.ram->host_view().subspan(from, to - from);
    const auto here = target.ram->host_view().subspan(from, to - from);
    const auto first = std::mismatch(there.begin(), there.end(), here.begin()).first;
    if (first == there.end()) return 0;
    return std::mismatch(there.rbegin(), there.rend(), here.rbegin()).first.base() - first;
  };
  EXPECT_GT(changed(0xe0000, 0x100000), 4);
  EXPECT_LE(changed(0xe0000, 0x100000), 16);
  EXPECT_EQ(changed(0, 0xe0000) + changed(0x100000, kMachineRam), 0);
  const Instance without = Make("", true);
  EXPECT_FALSE(without.machine->LoadState(*saved));
}

TEST_F(MachineStateTest, OnlyAMachineThatStandsAndHasAStateIsSaved) {
  const Instance waiting = Make("", true);
  const auto none = waiting.machine->SaveState();
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message(), HasSubstr("'inmigrate'"));
  const Instance runs = Make("n", false);
  ASSERT_OK(runs.machine->Resume());
  EXPECT_FALSE(runs.machine->SaveState());
  EXPECT_FALSE(runs.machine->LoadState({}));
  EXPECT_EQ(runs.machine->state(), RunState::kRunning);
}

TEST_F(MachineStateTest, ANonsenseStateIsRefusedOrLoadedButNeverMore) {
  ASSERT_NO_FATAL_FAILURE(CountAndSave());
  std::mt19937 random(6);  // NOLINT(cert-msc51-cpp): the same each time
  Instance target = Make("n", true);
  ASSERT_NE(target.machine, nullptr);
  for (int round = 0; round < 150; ++round) {
    std::vector<state::SavedSection> flipped = saved_;
    for (unsigned flips = 1 + random() % 4; flips > 0; --flips) {
      auto& bytes = flipped[random() % flipped.size()].bytes;
      if (!bytes.empty()) bytes[random() % bytes.size()] ^= static_cast<std::byte>(random());
    }
    const Status loaded = target.machine->LoadState(flipped);
    EXPECT_TRUE(loaded || !loaded.error().message().empty());
  }
  // And the true one still goes.
  CopyRam(source_, target);
  ASSERT_OK(target.machine->LoadState(saved_));
  ASSERT_OK(target.machine->Resume());
  ASSERT_NO_FATAL_FAILURE(target.WaitForCount(source_.Count() + 100));
}

}  // namespace
}  // namespace holdfast::test
