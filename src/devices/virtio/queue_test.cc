// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/queue.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <functional>
#include <string>

#include "devices/virtio/ring.h"
#include "devices/virtio/test_driver.h"

namespace holdfast::devices::virtio {
namespace {

using ::testing::HasSubstr;

struct Format {
  bool packed, event_index, indirect;
};

std::string NameOf(const ::testing::TestParamInfo<Format>& format) {
  return fmt::format("{}{}{}", format.param.packed ? "Packed" : "Split",
                     format.param.event_index ? "EventIndex" : "",
                     format.param.indirect ? "Indirect" : "");
}

// Both sides of a queue in one memory.
class QueueTest : public ::testing::TestWithParam<Format> {
 protected:
  void Make(std::uint16_t size) {
    driver_ = std::make_unique<TestQueue>(memory_, size, GetParam().packed, GetParam().event_index,
                                          GetParam().indirect);
    auto queue = Queue::Create(memory_.space(), driver_->layout());
    ASSERT_TRUE(queue) << queue.error().ToString();
    queue_.emplace(*std::move(queue));
  }
  TestBuffer Readable(std::string_view text) {
    return {memory_.Put(BytesOf(text)), static_cast<std::uint32_t>(text.size()), false};
  }
  TestBuffer Writable(std::uint32_t size) { return {memory_.Allocate(size), size, true}; }
  Chain Pop() {
    auto chain = queue_->Pop();
    EXPECT_TRUE(chain && *chain) << (chain ? "nothing there" : chain.error().ToString());
    return chain && *chain ? std::move(**chain) : Chain{};
  }
  void ExpectNothing() {
    auto chain = queue_->Pop();
    ASSERT_TRUE(chain) << chain.error().ToString();
    EXPECT_FALSE(*chain);
  }

  TestMemory memory_;
  std::unique_ptr<TestQueue> driver_;
  std::optional<Queue> queue_;
};

INSTANTIATE_TEST_SUITE_P(All, QueueTest,
                         ::testing::Values(Format{false, false, false}, Format{false, true, false},
                                           Format{false, false, true}, Format{false, true, true},
                                           Format{true, false, false}, Format{true, true, false},
                                           Format{true, false, true}, Format{true, true, true}),
                         NameOf);

TEST_P(QueueTest, CarriesRequestsThereAndAnswersBackManyTimesRound) {
  ASSERT_NO_FATAL_FAILURE(Make(8));
  ExpectNothing();
  for (unsigned round = 0; round < 1000; ++round) {
    const std::string words = fmt::format("request {}", round);
    const TestBuffer answer = Writable(16);
    const TestBuffer buffers[] = {Readable(words.substr(0, 3)), Readable(words.substr(3)), answer};
    const std::uint16_t id = driver_->Add(buffers, GetParam().indirect && round % 3 == 0);
    Chain chain = Pop();
    std::vector<std::byte> got(chain.readable.size());
    EXPECT_EQ(chain.readable.CopyOut(0, got), words.size());
    EXPECT_EQ(got, BytesOf(words));
    ASSERT_EQ(chain.writable.size(), 16U);
    EXPECT_EQ(chain.writable.CopyIn(0, BytesOf(words)), words.size());
    queue_->Push(chain, static_cast<std::uint32_t>(words.size()));
    const auto used = driver_->Take();
    ASSERT_TRUE(used) << "round " << round;
    EXPECT_EQ(used->id, id);
    EXPECT_EQ(used->written, words.size());
    EXPECT_EQ(memory_.Get(answer.address, words.size()), BytesOf(words));
    ExpectNothing();
  }
}

TEST_P(QueueTest, HoldsAsManyRequestsAsItHasEntries) {
  ASSERT_NO_FATAL_FAILURE(Make(16));
  for (int lap = 0; lap < 5; ++lap) {
    std::deque<Chain> chains;
    for (int i = 0; i < 16; ++i) driver_->Add({{Readable("x")}});
    for (int i = 0; i < 16; ++i) chains.push_back(Pop());
    ExpectNothing();
    for (Chain& chain : chains) queue_->Push(chain, 0);
    for (int i = 0; i < 16; ++i) EXPECT_TRUE(driver_->Take());
    EXPECT_FALSE(driver_->Take());
  }
}

TEST_P(QueueTest, GivesAnUnpoppedRequestAgain) {
  ASSERT_NO_FATAL_FAILURE(Make(4));
  for (int i = 0; i < 20; ++i) {
    const TestBuffer buffers[] = {Readable(fmt::format("{}", i)), Writable(4)};
    driver_->Add(buffers);
    queue_->Unpop(Pop());
    Chain again = Pop();
    std::vector<std::byte> got(again.readable.size());
    again.readable.CopyOut(0, got);
    EXPECT_EQ(got, BytesOf(fmt::format("{}", i)));
    queue_->Push(again, 1);
    EXPECT_TRUE(driver_->Take());
  }
}

TEST_P(QueueTest, InterruptsAndKicksOnlyWhenWanted) {
  ASSERT_NO_FATAL_FAILURE(Make(4));
  for (int i = 0; i < 30; ++i) {
    const bool wanted = i % 2 == 0;
    driver_->WantInterrupts(wanted);
    const bool kicks = i % 3 == 0;
    if (kicks) {
      EXPECT_FALSE(queue_->EnableKicks());
    } else {
      queue_->DisableKicks();
    }
    driver_->Add({{Readable("x")}});
    // With an event index, kicks that are not wanted are only rare.
    if (!GetParam().event_index || kicks) {
      EXPECT_EQ(driver_->NeedsKick(), kicks) << i;
    }
    Chain chain = Pop();
    EXPECT_FALSE(queue_->NeedsNotification()) << "nothing was pushed";
    queue_->Push(chain, 0);
    EXPECT_EQ(queue_->NeedsNotification(), wanted) << i;
    EXPECT_FALSE(queue_->NeedsNotification()) << "told already";
    EXPECT_TRUE(driver_->Take());
  }
}

TEST_P(QueueTest, SeesWhatCameWhileKicksWereOff) {
  ASSERT_NO_FATAL_FAILURE(Make(4));
  queue_->DisableKicks();
  driver_->Add({{Readable("x")}});
  EXPECT_TRUE(queue_->EnableKicks());
}

TEST_P(QueueTest, GoesOnFromAPositionSetFromOutside) {
  ASSERT_NO_FATAL_FAILURE(Make(4));
  for (int i = 0; i < 6; ++i) {
    driver_->Add({{Readable("x")}});
    queue_->Push(Pop(), 0);
    driver_->Take();
  }
  const std::uint32_t position = queue_->position();
  auto other = Queue::Create(memory_.space(), driver_->layout());
  ASSERT_TRUE(other);
  queue_.emplace(*std::move(other));
  queue_->set_position(position);
  ExpectNothing();
  driver_->Add({{Readable("y")}});
  queue_->Push(Pop(), 0);
  EXPECT_TRUE(driver_->Take());
}

TEST_P(QueueTest, ARingThatBreaksTheRulesGivesNothingMore) {
  const struct {
    const char* what;
    std::vector<TestBuffer> buffers;
  } cases[] = {
      {"is not RAM", {{GuestAddress(1ULL << 40), 16, false}}},
      {"is not RAM", {{GuestAddress(~0ULL - 7), 16, true}}},
      {"is not RAM", {{GuestAddress((16ULL << 20) - 8), 16, true}}},
      {"is empty", {{GuestAddress(4096), 0, false}}},
      {"after one to write", {{GuestAddress(4096), 8, true}, {GuestAddress(4096), 8, false}}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    ASSERT_NO_FATAL_FAILURE(Make(4));
    driver_->Add(c.buffers);
    const auto chain = queue_->Pop();
    ASSERT_FALSE(chain);
    EXPECT_THAT(chain.error().message(), HasSubstr(c.what));
    EXPECT_TRUE(queue_->broken());
    driver_->Add({{Readable("fine")}});
    ExpectNothing();
    queue_->Push({}, 1);
    EXPECT_FALSE(driver_->Take());
    EXPECT_FALSE(queue_->NeedsNotification());
  }
}

TEST_P(QueueTest, IndirectTablesAreHeldAgainstTheRules) {
  ASSERT_NO_FATAL_FAILURE(Make(4));
  const TestBuffer buffers[] = {Readable("one"), Writable(8)};
  if (!GetParam().indirect) {
    driver_->Add(buffers, /*as_table=*/true);
    EXPECT_FALSE(queue_->Pop()) << "was not agreed on";
    return;
  }
  const std::uint64_t flags_at = GetParam().packed ? 14 : 12;
  const std::uint64_t length_at = 8;
  const struct {
    const char* what;
    std::function<void(GuestAddress descriptor, GuestAddress table)> spoil;
  } cases[] = {
      {"an indirect table of 0 bytes",
       [&](auto d, auto) { memory_.Store<std::uint32_t>(d + length_at, 0); }},
      {"an indirect table of 17 bytes",
       [&](auto d, auto) { memory_.Store<std::uint32_t>(d + length_at, 17); }},
      {"is not RAM", [&](auto d, auto) { memory_.Store<std::uint64_t>(d, 1ULL << 50); }},
      {"inside another",
       [&](auto, auto t) { memory_.Store<std::uint16_t>(t + flags_at, kDescriptorIndirect); }},
      {"linked with other",
       [&](auto d, auto) {
         const auto flags = memory_.Load<std::uint16_t>(d + flags_at);
         memory_.Store<std::uint16_t>(d + flags_at,
                                      static_cast<std::uint16_t>(flags | kDescriptorNext));
       }},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    ASSERT_NO_FATAL_FAILURE(Make(4));
    driver_->Add(buffers, /*as_table=*/true);
    const GuestAddress descriptor = driver_->layout().descriptors;
    c.spoil(descriptor, GuestAddress(memory_.Load<std::uint64_t>(descriptor)));
    const auto chain = queue_->Pop();
    ASSERT_FALSE(chain);
    EXPECT_THAT(chain.error().message(), HasSubstr(c.what));
  }
}

TEST(SplitQueueTest, DescriptorsAndIndicesOutsideTheRingBreakIt) {
  const struct {
    const char* what;
    std::function<void(TestMemory&, const QueueLayout&)> spoil;
  } cases[] = {
      {"linked in a circle",
       [](TestMemory& m, const QueueLayout& l) {
         m.Store<std::uint16_t>(l.descriptors + 12, kDescriptorNext);
         m.Store<std::uint16_t>(l.descriptors + 14, 0);
       }},
      {"descriptor 4 of a queue with 4",
       [](TestMemory& m, const QueueLayout& l) {
         m.Store<std::uint16_t>(l.descriptors + 12, kDescriptorNext);
         m.Store<std::uint16_t>(l.descriptors + 14, 4);
       }},
      {"descriptor 77 of a queue with 4",
       [](TestMemory& m, const QueueLayout& l) { m.Store<std::uint16_t>(l.driver_area + 4, 77); }},
      {"the available index jumps from 0 to 5",
       [](TestMemory& m, const QueueLayout& l) { m.Store<std::uint16_t>(l.driver_area + 2, 5); }},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    TestMemory memory;
    TestQueue driver(memory, 4, /*packed=*/false, /*event_index=*/false, /*indirect=*/false);
    auto queue = Queue::Create(memory.space(), driver.layout());
    ASSERT_TRUE(queue);
    driver.Add({{TestBuffer{memory.Put(BytesOf("x")), 1, false}}});
    c.spoil(memory, driver.layout());
    const auto chain = queue->Pop();
    ASSERT_FALSE(chain);
    EXPECT_THAT(chain.error().message(), HasSubstr(c.what));
  }
}

TEST(SplitQueueTest, OneRequestMadeAvailableAgainAndAgainBreaksIt) {
  TestMemory memory;
  TestQueue driver(memory, 4, /*packed=*/false, /*event_index=*/false, /*indirect=*/false);
  auto queue = Queue::Create(memory.space(), driver.layout());
  ASSERT_TRUE(queue);
  const TestBuffer buffer{memory.Put(BytesOf("x")), 1, false};
  int popped = 0;
  for (; popped < 10; ++popped) {
    driver.Add({{buffer}});
    if (!queue->Pop()) break;
  }
  EXPECT_EQ(popped, 4);
}

TEST(QueueLayoutTest, ImpossibleLayoutsAreRefusedInASentence) {
  TestMemory memory;
  const auto layout = [&](std::uint16_t size, bool packed, std::uint64_t descriptors,
                          std::uint64_t device) {
    QueueLayout l;
    l.size = size;
    l.packed = packed;
    l.descriptors = GuestAddress(descriptors);
    l.driver_area = GuestAddress(0x8000);
    l.device_area = GuestAddress(device);
    return l;
  };
  const struct {
    QueueLayout layout;
    const char* what;
  } cases[] = {
      {layout(0, false, 0x1000, 0x9000), "cannot have 0 entries"},
      {layout(6, false, 0x1000, 0x9000), "cannot have 6 entries"},
      {layout(32769, true, 0x1000, 0x9000), "cannot have 32769 entries"},
      {layout(8, false, 0x1008, 0x9000), "is not aligned"},
      {layout(8, false, 0xffff'ffff'ffff'fff0, 0x9000), "is not RAM"},
      {layout(8, true, 0x1000, 16ULL << 20), "is not RAM"},
      {layout(8, true, 0x1000, 0x9002), "is not aligned"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    const auto queue = Queue::Create(memory.space(), c.layout);
    ASSERT_FALSE(queue);
    EXPECT_THAT(queue.error().message(), HasSubstr(c.what));
  }
  EXPECT_TRUE(Queue::Create(memory.space(), layout(6, true, 0x1000, 0x9000)));
}

}  // namespace
}  // namespace holdfast::devices::virtio
