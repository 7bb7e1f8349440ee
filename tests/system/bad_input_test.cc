// SPDX-License-Identifier: Apache-2.0
// Everything a person may get wrong on the command line: one clear sentence that names it, exit
// status 1, no crash, the terminal as it was.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "holdfast/kvm_abi.h"
#include "system/fixture.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class BadInput : public SystemTest {
 protected:
  // Runs the line and expects it to be refused in one sentence that has all of `words` in it.
  void ExpectRefused(const Arguments& line, const std::vector<std::string>& words,
                     MonitorProcess::Options options = {}) {
    options.terminal = true;
    MonitorProcess monitor(line, options);
    EXPECT_ENDS(monitor, 1);
    SCOPED_TRACE(monitor.Describe());
    const std::string& errors = monitor.errors();
    EXPECT_THAT(errors, StartsWith("holdfast: "));
    EXPECT_EQ(std::ranges::count(errors, '\n'), 1) << "not one line";
    for (const std::string& word : words) EXPECT_THAT(errors, HasSubstr(word));
    for (const char* word : {"Abort", "assert", "errno", "terminate", "Sanitizer", "0x0 bytes"})
      EXPECT_THAT(errors, Not(HasSubstr(word)));
    EXPECT_EQ(monitor.output(), "");
    EXPECT_TRUE(monitor.TerminalIsAsBefore());
  }

  // A line that is right except for `rest`.
  static Arguments WithHello(const Arguments& rest) {
    return Arguments{"-nographic", "-kernel", HelloPath()} + rest;
  }
  static Arguments WithObject(const std::string& properties) {
    return WithHello({"-object", "memory-backend-guest-memfd," + properties});
  }
};

struct Row {
  const char* name;  // part of the failure's text
  Arguments line;
  std::vector<std::string> words;
};

TEST_F(BadInput, Options) {
  const Row rows[] = {
      {"unknown option", {"-frobnicate"}, {"-frobnicate"}},
      {"unknown option, long form", {"--frobnicate"}, {"-frobnicate"}},
      {"typo", {"-kernal", "x"}, {"-kernal", "-kernel"}},
      {"typo in the long form", {"--no-rebot"}, {"-no-rebot", "-no-reboot"}},
      {"no argument", {"-kernel", HelloPath(), "-m"}, {"-m", "argument"}},
      {"an image that is not there",
       {"-kernel", HelloPath(), "stray.img"},
       {"stray.img", "No such file or directory"}},
      {"QEMU has it: flash", {"-pflash", "disk.img"}, {"-pflash", "QEMU"}},
      {"QEMU has it: format", {"-drive", "file=x,format=luks"}, {"-drive", "luks", "qcow2"}},
      {"QEMU has it: network", {"-netdev", "l2tpv3,id=n"}, {"-netdev", "l2tpv3"}},
      {"a network without an id", {"-netdev", "user"}, {"-netdev", "id"}},
      {"nothing to boot", {"-nographic"}, {"-kernel"}},
      {"-append without a kernel", {"-append", "quiet"}, {"-append", "-kernel"}},
      {"-initrd without a kernel", {"-initrd", HelloPath()}, {"-initrd", "-kernel"}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    ExpectRefused(row.line, row.words);
  }
}

TEST_F(BadInput, Memory) {
  const Row rows[] = {
      {"backend of size 0", WithObject("id=ram0,size=0"), {"can't create backend with size 0"}},
      {"backend without size", WithObject("id=ram0"), {"size"}},
      {"share=off",
       WithObject("id=ram0,size=32M,share=off"),
       {"can't create backend with share=off"}},
      {"negative backend", WithObject("id=ram0,size=-1M"), {"size", "-1M"}},
      {"not a size", WithObject("id=ram0,size=lots"), {"size", "lots"}},
      {"not a page multiple", WithObject("id=ram0,size=4097"), {"size", "4097"}},
      {"more than 64 bits", WithObject("id=ram0,size=99999999999999999999"), {"size", "9999999"}},
      {"-m negative", WithHello({"-m", "-5"}), {"-m", "-5"}},
      {"-m not a size", WithHello({"-m", "much"}), {"-m", "much"}},
      {"-m without a unit we know", WithHello({"-m", "5X"}), {"-m", "5X"}},
      {"-m beyond the address space", WithHello({"-m", "2T"}), {"-m", "1 TiB"}},
      {"-m beyond 64 bits", WithHello({"-m", "16E"}), {"-m", "16E"}},
      {"-m and the backend differ",
       WithObject("id=ram0,size=64M") + Arguments{"-machine", "memory-backend=ram0", "-m", "32M"},
       {"-m", "ram0"}},
      {"backend beyond the address space",
       WithObject("id=ram0,size=2T") + Arguments{"-machine", "memory-backend=ram0", "-m", "2T"},
       {"1 TiB"}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    ExpectRefused(row.line, row.words);
  }
}

TEST_F(BadInput, Objects) {
  const Row rows[] = {
      {"unknown object, a typo",
       WithHello({"-object", "memory-backend-guest-memfs,id=a,size=1M"}),
       {"memory-backend-guest-memfs", "memory-backend-guest-memfd"}},
      {"unknown object", WithHello({"-object", "zebra,id=a"}), {"zebra"}},
      {"unknown property, a typo", WithObject("id=a,size=1M,bnid=on"), {"bnid", "bind"}},
      {"bad value", WithObject("id=a,size=1M,bind=perhaps"), {"bind", "perhaps"}},
      {"no id", WithObject("size=1M"), {"id"}},
      {"bad id", WithObject("id=1 2,size=1M"), {"id", "1 2"}},
      {"no type", WithHello({"-object", "id=a,size=1M"}), {"-object"}},
      {"two with one id",
       WithObject("id=twin,size=1M") +
           Arguments{"-object", "memory-backend-guest-memfd,id=twin,size=1M"},
       {"twin"}},
      {"a backend that nobody made",
       WithHello({"-machine", "q35,memory-backend=nosuch"}),
       {"memory-backend", "nosuch"}},
      {"unknown machine, a typo", WithHello({"-machine", "q53"}), {"-machine", "q53"}},
      {"unknown machine", WithHello({"-machine", "amiga"}), {"-machine", "amiga"}},
      {"unknown machine property", WithHello({"-machine", "q35,colour=red"}), {"colour"}},
      {"unknown CPU, a typo", WithHello({"-cpu", "hots"}), {"-cpu", "hots"}},
      {"unknown CPU", WithHello({"-cpu", "z80"}), {"-cpu", "z80"}},
      {"unknown device", WithHello({"-device", "toaster"}), {"-device", "toaster"}},
      {"unknown device property",
       WithHello({"-device", "isa-debug-exit,iobas=0x501"}),
       {"iobas", "iobase"}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    ExpectRefused(row.line, row.words);
  }
}

TEST_F(BadInput, Processors) {
  const Row rows[] = {
      {"none", WithHello({"-smp", "0"}), {"-smp", "0"}},
      {"too many", WithHello({"-smp", "256"}), {"-smp", "256", "255"}},
      {"negative", WithHello({"-smp", "-1"}), {"-smp", "-1"}},
      {"not a number", WithHello({"-smp", "few"}), {"-smp", "few"}},
      {"topology that does not come out", WithHello({"-smp", "4,sockets=3"}), {"-smp"}},
      {"fewer at most than at first", WithHello({"-smp", "4,maxcpus=2"}), {"-smp", "maxcpus"}},
      {"unknown part", WithHello({"-smp", "4,legs=2"}), {"legs"}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    ExpectRefused(row.line, row.words);
  }
}

TEST_F(BadInput, Accelerators) {
  const Row rows[] = {
      {"tcg", WithHello({"-accel", "tcg"}), {"guest-memfd requires KVM accelerator"}},
      {"machine's tcg",
       WithHello({"-machine", "q35,accel=tcg"}),
       {"guest-memfd requires KVM accelerator"}},
      {"unknown", WithHello({"-accel", "warp"}), {"-accel", "warp"}},
      {"missing device",
       WithHello({"-accel", "kvm,device=" + Path("nonexistent")}),
       {Path("nonexistent"), "No such file or directory"}},
      {"not KVM", WithHello({"-accel", "kvm,device=/dev/null"}), {"'/dev/null' is not a KVM"}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    ExpectRefused(row.line, row.words);
  }
}

TEST_F(BadInput, Places) {
  const std::string nowhere = Path("no/such/folder/x");
  const Row rows[] = {
      {"unknown serial", WithHello({"-serial", "pigeon"}), {"-serial", "pigeon"}},
      {"serial file nowhere", WithHello({"-serial", "file:" + nowhere}), {nowhere}},
      {"serial socket nowhere",
       WithHello({"-serial", "unix:" + nowhere + ",server=on,wait=off"}),
       {nowhere}},
      {"pid file nowhere", WithHello({"-pidfile", nowhere}), {nowhere}},
      {"log nowhere", WithHello({"-D", nowhere, "-d", "guest_errors"}), {nowhere}},
      {"unknown log item", WithHello({"-d", "weather"}), {"-d", "weather"}},
      {"bad UUID", WithHello({"-uuid", "1234"}), {"-uuid", "1234"}},
      {"unknown display", WithHello({"-display", "holodeck"}), {"-display", "holodeck"}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    ExpectRefused(row.line, row.words);
  }
}

// ---- Kernels and initrds
// ---------------------------------------------------------------------------

// The beginning of a bzImage: a real one where there is one, else a made-up header that promises
// more than follows.
std::string BzImageStart() {
  if (const char* kernel = std::getenv("HOLDFAST_KERNEL")) return ReadAll(kernel).substr(0, 65536);
  std::string image(65536, '\0');
  const auto put = [&](std::size_t at, std::uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) image[at + i] = static_cast<char>(value >> (8 * i) & 0xff);
  };
  put(0x1f1, 4, 1);           // setup_sects
  put(0x1f4, 0x100000, 4);    // syssize: 16 MiB
  put(0x1fe, 0xaa55, 2);      // boot_flag
  put(0x200, 0x6aeb, 2);      // jump
  put(0x202, 0x53726448, 4);  // "HdrS"
  put(0x206, 0x20f, 2);       // version
  put(0x211, 1, 1);           // LOADED_HIGH
  put(0x230, 0x200000, 4);    // kernel_alignment
  put(0x234, 1, 1);           // relocatable
  put(0x236, 3, 2);           // 64-bit entry, above 4 GiB
  put(0x238, 2047, 4);        // cmdline_size
  put(0x258, 0x1000000, 8);   // pref_address
  put(0x260, 0x2000000, 4);   // init_size
  return image;
}

TEST_F(BadInput, Kernels) {
  const std::string text = MakeFile("notes.txt", std::string(10000, 'x') + "\nnot a kernel\n");
  const std::string folder = Path("folder");
  ::mkdir(folder.c_str(), 0755);
  const std::string missing = Path("missing");
  const Row rows[] = {
      {"missing", {"-kernel", missing}, {missing, "does not exist"}},
      {"a folder", {"-kernel", folder}, {folder, "directory"}},
      {"a text file", {"-kernel", text}, {text}},
      {"a device", {"-kernel", "/dev/null"}, {"/dev/null"}},
      {"a program of this machine", {"-kernel", "/proc/self/exe"}, {"/proc/self/exe"}},
      {"an empty name", {"-kernel", ""}, {"-kernel"}},
      {"missing initrd", WithHello({"-initrd", missing}), {missing, "does not exist"}},
      {"a folder as initrd", WithHello({"-initrd", folder}), {folder, "directory"}},
      {"RAM ends before the kernel", WithHello({"-m", "1M"}), {HelloPath()}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    ExpectRefused(row.line + Arguments{"-nographic"}, row.words);
  }
}

TEST_F(BadInput, TruncatedBzImages) {
  const std::string image = BzImageStart();
  constexpr std::size_t kLengths[] = {0,     1,     2,     0x1f0, 0x1f1, 0x1fe, 0x200, 0x201,
                                      0x206, 0x238, 0x268, 1024,  2560,  2561,  4096,  65536};
  for (const std::size_t length : kLengths) {
    SCOPED_TRACE(length);
    const std::string path = MakeFile("truncated", image.substr(0, length));
    ExpectRefused({"-kernel", path, "-nographic", "-m", "128M"}, {path});
  }
}

TEST_F(BadInput, TruncatedElfs) {
  const std::string image = ReadAll(HelloPath());
  ASSERT_GT(image.size(), 4096U);
  constexpr std::size_t kLengths[] = {4, 16, 51, 52, 63, 64, 84, 115, 116, 4000, 4096};
  for (const std::size_t length : kLengths) {
    SCOPED_TRACE(length);
    const std::string path = MakeFile("truncated", image.substr(0, length));
    ExpectRefused({"-kernel", path, "-nographic"}, {path});
  }
}

TEST_F(BadInput, InitrdLargerThanRam) {
  const std::string initrd = MakeFile("initrd", "");
  ASSERT_EQ(::truncate(initrd.c_str(), 1 << 30), 0);
  ExpectRefused(WithHello({"-initrd", initrd, "-m", "64M"}), {initrd});
}

TEST_F(BadInput, FilesThatMayNotBeRead) {
  const std::string secret = MakeFile("secret", "not for everyone");
  ASSERT_EQ(::chmod(secret.c_str(), 0), 0);
  MonitorProcess::Options options;
  options.obey_file_modes = true;
  ExpectRefused({"-kernel", secret, "-nographic"}, {secret, "may not be read"}, options);
  ExpectRefused(WithHello({"-initrd", secret}), {secret, "may not be read"}, options);
  ExpectRefused(WithHello({"-accel", "kvm,device=" + secret}), {secret, "Permission denied"},
                options);
}

TEST_F(BadInput, KernelsWithoutGuestMemfd) {
  const struct {
    int hidden;
    const char* message;
  } cases[] = {
      {kvm::abi::kCapGuestMemfd, "KVM does not support guest_memfd"},
      {kvm::abi::kCapGuestMemfdFlags, "KVM does not support using guest_memfd for shared memory"},
  };
  for (const auto& c : cases) {
    MonitorProcess::Options options;
    options.hidden_capabilities = {c.hidden};
    ExpectRefused(WithHello({}), {c.message, "Linux 6."}, options);
    ExpectRefused(
        WithObject("id=ram0,size=32M") + Arguments{"-machine", "memory-backend=ram0", "-m", "32M"},
        {c.message, "Linux 6."}, options);
  }
}

}  // namespace
}  // namespace holdfast::test
