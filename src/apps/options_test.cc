// SPDX-License-Identifier: Apache-2.0
#include "apps/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>

#include "apps/option_table.h"
#include "base/log.h"

namespace holdfast::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Result<Options> Parse(std::initializer_list<const char*> arguments) {
  return ParseCommandLine({arguments.begin(), arguments.size()});
}

// Parses a command line that must be right; "-kernel k" is put in front.
Options Good(std::initializer_list<const char*> arguments) {
  std::vector<const char*> all = {"-kernel", "k"};
  all.insert(all.end(), arguments);
  auto options = ParseCommandLine(all);
  if (!options) {
    ADD_FAILURE() << options.error().ToString();
    return {};
  }
  return *std::move(options);
}

TEST(OptionsTest, TheTableHasEachNameOnceAndNoneOfTheOptionsItLacks) {
  std::vector<std::string_view> names;
  for (const OptionSpec& option : OptionTable()) {
    names.push_back(option.name);
    for (const std::string_view alias : option.aliases) {
      if (!alias.empty()) names.push_back(alias);
    }
    EXPECT_NE(option.parse, nullptr) << option.name;
    EXPECT_FALSE(option.help.empty()) << option.name;
  }
  names.insert(names.end(), QemuOnlyOptions().begin(), QemuOnlyOptions().end());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
}

TEST(OptionsTest, OneDashOrTwo) {
  EXPECT_EQ(Parse({"--kernel", "a"})->machine.kernel, "a");
  EXPECT_EQ(Parse({"-kernel", "a"})->machine.kernel, "a");
}

TEST(OptionsTest, DirtyRingsAndNewAddressesAreOnRequest) {
  EXPECT_EQ(Good({}).dirty_ring_size, 0U);
  EXPECT_EQ(Good({"-accel", "kvm,dirty-ring-size=4096"}).dirty_ring_size, 4096U);
  EXPECT_FALSE(Good({"-incoming", "file:a"}).incoming->new_mac);
  EXPECT_TRUE(Good({"-incoming", "file:a,new-mac=on"}).incoming->new_mac);
}

TEST(OptionsTest, DefaultsAreQemus) {
  const Options options = Good({});
  EXPECT_EQ(options.kvm_device, "/dev/kvm");
  EXPECT_EQ(options.ram.front()->id(), "pc.ram");
  EXPECT_EQ(options.ram.front()->size(), 128ULL << 20);
  EXPECT_EQ(options.machine.smp.cpus, 1U);
  EXPECT_FALSE(options.machine.no_reboot);
  EXPECT_FALSE(options.machine.start_paused);
}

TEST(OptionsTest, ALineWithMostOptionsIsTakenApart) {
  const Options options = Good({"-machine",    "q35,accel=kvm,usb=off,memory-backend=ram0",
                                "-object",     "memory-backend-guest-memfd,id=ram0,size=2G,bind=on",
                                "-m",          "2048",
                                "-smp",        "4,sockets=2",
                                "-cpu",        "max,migratable=off",
                                "-append",     "console=ttyS0 quiet,,x",
                                "-initrd",     "i",
                                "-nodefaults", "-no-user-config",
                                "-nic",        "none",
                                "-vga",        "none",
                                "-name",       "one,process=p,debug-threads=on",
                                "-uuid",       "550E8400-e29b-41d4-a716-446655440000",
                                "-S",          "-no-shutdown",
                                "-action",     "reboot=shutdown",
                                "-pidfile",    "p",
                                "-D",          "log",
                                "-d",          "unimp,trace:kvm_*",
                                "-trace",      "runstate_set,file=t",
                                "-msg",        "timestamp=on",
                                "-device",     "isa-debug-exit,iobase=0xf4",
                                "-device",     "pvpanic"});
  EXPECT_EQ(options.ram.front()->id(), "ram0");
  EXPECT_EQ(options.machine.smp.sockets, 2U);
  EXPECT_EQ(options.machine.smp.cores, 2U);
  EXPECT_EQ(options.cpu_model, "max");
  EXPECT_EQ(options.machine.cmdline, "console=ttyS0 quiet,,x");
  EXPECT_EQ(options.machine.initrd, "i");
  EXPECT_EQ(options.guest_name, "one");
  EXPECT_EQ(options.process_name, "p");
  EXPECT_EQ(options.uuid, "550e8400-e29b-41d4-a716-446655440000");
  EXPECT_TRUE(options.machine.start_paused);
  EXPECT_TRUE(options.machine.no_shutdown);
  EXPECT_TRUE(options.machine.no_reboot);
  EXPECT_EQ(options.pidfile, "p");
  EXPECT_EQ(options.log_file, "log");
  EXPECT_EQ(options.log_items, static_cast<std::uint32_t>(log::Item::kUnimplemented));
  ASSERT_EQ(options.traces.size(), 2U);
  EXPECT_EQ(options.traces[0].pattern, "kvm_*");
  EXPECT_EQ(options.traces[1].pattern, "runstate_set");
  EXPECT_EQ(options.traces[1].file, "t");
  EXPECT_TRUE(options.timestamps);
  ASSERT_TRUE(options.machine.debug_exit);
  EXPECT_EQ(options.machine.debug_exit->iobase, 0xf4);
  EXPECT_EQ(options.machine.debug_exit->iosize, 2);
  EXPECT_TRUE(options.machine.pvpanic);
  EXPECT_TRUE(options.serial.empty());
  EXPECT_FALSE(options.monitor);
}

TEST(OptionsTest, MemorySizesAreReadAndRoundedAsInQemu) {
  const struct {
    const char* argument;
    std::uint64_t size;
  } cases[] = {
      {"256", 256ULL << 20},    {"256M", 256ULL << 20},
      {"size=1G", 1ULL << 30},  {"0", 128ULL << 20},
      {"1.5G", 3ULL << 29},     {"3145729b", (3ULL << 20) + 8192},
      {"0x10", 16ULL << 20},    {"1G,maxmem=1G", 1ULL << 30},
      {"1022G", 1022ULL << 30}, {"1G,slots=2,maxmem=4G", 1ULL << 30},
  };
  for (const auto& c : cases)
    EXPECT_EQ(Good({"-m", c.argument}).ram.front()->size(), c.size) << c.argument;
}

TEST(OptionsTest, SlotsAndMaxmemAreKeptForWhoAsks) {
  const struct {
    std::vector<const char*> arguments;
    std::uint64_t size, max_size, slots;
  } cases[] = {
      {{"-m", "1G,slots=2,maxmem=4G"}, 1ULL << 30, 4ULL << 30, 2},
      {{"-m", "1G", "-m", "slots=3,maxmem=2G"}, 1ULL << 30, 2ULL << 30, 3},
      {{"-machine", "memory.size=256M,memory.max-size=1G,memory.slots=4"},
       256ULL << 20,
       1ULL << 30,
       4},
      {{"-m", "1G"}, 1ULL << 30, 0, 0},
  };
  for (const auto& c : cases) {
    std::vector<const char*> arguments = {"-kernel", "k"};
    arguments.insert(arguments.end(), c.arguments.begin(), c.arguments.end());
    const auto options = ParseCommandLine(arguments);
    ASSERT_TRUE(options) << options.error().ToString();
    EXPECT_EQ(options->ram.front()->size(), c.size);
    EXPECT_EQ(options->machine.max_ram_size, c.max_size);
    EXPECT_EQ(options->machine.ram_slots, c.slots);
  }
}

TEST(OptionsTest, MemPathAndMemPreallocSayHowTheDefaultRamIsMade) {
  EXPECT_EQ(Good({}).ram.front()->type().name, "memory-backend-guest-memfd");
  const Options options = Good({"-mem-path", "/tmp", "-mem-prealloc", "-m", "2M"});
  EXPECT_EQ(options.ram.front()->id(), "pc.ram");
  EXPECT_EQ(options.ram.front()->type().name, "memory-backend-file");
  const auto prealloc = options.ram.front()->Get("prealloc");
  ASSERT_TRUE(prealloc);
  EXPECT_TRUE(std::get<bool>(*prealloc));
}

TEST(OptionsTest, TopologiesAreCompletedAsInQemu) {
  const struct {
    const char* argument;
    machine::CpuTopology t;
  } cases[] = {
      {"4", {4, 4, 1, 4, 1}},
      {"cpus=4", {4, 4, 1, 4, 1}},
      {"4,sockets=2", {4, 4, 2, 2, 1}},
      {"4,threads=2", {4, 4, 1, 2, 2}},
      {"4,cores=2", {4, 4, 2, 2, 1}},
      {"8,sockets=2,cores=2", {8, 8, 2, 2, 2}},
      {"2,maxcpus=8", {2, 8, 1, 8, 1}},
      {"sockets=2,cores=2,threads=2", {8, 8, 2, 2, 2}},
      {"maxcpus=4", {4, 4, 1, 4, 1}},
      {"255", {255, 255, 1, 255, 1}},
      {"4,dies=1,clusters=1", {4, 4, 1, 4, 1}},
  };
  for (const auto& c : cases) {
    const machine::CpuTopology smp = Good({"-smp", c.argument}).machine.smp;
    EXPECT_THAT((std::array{smp.cpus, smp.max_cpus, smp.sockets, smp.cores, smp.threads}),
                ElementsAre(c.t.cpus, c.t.max_cpus, c.t.sockets, c.t.cores, c.t.threads))
        << c.argument;
  }
}

TEST(OptionsTest, ConsolesHaveQemusDefaults) {
  const struct {
    std::vector<const char*> arguments;
    std::vector<std::string> serial;
    const char* monitor;  // "": none
  } cases[] = {
      {{}, {"mon:stdio"}, ""},
      {{"-nographic"}, {"mon:stdio"}, ""},
      {{"-display", "none"}, {"null"}, ""},
      {{"-daemonize"}, {"null"}, ""},
      {{"-nodefaults"}, {}, ""},
      {{"-nodefaults", "-nographic"}, {}, ""},
      {{"-nographic", "-monitor", "none"}, {"stdio"}, "none"},
      {{"-monitor", "stdio"}, {"null"}, "stdio"},
      {{"-serial", "file:x"}, {"file:x"}, ""},
      {{"-nographic", "-serial", "file:x"}, {"file:x"}, "stdio"},
      {{"-nographic", "-serial", "mon:stdio"}, {"mon:stdio"}, ""},
      {{"-nographic", "-serial", "stdio"}, {"stdio"}, ""},
      {{"-serial", "vc", "-serial", "none", "-serial", "pty"}, {"null", "none", "pty"}, ""},
  };
  for (const auto& c : cases) {
    std::vector<const char*> arguments = {"-kernel", "k"};
    arguments.insert(arguments.end(), c.arguments.begin(), c.arguments.end());
    const auto options = ParseCommandLine(arguments);
    ASSERT_TRUE(options) << options.error().ToString();
    EXPECT_EQ(options->serial, c.serial) << ::testing::PrintToString(c.arguments);
    EXPECT_EQ(options->monitor.value_or(""), c.monitor) << ::testing::PrintToString(c.arguments);
  }
}

TEST(OptionsTest, HelpIsAnsweredWhateverFollowsIt) {
  const struct {
    std::vector<const char*> arguments;
    const char* text;
  } cases[] = {
      {{"-help", "-nonsense"}, "usage: holdfast"},
      {{"-h"}, "-kernel file"},
      {{"-?"}, "-kernel file"},
      {{"--help"}, "-kernel file"},
      {{"-version"}, "Holdfast version "},
      {{"-machine", "help"}, "q35 "},
      {{"-M", "q35,help"}, "memory-backend=<str>"},
      {{"-cpu", "help"}, "host"},
      {{"-accel", "help"}, "kvm\n"},
      {{"-accel", "kvm,help"}, "device=<str>"},
      {{"-smp", "help"}, "maxcpus=<uint>"},
      {{"-object", "help"}, "memory-backend-guest-memfd"},
      {{"-object", "memory-backend-guest-memfd,help"}, "size=<size>"},
      {{"-device", "help"}, "isa-debug-exit"},
      {{"-device", "isa-debug-exit,help"}, "iobase=<uint>"},
      {{"-device", "pvpanic,help"}, "ioport=<uint>"},
      {{"-display", "help"}, "none"},
      {{"-d", "help"}, "guest_errors"},
      {{"-d", "trace:help"}, "kvm_set_user_memory"},
      {{"-trace", "help"}, "kvm_set_user_memory"},
      {{"-msg", "help"}, "timestamp=<bool>"},
      {{"-action", "help"}, "reboot=<reset|shutdown>"},
  };
  for (const auto& c : cases) {
    const auto options = ParseCommandLine(c.arguments);
    ASSERT_TRUE(options) << ::testing::PrintToString(c.arguments);
    ASSERT_TRUE(options->print) << ::testing::PrintToString(c.arguments);
    EXPECT_THAT(*options->print, HasSubstr(c.text));
  }
}

TEST(OptionsTest, AShortFormFlagOfMsgWarnsAsInQemu) {
  const Options options = Good({"-msg", "timestamp"});
  EXPECT_TRUE(options.timestamps);
  EXPECT_THAT(options.warnings, ElementsAre(HasSubstr("deprecated")));
}

TEST(OptionsTest, ParsingHasNoMemory) {
  Good({"-m", "1G", "-object", "memory-backend-guest-memfd,id=a,size=1M"});
  const Options options = Good({});
  EXPECT_EQ(options.objects.Find("a"), nullptr);
  EXPECT_EQ(options.ram.front()->size(), 128ULL << 20);
}

}  // namespace
}  // namespace holdfast::apps
