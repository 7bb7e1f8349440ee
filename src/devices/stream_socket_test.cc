// SPDX-License-Identifier: Apache-2.0
#include "devices/stream_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace holdfast::devices {
namespace {

using ::testing::HasSubstr;

class StreamSocketTest : public ::testing::Test {
 protected:
  StreamSocketTest() {
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) ADD_FAILURE() << "mkdtemp";
    folder_ = name;
  }
  ~StreamSocketTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  SocketAddress Unix() const { return {.path = (folder_ / "socket").string()}; }

 private:
  std::filesystem::path folder_;
};

TEST(SocketWord, SaysAddressAndRole) {
  const struct {
    const char* word;
    const char* address;
    bool server;
    bool wait;
  } cases[] = {
      {"unix:/a,server=on,wait=off", "unix:/a", true, false},
      {"unix:/a,server", "unix:/a", true, true},
      {"unix:path=/a,,b,server=on,nowait", "unix:/a,b", true, false},
      {"unix:/a", "unix:/a", false, false},
      {"tcp::4444,server=on,wait=off", "tcp:127.0.0.1:4444", true, false},
      {"tcp:localhost:4444", "tcp:localhost:4444", false, false},
      {"tcp:0.0.0.0:1,server=on", "tcp:0.0.0.0:1", true, true},
      {"tcp:[::1]:22", "tcp:[::1]:22", false, false},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.word);
    const auto spec = ParseSocketWord(c.word);
    ASSERT_TRUE(spec && *spec);
    EXPECT_EQ((*spec)->address.Describe(), c.address);
    EXPECT_EQ((*spec)->server, c.server);
    EXPECT_EQ((*spec)->wait, c.wait);
  }
}

TEST(SocketWord, LeavesOtherWordsToOthers) {
  for (const char* word : {"stdio", "null", "file:/a", "pty", "mon:stdio", ""}) {
    const auto spec = ParseSocketWord(word);
    ASSERT_TRUE(spec) << word;
    EXPECT_FALSE(*spec) << word;
  }
}

TEST_F(StreamSocketTest, ASocketSomebodyListensOnIsNotTaken) {
  const auto first = ListeningSocket::Create(Unix(), 8);
  ASSERT_TRUE(first) << first.error().ToString();
  const auto second = ListeningSocket::Create(Unix(), 8);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message(), HasSubstr("a program listens on it already"));
  EXPECT_TRUE(std::filesystem::exists(Unix().path));
}

TEST_F(StreamSocketTest, ASocketLeftBehindIsReplaced) {
  {
    const UniqueFd old(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    auto left = ListeningSocket::Create(Unix(), 8);
    ASSERT_TRUE(left);
    std::filesystem::rename(Unix().path, Unix().path + "-kept");
  }
  std::filesystem::rename(Unix().path + "-kept", Unix().path);
  const auto again = ListeningSocket::Create(Unix(), 8);
  EXPECT_TRUE(again) << again.error().ToString();
}

TEST_F(StreamSocketTest, AFileIsNotReplaced) {
  std::ofstream(Unix().path) << "precious";
  const auto made = ListeningSocket::Create(Unix(), 8);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message(), HasSubstr("there is something else"));
  EXPECT_EQ(std::filesystem::file_size(Unix().path), 8U);
}

TEST_F(StreamSocketTest, ClientsComeOneByOneAndNobodyWaitsForNone) {
  const auto listener = ListeningSocket::Create({.host = "", .port = "0"}, 8);
  ASSERT_TRUE(listener) << listener.error().ToString();
  EXPECT_NE(listener->address().port, "0");
  EXPECT_FALSE(listener->Accept());
  const auto client = ConnectSocket(listener->address());
  ASSERT_TRUE(client) << client.error().ToString();
  EXPECT_TRUE(listener->Accept());
  EXPECT_FALSE(listener->Accept());
}

TEST_F(StreamSocketTest, AUsedPortIsAnErrorThatNamesIt) {
  const auto first = ListeningSocket::Create({.host = "", .port = "0"}, 8);
  ASSERT_TRUE(first) << first.error().ToString();
  const auto second = ListeningSocket::Create(first->address(), 8);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message(), HasSubstr(first->address().Describe()));
}

}  // namespace
}  // namespace holdfast::devices
