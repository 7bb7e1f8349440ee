// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/boot_source.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

namespace holdfast::machine::boot {
namespace {

using ::testing::HasSubstr;

class BootSourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "boot_source_XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  std::string File(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name)) << text;
    return Path(name);
  }
  std::string folder_;
};

TEST_F(BootSourceTest, NamesRoleAndPathOfWhatCannotBeBooted) {
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);
  const std::string file = File("file", "x");
  const struct {
    const char* why;
    std::string path;
    Errc code;
    const char* says;
  } kCases[] = {
      {"missing", Path("none"), Errc::kNotFound, "does not exist"},
      {"behind a file", file + "/x", Errc::kNotFound, "does not exist"},
      {"a directory", folder_, Errc::kInvalidArgument, "is a directory"},
      {"empty", File("empty", ""), Errc::kInvalidArgument, "is empty"},
      {"a pipe, without hanging", Path("pipe"), Errc::kInvalidArgument, "is a pipe"},
      {"a device", "/dev/null", Errc::kInvalidArgument, "is a device"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    const auto kernel = OpenBootSource(c.path, "", "");
    ASSERT_FALSE(kernel);
    EXPECT_EQ(kernel.error().code(), c.code);
    EXPECT_EQ(kernel.error().message().find("kernel '" + c.path + "' " + c.says), 0u)
        << kernel.error().message();
    const auto initrd = OpenBootSource(file, c.path, "");
    ASSERT_FALSE(initrd);
    EXPECT_EQ(initrd.error().message().find("initrd '" + c.path + "' " + c.says), 0u)
        << initrd.error().message();
  }
}

TEST_F(BootSourceTest, SaysThatAFileMayNotBeRead) {
  const std::string path = File("secret", "x");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  ASSERT_EQ(::chmod(folder_.c_str(), 0755), 0);
  // Root may read every file: be nobody for the moment.
  const uid_t self = ::geteuid();
  constexpr uid_t kNobody = 65534;
  ASSERT_EQ(::seteuid(self == 0 ? kNobody : self), 0);
  const auto source = OpenBootSource(path, "", "");
  ASSERT_EQ(::seteuid(self), 0);
  ASSERT_FALSE(source);
  EXPECT_EQ(source.error().code(), Errc::kPermission);
  EXPECT_THAT(source.error().message(), HasSubstr("may not be read"));
}

TEST_F(BootSourceTest, RefusesAZeroByteInTheCommandLine) {
  const auto source = OpenBootSource(File("k", "x"), "", std::string("a\0b", 3));
  ASSERT_FALSE(source);
  EXPECT_THAT(source.error().message(), HasSubstr("zero byte"));
}

TEST_F(BootSourceTest, KeepsTheFilesOpenAndCloseOnExec) {
  auto source = OpenBootSource(File("k", "kernel"), File("i", "initrd!"), "quiet");
  ASSERT_TRUE(source) << source.error().ToString();
  EXPECT_EQ(source->kernel.size, 6u);
  ASSERT_TRUE(source->initrd);
  EXPECT_EQ(source->initrd->size, 7u);
  EXPECT_EQ(source->cmdline, "quiet");
  EXPECT_NE(::fcntl(source->kernel.fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  std::array<std::byte, 16> buffer;
  const auto length = ReadSome(source->kernel, 3, buffer);
  ASSERT_TRUE(length);
  EXPECT_EQ(*length, 3u);
  EXPECT_EQ(buffer[0], std::byte{'n'});
}

}  // namespace
}  // namespace holdfast::machine::boot
