// SPDX-License-Identifier: Apache-2.0
// Wrong command lines: each gives one sentence that names option and value.
#include <gtest/gtest.h>

#include "apps/options.h"

namespace holdfast::apps {
namespace {

struct Case {
  std::vector<const char*> arguments;
  const char* message;  // all of it
};

void Check(const std::vector<Case>& cases, bool needs_hint = true) {
  for (const Case& c : cases) {
    std::vector<const char*> arguments = {"-kernel", "k"};
    arguments.insert(arguments.end(), c.arguments.begin(), c.arguments.end());
    const auto options = ParseCommandLine(arguments);
    ASSERT_FALSE(options) << ::testing::PrintToString(c.arguments);
    EXPECT_EQ(options.error().message(), c.message);
    EXPECT_EQ(options.error().message().find('\n'), std::string::npos);
    if (needs_hint) {
      EXPECT_FALSE(options.error().hint().empty()) << c.message;
    }
  }
}

TEST(OptionsErrorTest, WordsThatAreNoOptions) {
  Check({
      {{""}, ": Device needs media, but drive is empty"},
      {{"-"}, "-: invalid option"},
      {{"--"}, "-: invalid option"},
      {{"-kernal", "x"}, "-kernal: invalid option"},
      {{"-S=1"}, "-S=1: invalid option"},
      {{"-m=1G"}, "-m=1G: invalid option"},
      {{"-pflash", "x"}, "-pflash: QEMU has this option, Holdfast does not have it yet"},
      {{"--tpmdev"}, "-tpmdev: QEMU has this option, Holdfast does not have it yet"},
      {{"-m"}, "-m: requires an argument"},
  });
  EXPECT_EQ(ParseCommandLine(std::vector<const char*>{"-kernal"}).error().hint(),
            "Did you mean -kernel?");
  EXPECT_EQ(ParseCommandLine(std::vector<const char*>{"-nograpic"}).error().hint(),
            "Did you mean -nographic?");
}

TEST(OptionsErrorTest, MachineAcceleratorAndCpu) {
  Check({
      {{"-accel", "tcg"}, "-accel tcg: guest-memfd requires KVM accelerator"},
      {{"-accel", "tcg,thread=multi"},
       "-accel tcg,thread=multi: guest-memfd requires KVM accelerator"},
      {{"-machine", "q35,accel=tcg:kvm"},
       "-machine q35,accel=tcg:kvm: guest-memfd requires KVM accelerator"},
      {{"-accel", "foo"}, "-accel foo: invalid accelerator foo"},
      {{"-accel", "kvm,foo=1"}, "-accel kvm,foo=1: Invalid parameter 'foo'"},
      {{"-accel", "kvm,dirty-ring-size=1000"},
       "-accel kvm,dirty-ring-size=1000: dirty-ring-size must be a power of two from 1024 to "
       "65536, "
       "not 1000"},
      {{"-accel", "kvm,dirty-ring-size=512"},
       "-accel kvm,dirty-ring-size=512: dirty-ring-size must be a power of two from 1024 to 65536, "
       "not 512"},
      {{"-accel", "kvm,dirty-ring-size=131072"},
       "-accel kvm,dirty-ring-size=131072: dirty-ring-size must be a power of two from 1024 to "
       "65536, not 131072"},
      {{"-accel", "kvm,kernel-irqchip=split"},
       "-accel kvm,kernel-irqchip=split: Parameter 'kernel-irqchip' does not accept value 'split'"},
      {{"-machine", "foo"}, "-machine foo: unsupported machine type 'foo'"},
      {{"-M", "pc"}, "-M pc: QEMU has the machine type 'pc', Holdfast does not have it"},
      {{"-M", "pc-q35-8.2"},
       "-M pc-q35-8.2: QEMU has the machine type 'pc-q35-8.2', Holdfast does not have it"},
      {{"-machine", "q35,foo=on"}, "-machine q35,foo=on: Invalid parameter 'foo'"},
      {{"-machine", "usb=on"}, "-machine usb=on: Parameter 'usb' does not accept value 'on'"},
      {{"-machine", "memory-backend=nope"},
       "-machine memory-backend=nope: Memory backend 'nope' not found"},
      {{"-cpu", "foo"}, "-cpu foo: unable to find CPU model 'foo'"},
      {{"-cpu", "EPYC-Milan"},
       "-cpu EPYC-Milan: QEMU has the CPU model 'EPYC-Milan', Holdfast does not have it yet"},
      {{"-cpu", "host,+avx"}, "-cpu host,+avx: Holdfast does not have the CPU property '+avx' yet"},
  });
}

TEST(OptionsErrorTest, Topology) {
  constexpr const char* kZero =
      "Invalid CPU topology: CPU topology parameters must be greater than zero";
  const std::string zero = std::string("-smp 0: ") + kZero;
  const std::string zero_cores = std::string("-smp 4,cores=0: ") + kZero;
  Check({
      {{"-smp", "0"}, zero.c_str()},
      {{"-smp", "4,cores=0"}, zero_cores.c_str()},
      {{"-smp", "256"},
       "-smp 256: Invalid SMP CPUs 256. The max CPUs supported by machine 'q35' is 255"},
      {{"-smp", "2,maxcpus=300"},
       "-smp 2,maxcpus=300: Invalid SMP CPUs 300. The max CPUs supported by machine 'q35' is 255"},
      {{"-smp", "x"}, "-smp x: Parameter 'cpus' expects a uint64 value"},
      {{"-smp", "-1"}, "-smp -1: Parameter 'cpus' expects a uint64 value"},
      {{"-smp", "4,sockets=3"},
       "-smp 4,sockets=3: Invalid CPU topology: product of the hierarchy must match maxcpus: "
       "sockets (3) * cores (1) * threads (1) != maxcpus (4)"},
      {{"-smp", "4,maxcpus=2"},
       "-smp 4,maxcpus=2: Invalid CPU topology: maxcpus must be equal to or greater than smp: "
       "sockets (1) * cores (2) * threads (1) == maxcpus (2) < smp_cpus (4)"},
      {{"-smp", "4,dies=2"}, "-smp 4,dies=2: Value '2' is out of range for parameter 'dies'"},
      {{"-smp", "4,foo=1"}, "-smp 4,foo=1: Invalid parameter 'foo'"},
      {{"-smp", "65535,sockets=65535,cores=65535,threads=65535"},
       "-smp 65535,sockets=65535,cores=65535,threads=65535: Invalid CPU topology: product of the "
       "hierarchy must match maxcpus: sockets (65535) * cores (65535) * threads (65535) != maxcpus "
       "(65535)"},
  });
}

TEST(OptionsErrorTest, Memory) {
  Check({
      {{"-m", "abc"}, "-m abc: Parameter 'size' expects a non-negative number below 2^64"},
      {{"-m", "1.5.5"}, "-m 1.5.5: Value '1.5.5' is out of range for parameter 'size'"},
      {{"-m", "-5"}, "-m -5: Value '-5' is out of range for parameter 'size'"},
      {{"-m", "16E"}, "-m 16E: Value '16E' is out of range for parameter 'size'"},
      {{"-m", "1G,slots=1"}, "-m 1G,slots=1: slots specified but no max-size"},
      {{"-m", "1G,maxmem=1M"},
       "-m 1G,maxmem=1M: invalid value of maxmem: maximum memory size (0x100000) must be at least "
       "the initial memory size (0x40000000)"},
      {{"-m", "1G,slots=1,maxmem=1G"},
       "-m 1G,slots=1,maxmem=1G: invalid value of maxmem: memory slots were specified but maximum "
       "memory size (0x40000000) is equal to the initial memory size (0x40000000)"},
      {{"-m", "1G,slots=300,maxmem=2G"},
       "-m 1G,slots=300,maxmem=2G: unsupported amount of memory slots: 300"},
      {{"-m", "1G,slots=x,maxmem=2G"},
       "-m 1G,slots=x,maxmem=2G: Parameter 'slots' expects a number"},
      {{"-m", "1G,slots=2,maxmem=2049"},
       "-m 1G,slots=2,maxmem=2049: invalid value of maxmem: maximum memory size (0x801) must be at "
       "least the initial memory size (0x40000000)"},
      {{"-m", "1G,slots=2,maxmem=1073741825"},
       "-m 1G,slots=2,maxmem=1073741825: maximum memory size must by aligned to multiple of 4096 "
       "bytes"},
      {{"-machine", "memory.size=1G,memory.slots=2"},
       "-machine memory.slots=: slots specified but no max-size"},
      {{"-machine", "memory.size=x"},
       "-machine memory.size=x: Parameter 'memory.size' expects a size value"},
      {{"-object", "memory-backend-guest-memfd,id=a,size=1G", "-machine", "memory-backend=a",
        "-mem-path", "/tmp"},
       "'-mem-path' can't be used together with'-machine memory-backend'"},
      {{"-m", "foo=1"}, "-m foo=1: Invalid parameter 'foo'"},
      {{"-m", "2T"}, "-m: RAM size 2 TiB does not fit the guest's address space of 1 TiB"},
      {{"-m", "8E"}, "-m: RAM size 8 EiB does not fit the guest's address space of 1 TiB"},
      {{"-object", "memory-backend-guest-memfd,id=a,size=0"},
       "-object memory-backend-guest-memfd,id=a,size=0: can't create backend with size 0"},
      {{"-object", "memory-backend-guest-memfd,id=a,size=1M,share=off"},
       "-object memory-backend-guest-memfd,id=a,size=1M,share=off: can't create backend with "
       "share=off"},
      {{"-object", "memory-backend-guest-memfd,id=a,size=1M", "-object",
        "memory-backend-guest-memfd,id=a,size=1M"},
       "-object memory-backend-guest-memfd,id=a,size=1M: attempt to add duplicate property 'a' to "
       "object (type 'container')"},
      {{"-object", "memory-backend-guest-memfd,id=pc.ram,size=1M"},
       "object's id 'pc.ram' is reserved for the default RAM backend, it can't be used for any "
       "other purposes"},
      {{"-object", "memory-backend-guest-memfd,id=a,size=1G", "-machine", "memory-backend=a", "-m",
        "2G"},
       "Machine memory size does not match the size of the memory backend"},
  });
}

TEST(OptionsErrorTest, ConsolesAndDevices) {
  Check({
      {{"-serial", "null", "-serial", "null", "-serial", "null", "-serial", "null", "-serial",
        "null"},
       "-serial null: too many serial ports"},
      {{"-serial", "stdio", "-monitor", "stdio"}, "cannot use stdio by multiple character devices"},
      {{"-serial", "mon:stdio", "-serial", "stdio"},
       "cannot use stdio by multiple character devices"},
      {{"-daemonize", "-nographic"}, "-nographic cannot be used with -daemonize"},
      {{"-daemonize", "-serial", "stdio"}, "cannot use stdio with -daemonize"},
      {{"-display", "gtk,gl=on"},
       "-display gtk,gl=on: QEMU has the display 'gtk', Holdfast has none at all"},
      {{"-display", "x"}, "-display x: Parameter 'type' does not accept value 'x'"},
      {{"-vga", "std"}, "-vga std: QEMU has the graphics adapter 'std', Holdfast has none at all"},
      {{"-vga", "x"}, "-vga x: unknown vga type: x"},
      {{"-device", "foo"}, "-device foo: 'foo' is not a valid device model name"},
      {{"-device", "isa-debug-exit,iobase=0x10000"},
       "-device isa-debug-exit,iobase=0x10000: Value '0x10000' is out of range for parameter "
       "'iobase'"},
      {{"-device", "isa-debug-exit,iobase=0xffff"},
       "-device isa-debug-exit,iobase=0xffff: I/O ports 0xffff and the 2 behind it are not all "
       "ports"},
      {{"-device", "pvpanic,foo=1"}, "-device pvpanic,foo=1: Invalid parameter 'foo'"},
      {{"-device", ""}, "-device : Parameter 'driver' is missing"},
  });
}

TEST(OptionsErrorTest, RunAndDebug) {
  Check({
      {{"-uuid", "xx"}, "-uuid xx: failed to parse UUID string: wrong format"},
      {{"-action", "panic=run"},
       "-action panic=run: Parameter 'panic' does not accept value 'run'"},
      {{"-action", "watchdog=bark"},
       "-action watchdog=bark: Parameter 'watchdog' does not accept value 'bark'"},
      {{"-watchdog-action", "bark"},
       "-watchdog-action bark: Parameter 'watchdog' does not accept value 'bark'"},
      {{"-action", "foo=1"}, "-action foo=1: Invalid parameter 'foo'"},
      {{"-name", "a,foo=1"}, "-name a,foo=1: Invalid parameter 'foo'"},
      {{"-msg", "timestamp=maybe"},
       "-msg timestamp=maybe: Parameter 'timestamp' expects 'on' or 'off'"},
      {{"-d", "foo"}, "-d foo: invalid log item 'foo'"},
      {{"-d", "in_asm"}, "-d in_asm: QEMU has the log item 'in_asm', Holdfast does not have it"},
      {{"-trace", "a,foo=1"}, "-trace a,foo=1: Invalid parameter 'foo'"},
  });
}

TEST(OptionsErrorTest, WithoutAKernelThereIsNothingToRun) {
  const struct {
    std::vector<const char*> arguments;
    const char* message;
  } cases[] = {
      {{}, "no kernel given, so there is nothing to run"},
      {{"-append", "x"}, "-append only allowed with -kernel option"},
      {{"-initrd", "x"}, "-initrd only allowed with -kernel option"},
  };
  for (const auto& c : cases) {
    const auto options = ParseCommandLine(c.arguments);
    ASSERT_FALSE(options);
    EXPECT_EQ(options.error().message(), c.message);
    EXPECT_FALSE(options.error().hint().empty());
  }
}

}  // namespace
}  // namespace holdfast::apps
