// SPDX-License-Identifier: Apache-2.0
// A whole machine on real KVM, asked through its interface: what the control protocol builds on.
#include "machine/machine.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <time.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/event_loop.h"
#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using machine::Machine;
using machine::RunState;
using machine::ShutdownCause;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

class MachineTest : public KvmTest {
 protected:
  // hello.elf with this command line in 32 MiB of two blocks, two CPUs in two nodes.
  void Make(std::string commands, machine::MachineConfig config = {}) {
    config.kernel = HelloPath();
    config.cmdline = std::move(commands);
    config.smp = {.cpus = 2, .max_cpus = 3, .sockets = 3, .cores = 1, .threads = 1};
    config.numa.nodes = {{.size = 20 * kMiB, .memdev = "a", .cpus = {0, 2}},
                         {.size = 12 * kMiB, .memdev = "b", .cpus = {1}}};
    auto loop = EventLoop::Create();
    ASSERT_OK(loop);
    loop_ = *std::move(loop);
    std::vector<RamBlock*> ram;
    for (const machine::NumaNode& node : config.numa.nodes) {
      auto block = RamBlock::CreateGuestMemfd(vm(), node.memdev, node.size, /*bind=*/false);
      ASSERT_OK(block);
      ram.push_back(block->get());
      blocks_.push_back(*std::move(block));
    }
    auto made = Machine::Create(
        *loop_, system(), vm(), ram, std::move(config),
        {.powerdown = [this] { events_.emplace_back("powerdown"); },
         .guest_panicked =
             [this](Machine::PanicAction action) {
               events_.push_back(fmt::format("panic {}", static_cast<int>(action)));
             },
         .reset = [this](ShutdownCause cause) { Note("reset", cause); },
         .shutdown = [this](ShutdownCause cause) { Note("shutdown", cause); },
         .state_changed =
             [this](RunState state) { events_.emplace_back(machine::RunStateName(state)); },
         .quit = [this](int s) { events_.push_back(fmt::format("quit {}", s)); }});
    ASSERT_OK(made);
    machine_ = *std::move(made);
  }

  void Note(std::string_view what, ShutdownCause cause) {
    events_.push_back(fmt::format("{} {} {}", what,
                                  machine::CausedByGuest(cause) ? "guest" : "host",
                                  machine::ShutdownCauseName(cause)));
  }

  // Lets the main loop work until so many events have come.
  void WaitForEvents(std::size_t count) {
    for (int i = 0; i < 600 && events_.size() < count; ++i)
      ASSERT_OK(loop_->RunOnce(std::chrono::milliseconds(100)));
  }

  static std::string HelloPath() {
    if (const char* folder = std::getenv("HOLDFAST_GUESTS"))
      return std::string(folder) + "/hello.elf";
    const auto self = std::filesystem::read_symlink("/proc/self/exe");
    return (self.parent_path().parent_path() / "guests" / "hello.elf").string();
  }

  std::vector<std::string> events_;
  std::unique_ptr<EventLoop> loop_;
  std::vector<std::unique_ptr<RamBlock>> blocks_;
  std::unique_ptr<Machine> machine_;
};

TEST_F(MachineTest, TellsWhyItEndsInQemusOrder) {
  const struct {
    const char* why;
    const char* commands;
    bool no_reboot, no_shutdown;
    std::vector<std::string> events;
  } cases[] = {
      {"power off", "p", false, false, {"shutdown guest guest-shutdown", "shutdown", "quit 0"}},
      {"power off, stay", "p", false, true, {"shutdown guest guest-shutdown", "shutdown"}},
      {"reset as end", "r", true, false, {"shutdown guest guest-reset", "shutdown", "quit 0"}},
      {"reset", "r", false, false, {"reset guest guest-reset", "reset guest guest-reset"}},
      {"panic",
       "c",
       false,
       false,
       {"panic 2", "shutdown guest guest-panic", "guest-panicked", "quit 0"}},
      {"panic, stay", "c", false, true, {"panic 1", "guest-panicked"}},
      {"debug exit", "3", false, true, {"shutdown guest guest-shutdown", "quit 7"}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.why);
    KvmTest::SetUp();  // a VM of its own
    machine::MachineConfig config;
    config.no_reboot = c.no_reboot;
    config.no_shutdown = c.no_shutdown;
    config.pvpanic.emplace();
    config.debug_exit.emplace();
    ASSERT_NO_FATAL_FAILURE(Make(c.commands, std::move(config)));
    ASSERT_OK(machine_->Resume());
    std::vector<std::string> want = c.events;
    want.insert(want.begin(), "running");
    ASSERT_NO_FATAL_FAILURE(WaitForEvents(want.size()));
    machine_.reset();
    blocks_.clear();
    events_.resize(std::min(events_.size(), want.size()));  // a guest in a circle goes on
    EXPECT_THAT(events_, ElementsAreArray(want));
    events_.clear();
  }
}

TEST_F(MachineTest, ShowsItsPartsWhileItRuns) {
  ASSERT_NO_FATAL_FAILURE(Make(""));  // says hello and stands for good
  const auto possible = machine_->possible_cpus();
  ASSERT_EQ(possible.size(), 3U);
  EXPECT_EQ(possible[2].socket_id, 2U);
  EXPECT_EQ(possible[2].core_id, 0U);
  EXPECT_EQ(possible[2].node_id, 0U);
  const auto cpus = machine_->vcpus();
  ASSERT_EQ(cpus.size(), 2U);
  EXPECT_EQ(cpus[1].node_id, 1U);
  EXPECT_NE(cpus[0].tid, cpus[1].tid);
  for (const machine::VcpuInfo& cpu : cpus)
    EXPECT_TRUE(std::filesystem::exists(fmt::format("/proc/self/task/{}", cpu.tid)));
  const auto& regions = machine_->memory().regions();
  ASSERT_EQ(regions.size(), 2U);
  EXPECT_EQ(regions[1].base.value(), 20 * kMiB);
  EXPECT_EQ(regions[1].block->id(), "b");
  EXPECT_EQ(machine_->memory().total_size(), 32 * kMiB);

  ASSERT_OK(machine_->Resume());
  for (int i = 0; i < 20; ++i) {
    // Asking must neither stop the guest for good nor move it.
    const auto registers = machine_->Registers(0);
    ASSERT_OK(registers);
    EXPECT_GE(registers->regs.rip, kMiB);
    EXPECT_NE(registers->sregs.cr0 & 1, 0U) << "protected mode";
    const auto physical = machine_->Translate(0, registers->regs.rip);
    ASSERT_OK(physical);
    EXPECT_EQ(*physical, registers->regs.rip) << "without paging";
  }
  EXPECT_TRUE(machine_->running());
  const auto nobody = machine_->Registers(2);
  ASSERT_FALSE(nobody);
  EXPECT_THAT(nobody.error().message(), HasSubstr("CPU 2"));

  machine_->PowerButton();
  ASSERT_OK(machine_->Reset());
  machine_->Pause();
  machine_->Quit(ShutdownCause::kHostSignal);
  EXPECT_THAT(events_, ElementsAreArray({"running", "powerdown", "reset host host-qmp-system-reset",
                                         "paused", "shutdown host host-signal", "quit 0"}));
}

TEST_F(MachineTest, AskingDoesNotWakeAGuestThatHasPoweredItselfOff) {
  machine::MachineConfig config;
  config.no_shutdown = true;
  const auto where = [this] {
    const auto registers = machine_->Registers(0);
    return registers ? registers->regs.rip : 0;
  };
  ASSERT_NO_FATAL_FAILURE(Make("p", config));
  ASSERT_OK(machine_->Resume());
  ASSERT_NO_FATAL_FAILURE(WaitForEvents(3));
  const std::uint64_t end = where();
  machine_.reset();
  blocks_.clear();
  // The same again, but the main loop does not get to know of the power-off.
  KvmTest::SetUp();
  ASSERT_NO_FATAL_FAILURE(Make("p", config));
  ASSERT_OK(machine_->Resume());
  // Asking makes the vCPU stand: on a busy host one that asks all the time keeps it from running.
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (where() != end && std::chrono::steady_clock::now() < give_up)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  for (int i = 0; i < 50; ++i) ASSERT_EQ(where(), end);
}

// Processor time that a thread of ours has used.
std::chrono::nanoseconds TimeOf(pid_t tid) {
  clockid_t clock = 0;
  timespec time{};
  // The kernel's number of a thread's clock (clock_getcpuclockid does not take a thread's id).
  constexpr clockid_t kOfThread = 6;
  clock = static_cast<clockid_t>((~static_cast<unsigned>(tid) << 3) | kOfThread);
  EXPECT_EQ(::clock_gettime(clock, &time), 0);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

TEST_F(MachineTest, SlowedDownItRestsMostOfTheTimeAndStillStopsAtOnce) {
  using std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kLook{500};
  const auto share = [&](pid_t tid) {
    const auto before = TimeOf(tid);
    const auto since = steady_clock::now();
    std::this_thread::sleep_for(kLook);
    return (TimeOf(tid) - before) * 100 / (steady_clock::now() - since);
  };
  ASSERT_NO_FATAL_FAILURE(Make("n"));  // counts for good
  ASSERT_OK(machine_->Resume());
  const pid_t tid = machine_->vcpus()[0].tid;
  ASSERT_OK(machine_->Throttle(90));
  EXPECT_EQ(machine_->throttle(), 90U);
  EXPECT_LE(share(tid), 30);
  // It rests for nearly a second, time and again; the shortest stop of many is not a rest's.
  ASSERT_OK(machine_->Throttle(99));
  auto shortest = steady_clock::duration::max();
  for (int i = 0; i < 10; ++i) {
    std::this_thread::sleep_for(kLook / 10);
    const auto since = steady_clock::now();
    machine_->Pause();
    shortest = std::min(shortest, steady_clock::now() - since);
    EXPECT_EQ(machine_->state(), RunState::kPaused);
    ASSERT_OK(machine_->Resume());
  }
  EXPECT_LT(shortest, std::chrono::milliseconds(200));
  ASSERT_OK(machine_->Throttle(0));
  // However busy this host is, more than a hundredth falls to it.
  const auto used = TimeOf(tid);
  for (int i = 0; i < 600 && TimeOf(tid) - used < kLook; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_GE(TimeOf(tid) - used, kLook);
  ASSERT_OK(machine_->Throttle(50));  // and it ends with the machine
}

}  // namespace
}  // namespace holdfast::test
