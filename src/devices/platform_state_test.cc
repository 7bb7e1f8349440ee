// SPDX-License-Identifier: Apache-2.0
// The state of a PC's own devices, saved from one and loaded into another.
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "base/event_loop.h"
#include "base/state.h"
#include "devices/acpi_pm.h"
#include "devices/fw_cfg.h"
#include "devices/i8042.h"
#include "devices/rtc.h"
#include "devices/rtc_regs.h"
#include "devices/serial.h"
#include "devices/test_support.h"

namespace holdfast::devices {
namespace {

using testing::Bytes;
using testing::FakeChardev;
using testing::FakeLine;
using testing::In;
using testing::Out;

constexpr std::int64_t kSecond = 1'000'000'000;

template <typename Device>
std::vector<std::byte> Saved(Device& device) {
  state::Fields fields(1);
  device.VisitState(fields);
  EXPECT_TRUE(fields.status());
  return std::move(fields).Take();
}

template <typename Device>
Status Load(Device& device, std::span<const std::byte> bytes) {
  state::Fields fields(1, bytes);
  device.VisitState(fields);
  return fields.status();
}

// No part of a section is one, and whatever stands in it, the device goes on answering.
template <typename Device>
void SurvivesHostileSections(Device& device) {
  const std::vector<std::byte> whole = Saved(device);
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(Load(device, std::span(whole).first(size))) << size;
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same each time
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::byte> flipped = whole;
    for (int flips = 0; flips < 3; ++flips)
      flipped[random() % flipped.size()] ^= static_cast<std::byte>(random());
    (void)Load(device, flipped);
    for (std::uint64_t offset = 0; offset < 8; ++offset) (void)In(device, offset);
    Out(device, random() % 8, static_cast<std::uint32_t>(random()));
  }
  EXPECT_TRUE(Load(device, whole));
}

TEST(PlatformState, ASerialPortKeepsItsRegistersAndWhatIsInIt) {
  using namespace serial;  // NOLINT(google-build-using-namespace): the registers
  FakeLine irq;
  FakeChardev far_end;
  Serial port(&far_end, irq);
  Out(port, kFcr, kFcrEnable);
  Out(port, kIer, kIerRxData);
  Out(port, kScr, 0x5a);
  port.Receive(Bytes("in"));
  far_end.room = 0;
  for (const char c : std::string_view("out")) Out(port, kThr, static_cast<std::uint8_t>(c));
  ASSERT_TRUE(irq.level());

  FakeLine other_irq;
  FakeChardev other_end;
  Serial other(&other_end, other_irq);
  ASSERT_TRUE(Load(other, Saved(port)));
  EXPECT_EQ(other_end.output, "out") << "what had not been written yet";
  EXPECT_EQ(far_end.output, "");
  EXPECT_EQ(other_irq.rises(), 1) << "the line is raised once";
  EXPECT_EQ(In(other, kScr), 0x5aU);
  EXPECT_EQ(In(other, kRbr), std::uint32_t{'i'});
  EXPECT_EQ(In(other, kRbr), std::uint32_t{'n'});
  EXPECT_FALSE(other_irq.level());
}

TEST(PlatformState, ASerialPortThatCouldNotWriteKeepsItsBytes) {
  using namespace serial;  // NOLINT(google-build-using-namespace): the registers
  FakeLine irq;
  FakeChardev far_end;
  far_end.room = 1;
  Serial port(&far_end, irq);
  Out(port, kFcr, kFcrEnable);
  for (const char c : std::string_view("abc")) Out(port, kThr, static_cast<std::uint8_t>(c));
  FakeChardev full;
  full.room = 0;
  Serial other(&full, irq);
  ASSERT_TRUE(Load(other, Saved(port)));
  EXPECT_EQ(In(other, kLsr) & kLsrThrEmpty, 0U);
  full.room = 10;
  full.writable();
  EXPECT_EQ(far_end.output + full.output, "abc") << "each byte exactly once";
}

TEST(PlatformState, ThePmTimerGoesOnFromWhereItWas) {
  using namespace acpi;  // NOLINT(google-build-using-namespace): the registers
  FakeLine sci;
  std::uint64_t now = 5'000'000'000;
  AcpiPm pm(sci, {}, [&now] { return now; });
  now += 1'000'000'000;
  Out<2>(pm, kPm1Enable, kPm1PowerButton);
  Out<2>(pm, kPm1Control, kPm1SciEnable);
  pm.PressPowerButton();
  FakeLine other_sci;
  std::uint64_t other_now = 77;
  AcpiPm other(other_sci, {}, [&other_now] { return other_now; });
  ASSERT_TRUE(Load(other, Saved(pm)));
  EXPECT_EQ(In<4>(other, kPmTimer), kPmTimerHz);
  EXPECT_EQ(other_sci.rises(), 1);
  Out<2>(other, kPm1Status, kPm1PowerButton);
  EXPECT_FALSE(other_sci.level());
}

TEST(PlatformState, AnEventThatTheGuestHasEnabledRaisesTheSciUntilItIsCleared) {
  using namespace acpi;  // NOLINT(google-build-using-namespace): the registers
  constexpr std::uint64_t kEnable = kGpe0 + kGpe0Length / 2;
  FakeLine sci;
  AcpiPm pm(sci, {});
  Out<2>(pm, kPm1Control, kPm1SciEnable);
  pm.Raise(kGenerationEvent);
  EXPECT_FALSE(sci.level()) << "not enabled";
  Out(pm, kEnable, 1U << kGenerationEvent);
  EXPECT_TRUE(sci.level());
  FakeLine other_sci;
  AcpiPm other(other_sci, {});
  ASSERT_TRUE(Load(other, Saved(pm)));
  EXPECT_TRUE(other_sci.level());
  EXPECT_EQ(In(other, kGpe0), 1U << kGenerationEvent);
  Out(other, kGpe0, 1U << kGenerationEvent);
  EXPECT_FALSE(other_sci.level());
  EXPECT_EQ(In(other, kGpe0), 0U);
  other.Raise(64);  // none such
  EXPECT_FALSE(other_sci.level());
}

TEST(PlatformState, TheKeyboardControllerKeepsACommandThatWaitsForItsByte) {
  I8042 controller({});
  Out(controller, 4, 0x60);  // the next byte is the configuration
  I8042 other({});
  ASSERT_TRUE(Load(other, Saved(controller)));
  Out(other, 0, 0x47);
  Out(other, 4, 0x20);  // read it
  EXPECT_EQ(In(other, 0), 0x47U);
}

class FwCfgStateTest : public ::testing::Test {
 protected:
  void Fill(FwCfg& device, std::string_view contents) {
    const auto bytes = Bytes(contents);
    ASSERT_TRUE(device.AddFile("opt/test", {bytes.begin(), bytes.end()}));
  }
  AddressSpace memory_{nullptr};
};

TEST_F(FwCfgStateTest, GoesOnInTheMiddleOfAnItem) {
  FwCfg device(memory_);
  ASSERT_NO_FATAL_FAILURE(Fill(device, "abcdef"));
  Out<2>(device, 0, static_cast<std::uint32_t>(FwCfg::Key::kFirstFile));
  (void)In(device, 1);
  (void)In(device, 1);
  Out<4>(device, 4, 0x01000000);  // upper half of a DMA address
  FwCfg other(memory_);
  ASSERT_NO_FATAL_FAILURE(Fill(other, "abcdef"));
  const auto saved = Saved(device);
  ASSERT_TRUE(Load(other, saved));
  EXPECT_EQ(Saved(other), saved);
  EXPECT_EQ(In(other, 1), std::uint32_t{'c'});
  FwCfg shorter(memory_);
  ASSERT_NO_FATAL_FAILURE(Fill(shorter, "x"));
  ASSERT_TRUE(Load(shorter, saved));
  EXPECT_EQ(In(shorter, 1), 0U) << "behind the end";
}

TEST_F(FwCfgStateTest, SurvivesAnything) {
  FwCfg device(memory_);
  Out<2>(device, 0, static_cast<std::uint32_t>(FwCfg::Key::kSignature));
  SurvivesHostileSections(device);
}

class RtcStateTest : public ::testing::Test {
 protected:
  std::uint8_t Cell(Rtc& rtc, std::uint8_t index) {
    Out(rtc, 0, index);
    return static_cast<std::uint8_t>(In(rtc, 1));
  }
  FakeLine irq_;
  std::int64_t now_ = 1'709'251'190 * kSecond;  // 2024-02-29 23:59:50 UTC
  std::int64_t host_ = now_;
  Rtc rtc_{nullptr, irq_, CmosConfig{}, [this] { return now_; }};
};

TEST_F(RtcStateTest, StandsBetweenSaveAndLoadUnlessItFollowsTheHost) {
  for (const bool follows : {false, true}) {
    Rtc from(nullptr, irq_, CmosConfig{}, [this] { return now_; });
    std::int64_t other_now = 5 * kSecond;  // of another start: 1970
    Rtc to(nullptr, irq_, CmosConfig{}, [&] { return other_now; });
    if (follows) {
      from.CatchUpWith([this] { return host_; });
      to.CatchUpWith([this] { return host_ + 3 * kSecond; });
    }
    ASSERT_TRUE(Load(to, Saved(from)));
    EXPECT_EQ(Cell(to, rtc::kSeconds), follows ? 0x53 : 0x50);
    EXPECT_EQ(Cell(to, rtc::kMinutes), 0x59);
    EXPECT_EQ(Cell(to, rtc::kYear), 0x24);
    other_now += kSecond;
    EXPECT_EQ(Cell(to, rtc::kSeconds), follows ? 0x54 : 0x51);
  }
}

TEST_F(RtcStateTest, AnAlarmThatWasDueMeanwhileComes) {
  auto loop = EventLoop::Create();
  ASSERT_TRUE(loop);
  rtc_.CatchUpWith([this] { return host_; });
  Out(rtc_, 0, rtc::kSecondsAlarm);
  Out(rtc_, 1, 0x52);
  Out(rtc_, 0, rtc::kMinutesAlarm);
  Out(rtc_, 1, rtc::kAlarmAny);
  Out(rtc_, 0, rtc::kHoursAlarm);
  Out(rtc_, 1, rtc::kAlarmAny);
  Out(rtc_, 0, rtc::kB);
  Out(rtc_, 1, rtc::kB24Hours | rtc::kBAlarm);
  FakeLine line;
  Rtc other(loop->get(), line, CmosConfig{}, [this] { return now_ + 10 * kSecond; });
  other.CatchUpWith([this] { return host_ + 10 * kSecond; });
  ASSERT_TRUE(Load(other, Saved(rtc_)));
  EXPECT_FALSE(line.level()) << "not before all is in place";
  for (int i = 0; i < 600 && !line.level(); ++i)
    ASSERT_TRUE((*loop)->RunOnce(std::chrono::milliseconds(100)));
  EXPECT_TRUE(line.level());
}

TEST_F(RtcStateTest, ATimeFarAwayIsRefused) {
  constexpr std::int64_t kFar[] = {std::numeric_limits<std::int64_t>::min(),
                                   -4'000'000'000 * kSecond, 9'000'000'000 * kSecond,
                                   std::numeric_limits<std::int64_t>::max()};
  for (const std::int64_t time : kFar) {
    state::Fields fields(1);
    Rtc::State state = rtc_.Save();
    std::int64_t far = time;
    std::int64_t host = 0;
    fields.Value("index", state.index);
    fields.Struct("cells", state.cells);
    fields.Value("time", far);
    fields.Value("host-time", host);
    const auto bytes = std::move(fields).Take();
    const Status status = Load(rtc_, bytes);
    ASSERT_FALSE(status) << time;
    EXPECT_EQ(status.error().message(), "the clock's time is out of range");
  }
}

TEST_F(RtcStateTest, TheLastDayThatAGuestCanSetIsLoaded) {
  for (const auto& [index, value] :
       std::vector<std::pair<std::uint8_t, std::uint8_t>>{{rtc::kB, rtc::kB24Hours | rtc::kBSet},
                                                          {rtc::kCentury, 0x21},
                                                          {rtc::kYear, 0x99},
                                                          {rtc::kMonth, 0x12},
                                                          {rtc::kDay, 0x31},
                                                          {rtc::kB, rtc::kB24Hours}}) {
    Out(rtc_, 0, index);
    Out(rtc_, 1, value);
  }
  Rtc other(nullptr, irq_, CmosConfig{}, [this] { return now_; });
  ASSERT_TRUE(Load(other, Saved(rtc_)));
  EXPECT_EQ(Cell(other, rtc::kCentury), 0x21);
  EXPECT_EQ(Cell(other, rtc::kYear), 0x99);
}

TEST_F(RtcStateTest, SurvivesAnything) {
  SurvivesHostileSections(rtc_);
}

TEST(PlatformState, HostileSectionsDoNoHarm) {
  FakeLine line;
  FakeChardev far_end;
  Serial port(&far_end, line);
  port.Receive(Bytes("x"));
  SurvivesHostileSections(port);
  AcpiPm pm(line, {});
  SurvivesHostileSections(pm);
  I8042 controller({});
  SurvivesHostileSections(controller);
}

}  // namespace
}  // namespace holdfast::devices
