// SPDX-License-Identifier: Apache-2.0
// A Linux that boots is taken from one machine to the next, and to the next, and does not notice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "devices/test_support.h"
#include "machine/machine.h"
#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using machine::Machine;
using machine::RunState;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::uint64_t kLinuxRam = 192 * kMiB;
constexpr unsigned kLinuxCpus = 2;

class LinuxStateTest : public KvmTest {
 protected:
  // A machine with all that it stands on; all of them print into one text.
  struct Stage {
    std::unique_ptr<kvm::Vm> vm;
    std::unique_ptr<RamBlock> ram;
    devices::testing::FakeChardev console;
    std::unique_ptr<Machine> machine;
  };

  void SetUp() override {
    KvmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    const char* boot = std::getenv("LAB_BOOT");
    if (boot == nullptr) GTEST_SKIP() << "no Linux to boot here; the lab has one";
    boot_ = boot;
    auto loop = EventLoop::Create();
    ASSERT_OK(loop);
    loop_ = *std::move(loop);
  }

  std::unique_ptr<Stage> Make(bool incoming) {
    auto stage = std::make_unique<Stage>();
    auto vm = kvm::Vm::Create(system());
    EXPECT_OK(vm);
    stage->vm = std::make_unique<kvm::Vm>(*std::move(vm));
    auto ram = RamBlock::CreateGuestMemfd(*stage->vm, "ram", kLinuxRam, /*bind=*/false);
    EXPECT_OK(ram);
    stage->ram = *std::move(ram);
    machine::MachineConfig config;
    config.kernel = boot_ + "/vmlinuz";
    config.initrd = boot_ + "/initrd";
    config.cmdline = "console=ttyS0 hf.do=report";
    config.incoming = incoming;
    config.smp = {.cpus = kLinuxCpus,
                  .max_cpus = kLinuxCpus,
                  .sockets = kLinuxCpus,
                  .cores = 1,
                  .threads = 1};
    config.serial[0] = &stage->console;
    config.vmgenid.emplace();
    RamBlock* const blocks[] = {stage->ram.get()};
    auto machine = Machine::Create(*loop_, system(), *stage->vm, blocks, std::move(config),
                                   {.quit = [this](int) { over_ = true; }});
    EXPECT_OK(machine);
    if (!machine) return nullptr;
    stage->machine = *std::move(machine);
    return stage;
  }

  // Lets the guest run for so long, or until it has powered itself off.
  void RunFor(std::chrono::milliseconds time) {
    const auto until = std::chrono::steady_clock::now() + time;
    while (!over_ && std::chrono::steady_clock::now() < until)
      ASSERT_OK(loop_->RunOnce(std::chrono::milliseconds(20)));
  }

  std::string boot_;
  std::unique_ptr<EventLoop> loop_;
  bool over_ = false;
};

TEST_F(LinuxStateTest, BootsAcrossManyMachines) {
  std::unique_ptr<Stage> stage = Make(false);
  ASSERT_NE(stage, nullptr);
  ASSERT_OK(stage->machine->Resume());
  // Some way into the boot each time: a machine begins with no page mapped, which takes its time.
  const int moves = std::getenv("HOLDFAST_TEST_LONG") != nullptr ? 20 : 1;
  for (int move = 0; move < moves; ++move) {
    ASSERT_NO_FATAL_FAILURE(RunFor(std::chrono::milliseconds(3000)));
    if (over_) break;
    stage->machine->Pause(RunState::kSaveVm);
    const auto saved = stage->machine->SaveState();
    ASSERT_OK(saved);
    std::unique_ptr<Stage> next = Make(true);
    ASSERT_NE(next, nullptr);
    std::ranges::copy(stage->ram->host_view(), next->ram->host_view().begin());
    next->console.output = stage->console.output;
    ASSERT_OK(next->machine->LoadState(*saved)) << move;
    ASSERT_TRUE(next->machine->saved_running());
    ASSERT_OK(next->machine->NewGeneration());
    stage = std::move(next);
    ASSERT_OK(stage->machine->Resume());
  }
  ASSERT_NO_FATAL_FAILURE(
      RunFor(std::chrono::milliseconds(static_cast<std::int64_t>(ScaledSeconds(100) * 1000))));
  const std::string& console = stage->console.output;
  ASSERT_TRUE(over_) << console;
  EXPECT_THAT(console, HasSubstr("hf: cpu_count=2"));
  for (const char* trouble : {"Call Trace", "BUG:", "soft lockup", "self-detected stall"})
    EXPECT_THAT(console, Not(HasSubstr(trouble)));
}

}  // namespace
}  // namespace holdfast::test
