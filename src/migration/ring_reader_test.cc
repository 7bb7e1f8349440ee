// SPDX-License-Identifier: Apache-2.0
// All of a snapshot's memory at once, through io_uring and on kernels that refuse it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <vector>

#include "migration/ring_reader.h"
#include "migration/snapshot_load.h"
#include "migration/snapshot_test_support.h"

namespace holdfast::migration {
namespace {

using ::testing::HasSubstr;

// Whether system call `number` fails with `error` from now on.
bool Refuse(unsigned number, unsigned error) {
  std::array<sock_filter, 4> filter{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog program{.len = filter.size(), .filter = filter.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

class RingReaderTest : public SnapshotFileTest {
 protected:
  // Reads the newest of a chain into memory that holds something else, or zeroes.
  static Result<Memory> Load(const std::string& path, bool zeroed, Progress& progress) {
    HF_TRY(const SnapshotChain chain, SnapshotChain::Open(path));
    Memory memory(kSize, zeroed ? std::byte{0} : std::byte{0xee});
    std::vector<RingReader::Target> targets;
    for (std::uint64_t at = 0; at < kSize; at += kSnapshotChunk) {
      const std::uint64_t size = std::min(kSnapshotChunk, kSize - at);
      targets.push_back({0, at, std::span(memory).subspan(at, size), zeroed});
    }
    HF_TRY_STATUS(ReadChunks(chain, targets, progress));
    return memory;
  }
  static Result<Memory> Load(const std::string& path, bool zeroed = false) {
    Progress progress;
    return Load(path, zeroed, progress);
  }
  // A full one, and one on top of it whose pages lie in the middle of the first's extents.
  Memory WriteChain(bool zstd) {
    const Memory before = Contents();
    Memory after = before;
    for (const std::uint64_t page : {1U, 7U, 8U, 40U, 81U}) Scribble(after, page);
    std::fill_n(after.begin() + static_cast<std::ptrdiff_t>(5 * kPageSize), kPageSize,
                std::byte{0});
    WriteDiff(PathOf("b"), Write(PathOf("a"), before, zstd), "a", before, after);
    return after;
  }
};

TEST_F(RingReaderTest, AllOfAChainIsThereWhateverWasThereBefore) {
  for (const bool zstd : {false, true}) {
    const Memory memory = WriteChain(zstd);
    for (const bool zeroed : {false, true}) {
      Progress progress;
      EXPECT_EQ(Load(PathOf("b"), zeroed, progress).value(), memory) << zstd << zeroed;
      EXPECT_EQ(progress.total, kSize);
      EXPECT_EQ(progress.done, kSize);
    }
  }
}

TEST_F(RingReaderTest, DamageIsNamedByFileAndPlace) {
  const Memory memory = WriteChain(false);
  const auto size = std::filesystem::file_size(PathOf("a"));
  // The parent loses its end after the chain was opened.
  const SnapshotChain chain = SnapshotChain::Open(PathOf("b")).value();
  ASSERT_TRUE(chain.HasChunk(0, 0));
  ASSERT_EQ(::truncate(PathOf("a").c_str(), static_cast<off_t>(size / 2)), 0);
  Memory target(kSize);
  std::vector<RingReader::Target> targets;
  for (std::uint64_t at = 0; at < kSize; at += kSnapshotChunk) {
    const std::uint64_t length = std::min(kSnapshotChunk, kSize - at);
    targets.push_back({0, at, std::span(target).subspan(at, length), true});
  }
  Progress progress;
  const Status status = ReadChunks(chain, targets, progress);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message(), HasSubstr(PathOf("a")));
  EXPECT_THAT(status.error().message(), HasSubstr("memory 'pc.ram' at 0x"));
  EXPECT_THAT(status.error().message(), HasSubstr("cut short"));
}

TEST_F(RingReaderTest, AWrongByteIsFound) {
  Write(PathOf("a"), Contents());
  const UniqueFd fd(::open(PathOf("a").c_str(), O_RDWR | O_CLOEXEC));
  const off_t middle = static_cast<off_t>(kSize / 2);
  char byte = 0;
  ASSERT_EQ(::pread(fd.get(), &byte, 1, middle), 1);
  byte = static_cast<char>(byte ^ 4);
  ASSERT_EQ(::pwrite(fd.get(), &byte, 1, middle), 1);
  const auto read = Load(PathOf("a"));
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message(), HasSubstr("its checksum is wrong"));
}

TEST_F(RingReaderTest, WhatIsCancelledEndsWithNothingUnderWay) {
  Write(PathOf("a"), Contents());
  Progress progress;
  progress.cancelled = true;
  const auto read = Load(PathOf("a"), false, progress);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().message(), "it was cancelled");
}

// In a child process: a filter stays.
TEST_F(RingReaderTest, AKernelThatRefusesRingsOrEachUseOfOneIsReadFromAllTheSame) {
  const Memory memory = WriteChain(true);
  const struct {
    unsigned call;
    unsigned error;
  } cases[] = {{SYS_io_uring_setup, ENOSYS},
               {SYS_io_uring_setup, EPERM},
               {SYS_io_uring_enter, EPERM},
               {SYS_io_uring_enter, EAGAIN}};
  for (const auto& c : cases) {
    EXPECT_EXIT(
        {
          if (!Refuse(c.call, c.error)) ::_exit(2);
          const auto read = Load(PathOf("b"));
          ::_exit(read && *read == memory ? 0 : 1);
        },
        ::testing::ExitedWithCode(0), "")
        << c.call << " " << c.error;
  }
}

}  // namespace
}  // namespace holdfast::migration
