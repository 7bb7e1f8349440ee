// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/page_attributes.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace holdfast {
namespace {

using enum MemoryAttribute;
using Range = PageAttributes::Range;
using ::testing::ElementsAre;

constexpr std::uint64_t k2M = 512;  // pages
constexpr std::uint64_t k1G = 512ULL * 512;

TEST(PageAttributesTest, AllPagesStartAsAsked) {
  for (const auto initial : {kShared, kPrivate}) {
    const PageAttributes attributes(k1G + 7, initial);
    EXPECT_EQ(attributes.private_pages(), initial == kPrivate ? k1G + 7 : 0);
    EXPECT_TRUE(attributes.All(0, k1G + 7, initial));
    EXPECT_THAT(attributes.Ranges(0, k1G + 7), ElementsAre(Range{0, k1G + 7, initial}));
  }
}

// Ends that fall on words, leaves and tables, and next to them.
TEST(PageAttributesTest, ChangesExactlyThePagesAskedFor) {
  constexpr std::uint64_t kPages = 2 * k1G + 100;
  const std::uint64_t edges[] = {
      0,       1,          63,    64, 65, k2M - 1, k2M, k2M + 1, k1G - 1, k1G, k1G + k2M + 3,
      2 * k1G, kPages - 1, kPages};
  for (const auto initial : {kShared, kPrivate}) {
    const auto other = PageAttributes::Opposite(initial);
    for (const std::uint64_t first : edges) {
      for (const std::uint64_t end : edges) {
        if (first >= end) continue;
        SCOPED_TRACE(testing::Message() << first << " to " << end);
        PageAttributes attributes(kPages, initial);
        EXPECT_EQ(attributes.Set(first, end - first, other), end - first);
        EXPECT_EQ(attributes.private_pages(),
                  other == kPrivate ? end - first : kPages - (end - first));
        std::vector<Range> expected;
        if (first > 0) expected.push_back({0, first, initial});
        expected.push_back({first, end - first, other});
        if (end < kPages) expected.push_back({end, kPages - end, initial});
        EXPECT_EQ(attributes.Ranges(0, kPages), expected);
        EXPECT_EQ(attributes.Find(0, kPages, other), first);
        EXPECT_EQ(attributes.Set(0, kPages, initial), end - first) << "back";
        EXPECT_TRUE(attributes.All(0, kPages, initial));
      }
    }
  }
}

TEST(PageAttributesTest, SettingWhatIsSetAlreadyChangesNothing) {
  PageAttributes attributes(k1G, kShared);
  EXPECT_EQ(attributes.Set(5, 1000, kPrivate), 1000U);
  EXPECT_EQ(attributes.Set(5, 1000, kPrivate), 0U);
  EXPECT_EQ(attributes.Set(0, 2000, kPrivate), 1000U);
  EXPECT_EQ(attributes.private_pages(), 2000U);
}

TEST(PageAttributesTest, AgreesWithAPlainListWhateverIsSet) {
  constexpr std::uint64_t kPages = 3 * k2M + 77;
  PageAttributes attributes(kPages, kShared);
  std::vector<MemoryAttribute> reference(kPages, kShared);
  std::mt19937_64 random(20261121);
  for (int step = 0; step < 3000; ++step) {
    const std::uint64_t first = random() % kPages;
    const std::uint64_t longest = random() % 4 == 0 ? kPages : 70;
    const std::uint64_t count = 1 + random() % std::min(longest, kPages - first);
    const auto attribute = random() % 2 == 0 ? kShared : kPrivate;
    std::uint64_t changed = 0;
    for (std::uint64_t page = first; page < first + count; ++page) {
      changed += reference[page] != attribute ? 1U : 0U;
      reference[page] = attribute;
    }
    ASSERT_EQ(attributes.Set(first, count, attribute), changed) << "step " << step;
    if (step % 100 != 0) continue;
    for (std::uint64_t page = 0; page < kPages; ++page)
      ASSERT_EQ(attributes.At(page), reference[page]) << "step " << step << ", page " << page;
    ASSERT_EQ(attributes.private_pages(),
              static_cast<std::uint64_t>(std::ranges::count(reference, kPrivate)));
  }
}

// Pages that nobody changes look the same at every moment, even while their table and leaf come and
// go because of their neighbours.
TEST(PageAttributesTest, NeighboursOfAChangeNeverFlicker) {
  PageAttributes attributes(2 * k1G, kShared);
  attributes.Set(k1G + 10, 1, kPrivate);
  std::atomic<bool> stop{false};
  std::atomic<bool> wrong{false};
  std::thread reader([&] {
    while (!stop.load()) {
      if (attributes.At(5) != kShared || attributes.At(k1G + 10) != kPrivate ||
          attributes.Find(k1G, k2M, kPrivate) > k1G + 10 || attributes.At(k1G - 1) != kShared) {
        wrong.store(true);
      }
    }
  });
  for (int i = 0; i < 20000; ++i) {
    const auto to = i % 2 == 0 ? kPrivate : kShared;
    attributes.Set(6, 500, to);
    attributes.Set(k2M, k1G - k2M - 1, to);
    attributes.Set(k1G + 11, k1G - 11, to);
  }
  stop.store(true);
  reader.join();
  EXPECT_FALSE(wrong.load());
}

}  // namespace
}  // namespace holdfast
