// SPDX-License-Identifier: Apache-2.0
#include "apps/run_with.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace holdfast::apps {
namespace {

using ::testing::HasSubstr;

// Runs `body` in a process of its own and returns its exit status.
template <typename Body>
int InChild(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(RunWithTest, FindsUsersByNameAndByNumbers) {
  const auto root = ResolveUser("root");
  ASSERT_TRUE(root) << root.error().ToString();
  EXPECT_EQ(root->uid, 0U);
  EXPECT_EQ(root->name, "root");
  const auto numbers = ResolveUser("4711:4712");
  ASSERT_TRUE(numbers);
  EXPECT_EQ(numbers->uid, 4711U);
  EXPECT_EQ(numbers->gid, 4712U);
  EXPECT_EQ(numbers->name, "");
}

TEST(RunWithTest, RefusesUsersThatDoNotExist) {
  for (const char* user : {"", "no such user", "1", "1:", ":1", "1:2:3", "-1:5", "4294967295:1",
                           "1:4294967295", "99999999999:1", "1 :1", "0x1:1"}) {
    const auto found = ResolveUser(user);
    ASSERT_FALSE(found) << user;
    EXPECT_EQ(found.error().message(),
              std::string("User \"") + user + "\" doesn't exist (and is not <uid>:<gid>)");
  }
}

TEST(RunWithTest, BecomesTheUserForGood) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
  EXPECT_EQ(InChild([] {
              if (!BecomeUser({.uid = 65534, .gid = 65533, .name = {}})) return 1;
              gid_t groups[64];
              const int count = ::getgroups(64, groups);
              return ::getuid() == 65534 && ::geteuid() == 65534 && ::getgid() == 65533 &&
                             count == 1 && groups[0] == 65533 && ::setuid(0) != 0
                         ? 0
                         : 2;
            }),
            0);
}

TEST(RunWithTest, ChangesTheRoot) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can change the root folder";
  const std::string folder = ::testing::TempDir();
  std::ofstream(folder + "/run_with_test.mark") << "here";
  EXPECT_EQ(InChild([&] {
              if (!ChangeRoot(folder)) return 1;
              return ::access("/run_with_test.mark", R_OK) == 0 &&
                             ::access("run_with_test.mark", R_OK) == 0
                         ? 0
                         : 2;
            }),
            0);
  ::unlink((folder + "/run_with_test.mark").c_str());
}

TEST(RunWithTest, SaysWhyTheRootCannotBeChanged) {
  const Status changed = ChangeRoot("/no/such/folder");
  ASSERT_FALSE(changed);
  EXPECT_THAT(changed.error().message(), HasSubstr("chroot to '/no/such/folder' failed"));
}

// The process that waits keeps the memory until the other has ended, holds nothing else open, and
// then ends by itself.
TEST(RunWithTest, AsyncTeardownHoldsNothingAndEndsAfterItsProcess) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_EQ(InChild([] { return StartAsyncTeardown() ? 0 : 1; }), 0);
  // Had it kept the pipe, there would be no end of file here.
  ::close(ends[1]);
  char byte = 0;
  EXPECT_EQ(::read(ends[0], &byte, 1), 0);
  ::close(ends[0]);
}

}  // namespace
}  // namespace holdfast::apps
