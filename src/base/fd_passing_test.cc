// SPDX-License-Identifier: Apache-2.0
#include "base/fd_passing.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>

namespace holdfast {
namespace {

class FdPassingTest : public ::testing::Test {
 protected:
  FdPassingTest() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    here_.reset(ends[0]);
    there_.reset(ends[1]);
  }
  ssize_t Send(std::string_view text, std::size_t fds) const {
    const std::vector<int> numbers(fds, event_.get());
    return SendWithFds(here_.get(), std::as_bytes(std::span(text)), numbers, MSG_NOSIGNAL);
  }
  WithFds Receive(std::size_t most) {
    return ReceiveWithFds(there_.get(), std::as_writable_bytes(std::span(text_)), most, 0);
  }

  UniqueFd here_;
  UniqueFd there_;
  UniqueFd event_{::eventfd(7, EFD_CLOEXEC | EFD_NONBLOCK)};
  std::array<char, 16> text_{};
};

TEST_F(FdPassingTest, DescriptorsComeWithTheBytesAndCloseOnExec) {
  ASSERT_EQ(Send("two", 2), 3);
  const WithFds got = Receive(8);
  EXPECT_EQ(got.size, 3);
  EXPECT_EQ(std::string_view(text_.data(), 3), "two");
  EXPECT_FALSE(got.more_fds);
  ASSERT_EQ(got.fds.size(), 2U);
  for (const UniqueFd& fd : got.fds) EXPECT_EQ(::fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
  // They are the event, not just some numbers.
  eventfd_t value = 0;
  EXPECT_EQ(::eventfd_read(got.fds[1].get(), &value), 0);
  EXPECT_EQ(value, 7U);
}

TEST_F(FdPassingTest, BytesAloneBringNoDescriptors) {
  ASSERT_EQ(Send("none", 0), 4);
  const WithFds got = Receive(8);
  EXPECT_EQ(got.size, 4);
  EXPECT_TRUE(got.fds.empty());
  EXPECT_FALSE(got.more_fds);
}

TEST_F(FdPassingTest, MoreThanAskedForAreClosedAndSaidSo) {
  // Odd and even: control messages are padded to the size of two descriptors.
  for (const std::size_t most : {1U, 2U, 3U, 252U}) {
    ASSERT_EQ(Send("x", most + 1), 1);
    const WithFds got = Receive(most);
    EXPECT_EQ(got.size, 1);
    EXPECT_EQ(got.fds.size(), most);
    EXPECT_TRUE(got.more_fds) << most;
  }
}

TEST_F(FdPassingTest, AsManyAsTheKernelTakesAndNotOneMore) {
  ASSERT_EQ(Send("x", kMostPassedFds), 1);
  EXPECT_EQ(Receive(kMostPassedFds).fds.size(), kMostPassedFds);
  EXPECT_EQ(Send("x", kMostPassedFds + 1), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(FdPassingTest, AnEndAndAnErrorAreRecvs) {
  EXPECT_EQ(Receive(1).size, -1);
  EXPECT_EQ(errno, EAGAIN);
  here_.reset();
  EXPECT_EQ(Receive(1).size, 0);
}

}  // namespace
}  // namespace holdfast
