// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/options.h"

namespace holdfast::apps {
namespace {

using ::testing::HasSubstr;

Result<Options> ParseIncoming(const char* argument) {
  return ParseCommandLine(std::vector<const char*>{"-kernel", "k", "-incoming", argument});
}

TEST(IncomingOptions, AGuestComesFromAnAddressFromAFileOrLater) {
  const auto tcp = ParseIncoming("tcp:[::]:4444");
  ASSERT_TRUE(tcp) << tcp.error().ToString();
  EXPECT_TRUE(tcp->machine.incoming);
  EXPECT_EQ(tcp->incoming->path, "");
  EXPECT_EQ(tcp->incoming->address, migration::Address(migration::TcpAddress{"::", "4444"}));
  const auto local = ParseIncoming("unix:/s");
  ASSERT_TRUE(local);
  EXPECT_EQ(local->incoming->address, migration::Address(migration::UnixAddress{"/s"}));
  const auto later = ParseIncoming("defer");
  ASSERT_TRUE(later);
  EXPECT_TRUE(later->machine.incoming);
  EXPECT_EQ(later->incoming->address, std::nullopt);
  const auto file = ParseIncoming("file:/a,,b,prefault=on");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->incoming->path, "/a,b");
  EXPECT_TRUE(file->incoming->prefault);
  EXPECT_EQ(file->incoming->address, std::nullopt);
}

TEST(IncomingOptions, WhatIsNoneIsRefusedWithWhatMayBeWritten) {
  const struct {
    const char* argument;
    const char* says;
  } cases[] = {
      {"bad:1", "unknown migration protocol: bad:1"},
      {"", "unknown migration protocol"},
      {"later", "unknown migration protocol: later"},
      {"file:", "the name of the snapshot is missing"},
  };
  for (const auto& test : cases) {
    const auto options = ParseIncoming(test.argument);
    ASSERT_FALSE(options) << test.argument;
    EXPECT_THAT(options.error().message(), HasSubstr(test.says));
    EXPECT_THAT(options.error().hint(), HasSubstr("file:PATH"));
  }
}

}  // namespace
}  // namespace holdfast::apps
