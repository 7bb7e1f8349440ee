// SPDX-License-Identifier: Apache-2.0
#include "devices/chardev.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "devices/chardev_test_support.h"

namespace holdfast::devices {
namespace {

using testing::Bytes;
using ::testing::HasSubstr;
using testing::Pattern;
using testing::Printer;

class MakeChardevTest : public testing::ChardevTest {};
class FileChardevTest : public testing::ChardevTest {};

std::string ContentsOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_F(MakeChardevTest, RefusesWhatItDoesNotUnderstand) {
  const struct {
    const char* spec;
    Errc code;
    const char* error;
  } kCases[] = {
      {"", Errc::kInvalidArgument, "character device '': unknown"},
      {"stdoi", Errc::kInvalidArgument, "character device 'stdoi': unknown"},
      {"stdio:x", Errc::kInvalidArgument, "character device 'stdio:x': unknown"},
      {"file", Errc::kInvalidArgument, "character device 'file': unknown"},
      {"file:", Errc::kInvalidArgument, "character device 'file:': no path"},
      {"file:/nowhere/x", Errc::kNotFound,
       "character device 'file:/nowhere/x': cannot open '/nowhere/x' for output: "
       "No such file or directory"},
      {"udp:localhost:1", Errc::kUnsupported,
       "character device 'udp:localhost:1': QEMU has this kind, Holdfast has not"},
      {"tcp:localhost", Errc::kInvalidArgument, "character device 'tcp:localhost': no HOST:PORT"},
      {"tcp::1:2", Errc::kInvalidArgument, "character device 'tcp::1:2': no HOST:PORT"},
      {"tcp:127.0.0.1:", Errc::kInvalidArgument, "character device 'tcp:127.0.0.1:': no HOST:PORT"},
      {"vc", Errc::kUnsupported, "character device 'vc': QEMU has this kind, Holdfast has not"},
      {"/dev/ttyS0", Errc::kUnsupported,
       "character device '/dev/ttyS0': QEMU has this kind, Holdfast has not"},
      {"unix:", Errc::kInvalidArgument, "character device 'unix:': no path"},
      {"unix:x,servre=on", Errc::kInvalidArgument,
       "character device 'unix:x,servre=on': no option 'servre' here"},
      {"unix:x,server=yes", Errc::kInvalidArgument,
       "character device 'unix:x,server=yes': server must be on or off, not 'yes'"},
      {"unix:x,wait=on", Errc::kInvalidArgument,
       "character device 'unix:x,wait=on': wait is for a server, and without server=on this is a "
       "client"},
      {"unix:/nowhere/x,server=on,wait=off", Errc::kNotFound,
       "character device 'unix:/nowhere/x,server=on,wait=off': cannot make the socket "
       "'/nowhere/x': No such file or directory"},
      {"unix:/nowhere/x", Errc::kNotFound,
       "character device 'unix:/nowhere/x': cannot connect to the socket '/nowhere/x': "
       "No such file or directory"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.spec);
    const auto made = MakeChardev(*loop_, c.spec);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().message(), c.error);
    EXPECT_EQ(made.error().code(), c.code);
  }
}

TEST_F(MakeChardevTest, SaysWhatItAccepts) {
  const auto made = MakeChardev(*loop_, "stdoi");
  ASSERT_FALSE(made);
  for (const char* word :
       {"stdio", "file:PATH", "pty", "unix:PATH", "tcp:[HOST]:PORT", "null", "none"})
    EXPECT_THAT(made.error().hint(), HasSubstr(word));
}

TEST_F(MakeChardevTest, NoneIsNoDevice) {
  const auto made = MakeChardev(*loop_, "none");
  ASSERT_TRUE(made);
  EXPECT_EQ(*made, nullptr);
}

TEST_F(MakeChardevTest, NullTakesEverything) {
  const auto made = MakeChardev(*loop_, "null");
  ASSERT_TRUE(made);
  EXPECT_EQ((*made)->Write(Bytes(Pattern(1'000'000))), 1'000'000U);
  EXPECT_EQ((*made)->Describe(), "null");
}

TEST_F(FileChardevTest, TheFileIsEmptiedAndThenHoldsTheOutput) {
  const std::string path = Path("out,with=commas");
  std::ofstream(path) << "what an earlier run left behind";
  auto made = MakeChardev(*loop_, "file:" + path);
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ((*made)->Describe(), "file:" + path);
  EXPECT_EQ(ContentsOf(path), "");
  (*made)->Write(Bytes("hello\n"));
  EXPECT_TRUE(Until([&] { return ContentsOf(path) == "hello\n"; }));
}

TEST_F(FileChardevTest, FlushWritesWithoutTheLoop) {
  auto made = MakeChardev(*loop_, "file:" + Path("out"));
  ASSERT_TRUE(made);
  (*made)->Write(Bytes("last words"));
  (*made)->Flush();
  EXPECT_EQ(ContentsOf(Path("out")), "last words");
}

// A guest prints a byte an exit; the loop must be woken a few times, not once a byte.
TEST_F(FileChardevTest, BytesPrintedOneByOneArriveInBulk) {
  auto made = MakeChardev(*loop_, "file:" + Path("out"));
  ASSERT_TRUE(made);
  const std::string text = Pattern(200'000);
  int turns = 0;
  {
    Printer printer(**made, text, 1);
    EXPECT_TRUE(Until([&] {
      ++turns;
      return printer.done();
    }));
  }
  (*made)->Flush();
  EXPECT_EQ(ContentsOf(Path("out")), text);
  EXPECT_LT(turns, 100'000);
}

TEST_F(FileChardevTest, AFullDiskDropsOutputInsteadOfStoppingTheGuest) {
  auto made = MakeChardev(*loop_, "file:/dev/full");
  ASSERT_TRUE(made);
  Printer printer(**made, Pattern(300'000), 1000);
  EXPECT_TRUE(Until([&] { return printer.done(); }));
}

TEST_F(FileChardevTest, ItIsQuietWhenNothingHappens) {
  auto made = MakeChardev(*loop_, "file:" + Path("out"));
  ASSERT_TRUE(made);
  (*made)->Write(Bytes("x"));
  (*made)->Flush();
  TurnsWithin(std::chrono::milliseconds(10));
  EXPECT_LE(TurnsWithin(std::chrono::milliseconds(20)), 2);
}

}  // namespace
}  // namespace holdfast::devices
