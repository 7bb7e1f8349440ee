// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/lazy_population.h>
#include <holdfast/ram_block.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "memory/present_pages.h"

namespace holdfast {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uint64_t kChunk = 64 * kKiB;
constexpr std::uint64_t kSize = 4 * kMiB + 2 * kPageSize;  // the last chunk is a small one
constexpr std::uint64_t kChunks = kSize / kChunk + 1;

std::byte ByteAt(std::uint64_t offset) {
  return static_cast<std::byte>(offset / 1021 + 1);
}

// Every byte tells where it is from; some chunks cannot be read, some are zero.
class TestSource : public PageSource {
 public:
  Status Read(const RamBlock&, std::uint64_t offset, std::span<std::byte> to) override {
    for (std::uint64_t at = offset; at < offset + to.size(); at += kChunk) {
      if (at / kChunk == broken) return Fail(Errc::kMalformed, "the checksum is wrong");
    }
    for (std::uint64_t at = offset; at < offset + to.size(); at += kChunk)
      reads[at / kChunk].fetch_add(1);
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = ByteAt(offset + i);
    return {};
  }
  bool IsZero(const RamBlock&, std::uint64_t offset, std::uint64_t size) noexcept override {
    return offset / kChunk >= first_zero && (offset + size - 1) / kChunk < end_zero;
  }

  std::array<std::atomic<int>, kChunks> reads{};
  std::atomic<std::uint64_t> broken = ~0ULL;
  std::uint64_t first_zero = ~0ULL;
  std::uint64_t end_zero = 0;
};

class LazyPopulationTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (const auto fd = LazyPopulation::OpenUserfaultfd(); !fd)
      GTEST_SKIP() << fd.error().ToString();
    block_ = (GetParam() ? RamBlock::CreateMemfd("ram", kSize)
                         : RamBlock::CreateAnonymous("ram", kSize, {.shared = false}))
                 .value();
    ASSERT_TRUE(memory_.AddRam(GuestAddress(0), kSize, *block_, 0));
  }
  void Start(LazyPopulation::Options options) {
    auto started = LazyPopulation::Start(memory_, source_, std::move(options));
    ASSERT_TRUE(started) << started.error().ToString();
    population_ = *std::move(started);
  }
  void ExpectContents() {
    const std::span<const std::byte> view = block_->host_view();
    for (std::uint64_t at = 0; at < kSize; ++at) {
      const bool zero = at / kChunk >= source_.first_zero && at / kChunk < source_.end_zero;
      ASSERT_EQ(view[at], zero ? std::byte{0} : ByteAt(at)) << at;
    }
  }
  Status Touch(std::uint64_t offset) {
    std::array<std::byte, 8> word;
    HF_TRY_STATUS(memory_.Read(GuestAddress(offset), word));
    return word[0] == ByteAt(offset) ? Status() : Fail(Errc::kMalformed, "wrong contents");
  }

  std::unique_ptr<RamBlock> block_;
  AddressSpace memory_{nullptr};
  TestSource source_;
  std::unique_ptr<LazyPopulation> population_;
};

TEST_P(LazyPopulationTest, FillsEachChunkOnceHoweverManyTouchIt) {
  Start({.threads = 3});
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([this, i] {
        // Two of them as a vCPU does, by page faults.
        for (std::uint64_t at = 0; at < kSize; at += kPageSize) {
          const std::uint64_t offset = i % 2 == 0 ? at : kSize - kPageSize - at;
          if (i < 2) {
            EXPECT_EQ(block_->guest_view()[offset], ByteAt(offset));
          } else {
            EXPECT_TRUE(Touch(offset));
          }
        }
      });
    }
  }
  ASSERT_TRUE(population_->Finish());
  ASSERT_TRUE(population_->Finish());
  ExpectContents();
  for (const auto& reads : source_.reads) EXPECT_EQ(reads, 1);
  const auto progress = population_->progress();
  EXPECT_EQ(progress.populated, kSize);
  EXPECT_EQ(progress.total, kSize);
  // Given back to the host it is zero, as ever.
  ASSERT_TRUE(memory_.Discard(GuestAddress(0), kPageSize));
  EXPECT_EQ(block_->host_view()[0], std::byte{0});
}

TEST_P(LazyPopulationTest, FillsTheRestInTheBackgroundAndTellsWhenItIsDone) {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  Start({.background_speed = 1, .on_done = [&] {
           const std::lock_guard lock(mutex);
           done = true;
           changed.notify_one();
         }});
  ASSERT_TRUE(Touch(kSize / 2));
  EXPECT_FALSE(population_->done()) << "at a byte a second";
  population_->SetBackgroundSpeed(0);
  std::unique_lock lock(mutex);
  ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(120), [&] { return done; }));
  EXPECT_TRUE(population_->done());
  // A page that is given back before the end is zero too, and nobody waits for it.
  ASSERT_TRUE(memory_.Discard(GuestAddress(kChunk), kPageSize));
  EXPECT_EQ(block_->host_view()[kChunk], std::byte{0});
  ASSERT_TRUE(population_->Finish());
}

TEST_P(LazyPopulationTest, FillsOnlyWhatIsTouchedIfThatIsAsked) {
  Start({.background = false});
  ASSERT_TRUE(Touch(5 * kChunk + 17));
  ASSERT_TRUE(Touch(5 * kChunk + kPageSize));
  EXPECT_EQ(population_->progress().populated, kChunk);
  ASSERT_TRUE(memory_.Write(GuestAddress(9 * kChunk), std::array<std::byte, 4>{}));
  EXPECT_EQ(block_->host_view()[9 * kChunk + 5], ByteAt(9 * kChunk + 5))
      << "a write of a part leaves the rest";
  GuestIoVec pin;
  ASSERT_TRUE(memory_.Pin(GuestAddress(12 * kChunk - 1), 2, MemoryAccess::kRead, pin));
  EXPECT_EQ(population_->progress().populated, 4 * kChunk);
}

TEST_P(LazyPopulationTest, ZeroesAreNeitherReadNorMade) {
  source_.first_zero = 5;
  source_.end_zero = 22;
  Start({});
  ASSERT_TRUE(population_->Finish());
  for (std::uint64_t chunk = 5; chunk < 22; ++chunk) EXPECT_EQ(source_.reads[chunk], 0) << chunk;
  if (GetParam()) {
    std::uint64_t present = 0;
    ASSERT_TRUE(ForEachPresent(*block_, 0, kSize, [&](std::uint64_t, std::uint64_t size) {
      present += size;
      return true;
    }));
    EXPECT_EQ(present, kSize - 17 * kChunk);
  }
  ExpectContents();
}

TEST_P(LazyPopulationTest, AChunkThatCannotBeReadIsNamedAndCanBeTriedAgain) {
  source_.broken = 20;
  std::mutex mutex;
  std::vector<std::string> errors;
  Start({.on_error = [&](const RamBlock& block, std::uint64_t offset, const Error& error) {
    const std::lock_guard lock(mutex);
    EXPECT_EQ(&block, block_.get());
    EXPECT_EQ(offset, 20 * kChunk);
    errors.push_back(error.ToString());
  }});
  const Status missing = Touch(20 * kChunk + 5);
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().ToString(),
              AllOf(HasSubstr("the memory 'ram' at 0x140000"), HasSubstr("the checksum is wrong")));
  EXPECT_TRUE(Touch(21 * kChunk));
  EXPECT_TRUE(Touch(19 * kChunk));
  const Status unfinished = population_->Finish();
  ASSERT_FALSE(unfinished);
  EXPECT_THAT(unfinished.error().ToString(), HasSubstr("at 0x140000"));
  EXPECT_EQ(population_->progress().failed, 1U);
  {
    const std::lock_guard lock(mutex);
    EXPECT_EQ(errors.size(), 1U) << ::testing::PrintToString(errors);
  }
  source_.broken = ~0ULL;
  std::thread waits([&] { EXPECT_EQ(block_->guest_view()[20 * kChunk], ByteAt(20 * kChunk)); });
  population_->Retry();
  waits.join();
  ASSERT_TRUE(population_->Finish());
  ExpectContents();
}

TEST_P(LazyPopulationTest, WhatWasNotPopulatedWhenItEndedCannotBeReached) {
  Start({.background = false});
  ASSERT_TRUE(Touch(3 * kChunk));
  population_.reset();
  EXPECT_TRUE(Touch(3 * kChunk));
  const Status missing = Touch(4 * kChunk);
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().ToString(), HasSubstr("was never populated"));
}

TEST_P(LazyPopulationTest, WhoGetsMemoryForGoodWaitsForAllOfIt) {
  Start({.background = false});
  ASSERT_TRUE(memory_.GrantExternalAccess("vhost"));
  EXPECT_TRUE(population_->done());
  ASSERT_TRUE(population_->Finish());
  const auto access = memory_.GrantExternalAccess("the disk 'd0'");
  ASSERT_TRUE(access);
  const auto refused = LazyPopulation::Start(memory_, source_, {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().ToString(), HasSubstr("the disk 'd0' would find it empty"));
}

TEST_P(LazyPopulationTest, NonsenseIsRefused) {
  for (const std::uint64_t chunk : {std::uint64_t{0}, std::uint64_t{2048}, 3 * kPageSize}) {
    const auto refused = LazyPopulation::Start(memory_, source_, {.chunk = chunk});
    ASSERT_FALSE(refused) << chunk;
    EXPECT_EQ(refused.error().code(), Errc::kInvalidArgument);
  }
}

TEST_P(LazyPopulationTest, LockedMemoryIsRefused) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers lock nothing";
#endif
  // In a process of its own: the lock is the whole process's.
  EXPECT_EXIT(
      {
        if (::mlockall(MCL_FUTURE) != 0) ::_exit(0);  // not permitted here
        const auto refused = LazyPopulation::Start(memory_, source_, {});
        ::_exit(!refused && refused.error().ToString().find("is locked") != std::string::npos ? 0
                                                                                              : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

std::string MemoryName(const ::testing::TestParamInfo<bool>& memfd) {
  return memfd.param ? "memfd" : "anonymous";
}
INSTANTIATE_TEST_SUITE_P(, LazyPopulationTest, ::testing::Bool(), MemoryName);

TEST(LazyPopulationOfFiles, IsRefusedWithAWayOut) {
  if (!LazyPopulation::OpenUserfaultfd()) GTEST_SKIP() << "no userfaultfd here";
  std::string path = ::testing::TempDir() + "lazyXXXXXX";
  UniqueFd fd(::mkstemp(path.data()));
  ASSERT_TRUE(fd);
  ::unlink(path.c_str());
  ASSERT_EQ(::ftruncate(fd.get(), kMiB), 0);
  UniqueFd copy(::dup(fd.get()));
  const auto block =
      RamBlock::CreateFromFd("ram", std::move(fd), 0, kMiB, kPageSize, {.shared = false});
  ASSERT_TRUE(block);
  AddressSpace memory(nullptr);
  ASSERT_TRUE(memory.AddRam(GuestAddress(0), kMiB, **block, 0));
  TestSource source;
  const auto refused = LazyPopulation::Start(memory, source, {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().ToString(),
              AllOf(HasSubstr("'ram' cannot be populated on demand"), HasSubstr("at once")));
}

}  // namespace
}  // namespace holdfast
