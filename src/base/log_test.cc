// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <sstream>

namespace holdfast {
namespace {

std::string Slurp(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

class LogTest : public ::testing::Test {
 protected:
  void TearDown() override {
    log::SetTimestamps(false);
    log::SetGuestName("");
    EXPECT_TRUE(log::SetFile(""));
  }
};

TEST_F(LogTest, AnErrorIsPrintedInQemusFormWithItsRemedyBehind) {
  ::testing::internal::CaptureStderr();
  log::Error(Error(Errc::kInvalidArgument, "-m: no", "Say yes."));
  log::Warn("careful");
  log::Info("by the way");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "holdfast: -m: no. Say yes.\nholdfast: warning: careful\nholdfast: info: by the way\n");
}

TEST_F(LogTest, TimestampsAreIsoInUtcWithMicroseconds) {
  log::SetTimestamps(true);
  log::SetGuestName("g1");
  ::testing::internal::CaptureStderr();
  log::Error("text");
  const std::string line = ::testing::internal::GetCapturedStderr();
  ASSERT_GT(line.size(), 28U);
  EXPECT_EQ(line[10], 'T');
  EXPECT_EQ(line[26], 'Z');
  EXPECT_EQ(line.substr(27), " g1 holdfast: text\n");
}

TEST_F(LogTest, AnItemIsWrittenOnlyWhenOnAndGoesToTheFile) {
  const std::string path = ::testing::TempDir() + "/log_test_items.log";
  ::testing::internal::CaptureStderr();
  log::Write(log::Item::kUnimplemented, "before");
  EXPECT_TRUE(log::GoesToStderr());
  ASSERT_TRUE(log::SetFile(path));
  EXPECT_FALSE(log::GoesToStderr());
  log::EnableItems(static_cast<std::uint32_t>(log::Item::kUnimplemented));
  log::Write(log::Item::kUnimplemented, "after");
  log::Write(log::Item::kGuestErrors, "off");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(Slurp(path), "after\n");
  std::remove(path.c_str());
}

TEST_F(LogTest, AFileThatCannotBeOpenedIsNamed) {
  const Status status = log::SetFile("/nonexistent/x");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(),
            "Error opening logfile /nonexistent/x: No such file or directory");
}

}  // namespace
}  // namespace holdfast
