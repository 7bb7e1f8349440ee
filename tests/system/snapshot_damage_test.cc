// SPDX-License-Identifier: Apache-2.0
// Snapshots whose memory is damaged, or cannot be read: a guest that runs already stands still, one
// that does not is not started, and page and file are named.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/unique_fd.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "support/broken_disk.h"
#include "system/native_snapshot.h"

namespace holdfast::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class NativeSnapshotDamage : public NativeSnapshot {
 protected:
  // `a`, and `b` on top of it: all of the guest's memory is in the parent.
  void SaveChain() const {
    MonitorProcess monitor(Guest());
    ASSERT_TEXT(monitor, "round 2 ok");
    Qmp("stop");
    Save(Path("a"));
    Save(Path("b"), {"--diff", Path("a")});
    ASSERT_NO_FATAL_FAILURE(Kill(monitor));
  }
  static auto Names(const std::string& file) {
    return HasSubstr(fmt::format("the snapshot '{}', memory 'pc.ram' at 0x", file));
  }
};

// The guest stands, so that it is the background that reads: so little at a time that the file is
// cut before. What is left is the header.
TEST_F(NativeSnapshotDamage, AFileThatIsCutShortMeanwhileIsNamed) {
  ASSERT_NO_FATAL_FAILURE(SaveChain());
  for (const char* const newest : {"a", "b"}) {
    SCOPED_TRACE(newest);
    std::filesystem::copy_file(Path("a"), Path("whole"),
                               std::filesystem::copy_options::overwrite_existing);
    MonitorProcess restored(
        Guest({"-incoming", fmt::format("file:{},bandwidth=64k", Path(newest))}));
    EXPECT_THAT(Qmp("query-jobs"), HasSubstr("running"));
    ASSERT_EQ(::truncate(Path("a").c_str(), 4096), 0);
    ASSERT_TRUE(restored.WaitForError("it was cut short while it was read")) << restored.Describe();
    EXPECT_THAT(restored.errors(), Names(Path("a")));
    ASSERT_NO_FATAL_FAILURE(Kill(restored));
    std::filesystem::copy_file(Path("whole"), Path("a"),
                               std::filesystem::copy_options::overwrite_existing);
  }
}

TEST_F(NativeSnapshotDamage, AFileThatCannotBeReadIsNamed) {
  ASSERT_NO_FATAL_FAILURE(SaveChain());
  const auto restore = [this](const std::string& from) {
    MonitorProcess lazy(Guest({"-incoming", from}));
    ASSERT_TRUE(lazy.WaitForError("Input/output error")) << lazy.Describe();
    EXPECT_THAT(lazy.errors(), Names(Path("a")));
    ASSERT_NO_FATAL_FAILURE(Kill(lazy));

    MonitorProcess eager(Guest({"-incoming", from + ",prefault=on"}));
    EXPECT_ENDS(eager, 1);
    EXPECT_THAT(eager.errors(), AllOf(Names(Path("a")), HasSubstr("Input/output error")));
  };
  // There are pages of the first file; its tables, which are read before anything else is, and all
  // of the second lie elsewhere.
  for (const char* const newest : {"a", "b"}) {
    SCOPED_TRACE(newest);
    ASSERT_TRUE(RunOnBrokenDisk(512U << 10, 1U << 20, [&] { restore("file:" + Path(newest)); }));
  }
}

TEST_F(LinuxPatternSnapshot, APageThatIsDamagedStopsTheGuestAndIsNamed) {
  {
    MonitorProcess monitor(Guest());
    ASSERT_TEXT(monitor, "round 2 ok");
    Save(Path("a"));
  }
  // The guest's pages are the most of the file; a byte in the middle of them.
  const auto size = std::filesystem::file_size(Path("a"));
  const UniqueFd fd(::open(Path("a").c_str(), O_RDWR | O_CLOEXEC));
  char byte = 0;
  ASSERT_EQ(::pread(fd.get(), &byte, 1, static_cast<off_t>(size / 2)), 1);
  byte = static_cast<char>(byte ^ 0x10);
  ASSERT_EQ(::pwrite(fd.get(), &byte, 1, static_cast<off_t>(size / 2)), 1);

  MonitorProcess restored(Guest({"-incoming", "file:" + Path("a")}));
  ASSERT_TRUE(restored.WaitForError("its checksum is wrong")) << restored.Describe();
  EXPECT_THAT(restored.errors(), HasSubstr(Path("a")));
  EXPECT_THAT(restored.errors(), HasSubstr("memory 'pc.ram' at 0x"));
  EXPECT_THAT(Qmp("query-status"), HasSubstr("io-error"));
  EXPECT_THAT(restored.output(), Not(HasSubstr("WRONG")));
  Kill(restored);
  MonitorProcess eager(Guest({"-incoming", "file:" + Path("a") + ",prefault=on"}));
  EXPECT_ENDS(eager, 1);
  EXPECT_THAT(eager.errors(), HasSubstr("its checksum is wrong"));
}

// Whoever puts the file right can let the guest go on: nothing is lost.
TEST_F(LinuxPatternSnapshot, AGuestWhoseFileWasCutShortGoesOnOnceItIsWholeAgain) {
  {
    MonitorProcess monitor(Guest());
    ASSERT_TEXT(monitor, "round 2 ok");
    Save(Path("a"));
  }
  const std::string whole = ReadAll(Path("a"));
  MonitorProcess restored(Guest({"-S", "-incoming", "file:" + Path("a") + ",bandwidth=64k"}));
  EXPECT_THAT(Qmp("query-jobs"), HasSubstr("running"));
  ASSERT_EQ(::truncate(Path("a").c_str(), 4096), 0);
  Qmp("cont");
  ASSERT_TRUE(restored.WaitForError("it was cut short while it was read")) << restored.Describe();
  EXPECT_THAT(restored.errors(), HasSubstr("memory 'pc.ram' at 0x"));
  EXPECT_THAT(Qmp("query-status"), HasSubstr("io-error"));
  EXPECT_THAT(restored.output(), Not(HasSubstr("WRONG")));
  // The same file, whose descriptor the monitor has.
  const UniqueFd fd(::open(Path("a").c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(::pwrite(fd.get(), whole.data(), whole.size(), 0), std::ssize(whole));
  Qmp("cont");
  ExpectRight(restored);
}

}  // namespace
}  // namespace holdfast::test
