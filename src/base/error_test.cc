// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <holdfast/error.h>
#include <holdfast/unique_fd.h>
#include <cerrno>

#include <fcntl.h>

namespace holdfast {
namespace {

TEST(Error, KeepsCodeErrnoAndHintWhenWrapped) {
  const Error error =
      Error::FromErrno("opening 'x'", EACCES).WithHint("Ask for permission.").Wrap("-kernel x");
  EXPECT_EQ(error.code(), Errc::kPermission);
  EXPECT_EQ(error.os_errno(), EACCES);
  EXPECT_EQ(error.ToString(), "-kernel x: opening 'x': Permission denied. Ask for permission.");
}

TEST(Error, AFullStopIsNotWrittenTwice) {
  EXPECT_EQ(Error(Errc::kInvalidArgument, "It is so.", "Do this.").ToString(),
            "It is so. Do this.");
  EXPECT_EQ(Error(Errc::kInvalidArgument, "It is so.").ToString(), "It is so.");
}

TEST(Error, DerivesTheCodeFromErrno) {
  const struct {
    int os_errno;
    Errc want;
  } cases[] = {{ENOENT, Errc::kNotFound},        {EPERM, Errc::kPermission},
               {ENOMEM, Errc::kExhausted},       {EMFILE, Errc::kExhausted},
               {EINVAL, Errc::kInvalidArgument}, {EIO, Errc::kSystem}};
  for (const auto& c : cases) EXPECT_EQ(Error::FromErrno("x", c.os_errno).code(), c.want);
}

Result<int> Half(int value) {
  if (value % 2 != 0) return Fail(Errc::kInvalidArgument, "odd");
  return value / 2;
}
Result<int> Quarter(int value) {
  HF_TRY(const int half, Half(value));
  return Half(half);
}

TEST(Result, TryReturnsTheFirstError) {
  EXPECT_EQ(Quarter(8).value(), 2);
  EXPECT_EQ(Quarter(7).error().message(), "odd");
  EXPECT_EQ(Quarter(6).error().message(), "odd");
}

TEST(UniqueFd, ClosesOnceAndDuplicatesCloseOnExec) {
  UniqueFd first(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(first.valid());
  const int number = first.get();
  auto second = first.Duplicate();
  ASSERT_TRUE(second.has_value());
  EXPECT_NE(::fcntl(second->get(), F_GETFD) & FD_CLOEXEC, 0);
  UniqueFd moved = std::move(first);
  EXPECT_EQ(moved.get(), number);
  moved.reset();
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
  EXPECT_NE(::fcntl(second->get(), F_GETFD), -1);
}

}  // namespace
}  // namespace holdfast
