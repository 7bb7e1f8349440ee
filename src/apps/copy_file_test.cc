// SPDX-License-Identifier: Apache-2.0
#include "apps/copy_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include <holdfast/unique_fd.h>

namespace holdfast::apps {
namespace {

class CopyFileTest : public ::testing::Test {
 protected:
  CopyFileTest() {
    std::string name = ::testing::TempDir() + "copyXXXXXX";
    folder_ = ::mkdtemp(name.data());
  }
  ~CopyFileTest() override { std::filesystem::remove_all(folder_); }
  std::string Path(const char* name) const { return (folder_ / name).string(); }
  static std::string Content(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }

  std::filesystem::path folder_;
};

TEST_F(CopyFileTest, TheCopyHasTheSameContentsAndNoMoreBlocks) {
  constexpr off_t kSize = (64 << 20) + 123;
  {
    const UniqueFd fd(::open(Path("a").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::ftruncate(fd.get(), kSize), 0);
    const std::string data(3 << 20, 'x');
    ASSERT_EQ(::pwrite(fd.get(), data.data(), data.size(), 5 << 20),
              static_cast<ssize_t>(data.size()));
    ASSERT_EQ(::pwrite(fd.get(), "end", 3, kSize - 3), 3);
  }
  ASSERT_TRUE(CopyFile(Path("a"), Path("b")));
  EXPECT_TRUE(Content(Path("a")) == Content(Path("b")));
  struct stat info{};
  ASSERT_EQ(::stat(Path("b").c_str(), &info), 0);
  EXPECT_EQ(info.st_size, kSize);
  EXPECT_LT(info.st_blocks * 512, 8 << 20);
}

TEST_F(CopyFileTest, AnEmptyFileIsCopied) {
  std::ofstream(Path("a")).flush();
  ASSERT_TRUE(CopyFile(Path("a"), Path("b")));
  EXPECT_EQ(std::filesystem::file_size(Path("b")), 0U);
}

TEST_F(CopyFileTest, WhatCannotBeCopiedIsRefusedAndLeavesNothing) {
  std::ofstream(Path("a")) << "a";
  std::ofstream(Path("taken")) << "mine";
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);
  const struct {
    const char* from;
    const char* to;
    const char* says;
  } cases[] = {{"none", "b", "No such file"},
               {"pipe", "b", "it is no ordinary file"},
               {".", "b", "it is no ordinary file"},
               {"a", "taken", "File exists"},
               {"a", "none/b", "No such file"}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.from);
    const Status copied = CopyFile(Path(c.from), Path(c.to));
    ASSERT_FALSE(copied);
    EXPECT_THAT(copied.error().ToString(), ::testing::HasSubstr(c.says));
    EXPECT_FALSE(std::filesystem::exists(Path("b")));
  }
  EXPECT_EQ(Content(Path("taken")), "mine");
}

}  // namespace
}  // namespace holdfast::apps
