// SPDX-License-Identifier: Apache-2.0
#include "devices/rtc.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <ctime>
#include <optional>
#include <vector>

#include "base/event_loop.h"
#include "devices/rtc_regs.h"
#include "devices/test_support.h"

namespace holdfast::devices {
namespace {

using namespace rtc;  // NOLINT(google-build-using-namespace): the registers
using testing::FakeLine;

constexpr std::int64_t kSecond = 1'000'000'000;
// 2024-02-29 23:59:58 UTC, a Thursday.
constexpr std::int64_t kLeapDay = 1'709'251'198 * kSecond;

class RtcTest : public ::testing::Test {
 protected:
  std::uint8_t Cell(std::uint8_t index) {
    testing::Out(*rtc_, 0, index);
    return static_cast<std::uint8_t>(testing::In(*rtc_, 1));
  }
  void SetCell(std::uint8_t index, std::uint8_t value) {
    testing::Out(*rtc_, 0, index);
    testing::Out(*rtc_, 1, value);
  }
  std::vector<int> Cells(const std::vector<std::uint8_t>& indices) {
    std::vector<int> values;
    values.reserve(indices.size());
    for (const std::uint8_t index : indices) values.push_back(Cell(index));
    return values;
  }
  void Configure(const CmosConfig& config) {
    rtc_.emplace(nullptr, irq_, config, [this] { return now_; });
  }

  FakeLine irq_;
  std::int64_t now_ = kLeapDay;
  std::optional<Rtc> rtc_{std::in_place, nullptr, irq_, CmosConfig{}, [this] { return now_; }};
  const std::vector<std::uint8_t> date_ = {kCentury, kYear,  kMonth,   kDay,
                                           kWeekday, kHours, kMinutes, kSeconds};
};

TEST_F(RtcTest, TellsTheHostsTimeInBcd) {
  EXPECT_EQ(Cells(date_), (std::vector<int>{0x20, 0x24, 0x02, 0x29, 5, 0x23, 0x59, 0x58}));
  now_ += 2 * kSecond;
  EXPECT_EQ(Cells(date_), (std::vector<int>{0x20, 0x24, 0x03, 0x01, 6, 0, 0, 0}));
  EXPECT_EQ(Cell(kD), kDValid);
}

TEST_F(RtcTest, TellsBySoManySecondsTheGuestHasSetIt) {
  std::vector<std::int64_t> told;
  rtc_->SetTimeChanged([&](std::int64_t seconds) { told.push_back(seconds); });
  SetCell(kB, kB24Hours | kBSet);
  SetCell(kHours, 0x22);
  SetCell(kMinutes, 0x58);
  EXPECT_TRUE(told.empty()) << "while it is being set";
  SetCell(kB, kB24Hours);
  EXPECT_EQ(told, std::vector<std::int64_t>{-3660});
}

TEST_F(RtcTest, HasTheOtherForms) {
  const struct {
    const char* why;
    std::uint8_t b;
    std::int64_t hours_later;
    int hour;
    int minute;
  } kCases[] = {
      {"binary, 24 hours", kB24Hours | kBBinary, 0, 23, 59},
      {"BCD, 12 hours, 11 pm", 0, 0, 0x91, 0x59},
      {"BCD, 12 hours, midnight is 12 am", 0, 1, 0x12, 0x59},
      {"binary, 12 hours, noon is 12 pm", kBBinary, 13, 12 | kHourPm, 59},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    now_ = kLeapDay + c.hours_later * 3600 * kSecond;
    SetCell(kB, c.b);
    EXPECT_EQ(Cells({kHours, kMinutes}), (std::vector<int>{c.hour, c.minute}));
  }
}

TEST_F(RtcTest, AnnouncesTheUpdate) {
  now_ = kLeapDay + kSecond - 245'000;
  EXPECT_EQ(Cell(kA), kADefault);
  now_ = kLeapDay + kSecond - 244'000;
  EXPECT_EQ(Cell(kA), kADefault | kAUpdating);
  EXPECT_EQ(Cell(kSeconds), 0x58) << "still the old time";
  now_ = kLeapDay + kSecond;
  EXPECT_EQ(Cell(kA), kADefault);
  EXPECT_EQ(Cell(kSeconds), 0x59);
}

// Linux's mc146818_set_time().
TEST_F(RtcTest, KeepsTheTimeTheGuestSets) {
  SetCell(kB, kB24Hours | kBSet);
  SetCell(kA, kADefault | kADividerReset);
  const std::vector<std::pair<std::uint8_t, std::uint8_t>> kNew = {
      {kYear, 0x99},    {kMonth, 0x12},   {kDay, 0x31},    {kHours, 0x23},
      {kMinutes, 0x59}, {kSeconds, 0x59}, {kCentury, 0x19}};
  for (const auto& [index, value] : kNew) SetCell(index, value);
  now_ += 7 * kSecond;
  EXPECT_EQ(Cell(kSeconds), 0x59) << "time stands while it is set";
  EXPECT_EQ(Cell(kA) & kAUpdating, 0);
  SetCell(kB, kB24Hours);
  SetCell(kA, kADefault);
  EXPECT_EQ(Cells(date_), (std::vector<int>{0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59}));
  now_ += kSecond;
  EXPECT_EQ(Cells(date_), (std::vector<int>{0x20, 0x00, 0x01, 0x01, 7, 0, 0, 0}));
}

TEST_F(RtcTest, DoesNotTakeOverADateThatDoesNotExist) {
  const struct {
    std::uint8_t index;
    std::uint8_t value;
  } kCases[] = {{kDay, 0x30},     {kMonth, 0x13},   {kHours, 0x24},   {kMinutes, 0x60},
                {kSeconds, 0xff}, {kCentury, 0x18}, {kCentury, 0x99}, {kCenturyPs2, 0x22}};
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.index);
    SetCell(c.index, c.value);
    EXPECT_EQ(Cells(date_), (std::vector<int>{0x20, 0x24, 0x02, 0x29, 5, 0x23, 0x59, 0x58}));
  }
}

TEST_F(RtcTest, IgnoresTheNmiMask) {
  EXPECT_EQ(Cell(0x80 | kYear), 0x24);
}

TEST_F(RtcTest, TheIndexReadsAsOnes) {
  EXPECT_EQ(testing::In(*rtc_, 0), 0xffU);
  testing::Out(*rtc_, 0, kYear);
  EXPECT_EQ(testing::In<2>(*rtc_, 0), 0x24ffU);
  testing::Out<2>(*rtc_, 0, 0x5540);
  EXPECT_EQ(Cell(0x40), 0x55);
}

TEST_F(RtcTest, MemoryHoldsWhatIsWritten) {
  for (unsigned i = 0x0e; i < 128; ++i) {
    if (i == kCentury || i == kCenturyPs2) continue;
    SetCell(static_cast<std::uint8_t>(i), static_cast<std::uint8_t>(i ^ 0xff));
    EXPECT_EQ(Cell(static_cast<std::uint8_t>(i)), i ^ 0xff);
  }
}

TEST_F(RtcTest, TellsTheMemorySizes) {
  constexpr std::uint64_t kMiB = 1 << 20;
  const struct {
    const char* why;
    CmosConfig config;
    unsigned base_kib, above_1m_kib, above_16m, above_4g;
    int cpus;
  } kCases[] = {
      {"nothing", {}, 0, 0, 0, 0, 0},
      {"512 KiB", {.ram_below_4g = kMiB / 2}, 512, 0, 0, 0, 0},
      {"8 MiB", {.ram_below_4g = 8 * kMiB, .cpus = 4}, 640, 7 * 1024, 0, 0, 3},
      {"2 GiB", {.ram_below_4g = 2048 * kMiB}, 640, 0xffff, (2048 - 16) * 16, 0, 0},
      {"6 GiB", {2048 * kMiB, 4096 * kMiB, 256}, 640, 0xffff, (2048 - 16) * 16, 0x10000, 255},
      {"4 TiB", {3072 * kMiB, kMiB << 22, 300}, 640, 0xffff, (3072 - 16) * 16, 0xffffff, 255},
  };
  const auto cell16 = [&](std::uint8_t index) {
    return Cell(index) | static_cast<unsigned>(Cell(index + 1) << 8);
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    Configure(c.config);
    EXPECT_EQ(cell16(kBaseMemory), c.base_kib);
    EXPECT_EQ(cell16(kExtendedMemory), c.above_1m_kib);
    EXPECT_EQ(cell16(kExtendedMemory2), c.above_1m_kib);
    EXPECT_EQ(cell16(kMemoryAbove16M), c.above_16m);
    EXPECT_EQ(cell16(kMemoryAbove4G) | static_cast<unsigned>(Cell(kMemoryAbove4G + 2) << 16),
              c.above_4g);
    EXPECT_EQ(Cell(kCpusMinusOne), c.cpus);
  }
}

TEST_F(RtcTest, FlagsComeAndGoWithReading) {
  Cell(kC);
  now_ += kSecond;
  EXPECT_EQ(Cell(kC), kBPeriodic | kBUpdate) << "flags without interrupts enabled";
  EXPECT_EQ(Cell(kC), 0);
}

TEST_F(RtcTest, TheAlarmMatchesItsCells) {
  const struct {
    const char* why;
    std::uint8_t hour, minute, second;
    std::int64_t seconds;  // from kLeapDay to the alarm
  } kCases[] = {
      {"next second", 0x23, 0x59, 0x59, 1},
      {"just past: tomorrow", 0x23, 0x59, 0x58, 86'400},
      {"after midnight", 0x00, 0x00, 0x03, 5},
      {"every second", 0xff, 0xc0, 0xc0, 1},
      {"every minute", 0xff, 0xff, 0x10, 12},
      {"every hour", 0xff, 0x30, 0x00, 1802},
      {"any second of a minute", 0x01, 0x02, 0xff, 2 + 3600 + 120},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    now_ = kLeapDay;
    Configure({});
    SetCell(kHoursAlarm, c.hour);
    SetCell(kMinutesAlarm, c.minute);
    SetCell(kSecondsAlarm, c.second);
    now_ += c.seconds * kSecond - 1;
    EXPECT_EQ(Cell(kC) & kBAlarm, 0);
    now_ += 1;
    EXPECT_EQ(Cell(kC) & kBAlarm, kBAlarm);
  }
}

TEST_F(RtcTest, AnAlarmThatIsNoTimeNeverComes) {
  SetCell(kHoursAlarm, 0x25);
  Cell(kC);
  now_ += std::int64_t{3} * 86'400 * kSecond;
  EXPECT_EQ(Cell(kC) & kBAlarm, 0);
}

TEST_F(RtcTest, PeriodicTicksFollowTheRate) {
  const struct {
    std::uint8_t rate;
    std::int64_t hz;
  } kCases[] = {{1, 256}, {2, 128}, {3, 8192}, {6, 1024}, {15, 2}};
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.hz);
    now_ = kLeapDay;
    Configure({});
    SetCell(kA, 0x20 | c.rate);
    Cell(kC);
    now_ += kSecond / c.hz - 1;
    EXPECT_EQ(Cell(kC) & kBPeriodic, 0);
    now_ += 2;
    EXPECT_EQ(Cell(kC) & kBPeriodic, kBPeriodic);
  }
  SetCell(kA, 0x20);
  Cell(kC);
  now_ += kSecond;
  EXPECT_EQ(Cell(kC) & kBPeriodic, 0) << "rate 0 is off";
}

TEST_F(RtcTest, AHostClockThatGoesBackIsSurvived) {
  Cell(kC);
  now_ -= 3600 * kSecond;
  EXPECT_EQ(Cell(kC), 0);
  EXPECT_EQ(Cell(kHours), 0x22);
  now_ += kSecond;
  EXPECT_EQ(Cell(kC) & kBUpdate, kBUpdate);
}

TEST_F(RtcTest, AForgedStateIsMadeHarmless) {
  Rtc::State state = rtc_->Save();
  state.index = 0xff;
  for (const std::int64_t offset : {INT64_MIN, INT64_MAX}) {
    state.offset_ns = offset;
    state.cells.fill(0xff);
    rtc_->Restore(state);
    state.cells.fill(0);
    rtc_->Restore(state);
    Cells(date_);
    Cell(kC);
  }
}

// With the loop and the real clock.
class RtcInterruptTest : public ::testing::Test {
 protected:
  void Set(std::uint8_t index, std::uint8_t value) {
    testing::Out(*rtc_, 0, index);
    testing::Out(*rtc_, 1, value);
  }
  std::uint8_t Flags() {
    testing::Out(*rtc_, 0, kC);
    return static_cast<std::uint8_t>(testing::In(*rtc_, 1));
  }
  void AwaitInterrupt() {
    const auto deadline = EventLoop::Clock::now() + std::chrono::seconds(10);
    while (!irq_.level() && EventLoop::Clock::now() < deadline)
      ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(100)));
    ASSERT_TRUE(irq_.level());
  }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  FakeLine irq_;
  std::optional<Rtc> rtc_{std::in_place, loop_.get(), irq_, CmosConfig{}};
};

TEST_F(RtcInterruptTest, PeriodicInterruptsComeAsLongAsTheyAreAcknowledged) {
  Set(kB, kB24Hours | kBPeriodic);
  for (int i = 1; i <= 3; ++i) {
    AwaitInterrupt();
    EXPECT_EQ(irq_.rises(), i);
    EXPECT_EQ(Flags() & (kCInterrupt | kBPeriodic), kCInterrupt | kBPeriodic);
    EXPECT_FALSE(irq_.level());
  }
}

TEST_F(RtcInterruptTest, UpdateAndAlarmComeWithTheSecond) {
  Set(kHoursAlarm, 0xff);
  Set(kMinutesAlarm, 0xff);
  Set(kSecondsAlarm, 0xff);
  Set(kB, kB24Hours | kBUpdate | kBAlarm);
  AwaitInterrupt();
  const std::uint8_t flags = Flags();
  EXPECT_EQ(flags & (kBUpdate | kBAlarm), kBUpdate | kBAlarm);
}

TEST_F(RtcInterruptTest, DisablingOrResettingEndsIt) {
  Set(kB, kB24Hours | kBPeriodic);
  AwaitInterrupt();
  Set(kB, kB24Hours);
  EXPECT_FALSE(irq_.level());
  Set(kB, kB24Hours | kBPeriodic);
  AwaitInterrupt();
  rtc_->Reset();
  EXPECT_FALSE(irq_.level());
}

TEST_F(RtcInterruptTest, MayGoWhileItsTimerIsOnTheWay) {
  Set(kB, kB24Hours | kBPeriodic);
  rtc_.reset();
  ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(0)));
  ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(5)));
  EXPECT_EQ(irq_.rises(), 0);
}

}  // namespace
}  // namespace holdfast::devices
