// SPDX-License-Identifier: Apache-2.0
#include "devices/block/image_program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include <holdfast/unique_fd.h>

namespace holdfast::devices::block {
namespace {

using ::testing::HasSubstr;

// A folder of files that the program is to leave alone, and one it may write.
class ImageProgramTest : public ::testing::Test {
 protected:
  ImageProgramTest()
      : folder_(std::filesystem::current_path() / fmt::format("programs_{}", ::getpid())) {
    std::filesystem::create_directories(folder_);
    std::ofstream(Path("may")) << "old";
    std::ofstream(Path("must_not")) << "old";
  }
  ~ImageProgramTest() override { std::filesystem::remove_all(folder_); }
  std::string Path(const char* name) const { return (folder_ / name).string(); }
  std::string Read(const char* name) const {
    std::ifstream file(Path(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static ImageProgram Shell(std::string script) {
    return {.arguments = {"sh", "-c", std::move(script)},
            .descriptors = {},
            .writable = {},
            .user = {},
            .outlives_terminal = false};
  }
  static bool HasLandlock() {
    return ::syscall(SYS_landlock_create_ruleset, nullptr, 0U, LANDLOCK_CREATE_RULESET_VERSION) > 0;
  }

  const std::filesystem::path folder_;
};

TEST_F(ImageProgramTest, HasItsDescriptorsAndNoOthers) {
  // The numbers in the child are taken here, by others.
  const UniqueFd first(::open(Path("may").c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd second(::open(Path("must_not").c_str(), O_RDONLY));
  ImageProgram program =
      Shell("test \"$(cat <&3)\" = new && test \"$(cat <&4)\" = old && ! test -e /proc/self/fd/5");
  std::ofstream(Path("may")) << "new";
  program.descriptors = {first.get(), second.get()};
  EXPECT_TRUE(RunToEnd(program));
  std::swap(program.descriptors[0], program.descriptors[1]);
  EXPECT_FALSE(RunToEnd(program)) << "in their order";
}

TEST_F(ImageProgramTest, WritesOnlyWhatItIsGiven) {
  if (!HasLandlock()) GTEST_SKIP() << "this kernel has no Landlock";
  const UniqueFd given(::open(Path("given").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ImageProgram program = Shell(
      fmt::format("cd {}; echo new >may; echo new >/dev/fd/3; cat must_not >/dev/null || exit 1; "
                  "(echo bad >must_not); (echo bad >made); rm -f must_not; mkdir folder; exit 0",
                  folder_.string()));
  program.descriptors = {given.get()};
  program.writable = {Path("may")};
  EXPECT_TRUE(RunToEnd(program));
  EXPECT_EQ(Read("may"), "new\n");
  EXPECT_EQ(Read("given"), "new\n");
  EXPECT_EQ(Read("must_not"), "old");
  EXPECT_FALSE(std::filesystem::exists(Path("made")));
  EXPECT_FALSE(std::filesystem::exists(Path("folder")));
}

TEST_F(ImageProgramTest, BecomesTheUserWithItsGroups) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  ImageProgram program = Shell(
      "test \"$(id -u)\" = 65534 && test \"$(id -g)\" = 65533 && test \"$(id -G)\" = '65533 7' && "
      "grep -q '^CapEff:.0*$' /proc/self/status && grep -q '^CapPrm:.0*$' /proc/self/status");
  program.user = ProgramUser{.uid = 65534, .gid = 65533, .groups = {65533, 7}};
  const Status ran = RunToEnd(program);
  EXPECT_TRUE(ran) << ran.error().ToString();
}

TEST_F(ImageProgramTest, TellsAFailureFromAProgramThatIsNotThere) {
  const Status failed = RunToEnd(Shell("exit 3"));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), Errc::kInvalidArgument);
  ImageProgram program = Shell("");
  program.arguments = {"/no/such/program"};
  const Status missing = RunToEnd(program);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), Errc::kNotFound);
  EXPECT_THAT(missing.error().message(), HasSubstr("/no/such/program cannot be started"));
  program.descriptors.assign(9, 0);
  EXPECT_FALSE(RunToEnd(program));
}

}  // namespace
}  // namespace holdfast::devices::block
