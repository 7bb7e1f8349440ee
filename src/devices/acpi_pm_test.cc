// SPDX-License-Identifier: Apache-2.0
#include "devices/acpi_pm.h"

#include <gtest/gtest.h>

#include <string>

#include "devices/test_support.h"

namespace holdfast::devices {
namespace {

using namespace acpi;  // NOLINT(google-build-using-namespace): the registers
using testing::FakeLine;

class AcpiPmTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(pm_.MapOn(io_)); }

  template <std::size_t Width>
  std::uint32_t In(std::uint16_t port) {
    std::array<std::byte, Width> data{};
    EXPECT_TRUE(io_.Read(port, data));
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < Width; ++i)
      value |= std::to_integer<std::uint32_t>(data.at(i)) << (8 * i);
    return value;
  }
  template <std::size_t Width>
  void Out(std::uint16_t port, std::uint32_t value) {
    std::array<std::byte, Width> data{};
    for (std::size_t i = 0; i < Width; ++i) data.at(i) = static_cast<std::byte>(value >> (8 * i));
    EXPECT_TRUE(io_.Write(port, data));
  }
  void TakeOver() {
    Out<1>(kSmiCommandPort, kAcpiEnable);
    Out<2>(kPm1EventPort + kPm1Enable, kPm1PowerButton);
  }

  FakeLine sci_;
  std::string calls_;
  std::uint64_t now_ns_ = 5'000'000'000;
  AcpiPm pm_{
      sci_,
      {.reset = [this] { calls_ += "reset "; }, .shutdown = [this] { calls_ += "shutdown "; }},
      [this] { return now_ns_; }};
  Bus io_;
};

// What Linux does from "ACPI: Enabled" to the button's handler.
TEST_F(AcpiPmTest, ThePowerButtonReachesAGuestThatAskedForIt) {
  EXPECT_EQ(In<2>(kPm1ControlPort) & kPm1SciEnable, 0U);
  TakeOver();
  EXPECT_EQ(In<2>(kPm1ControlPort) & kPm1SciEnable, kPm1SciEnable);
  EXPECT_FALSE(sci_.level());
  pm_.PressPowerButton();
  EXPECT_TRUE(sci_.level());
  EXPECT_EQ(In<2>(kPm1EventPort), std::uint32_t{kPm1PowerButton});
  Out<2>(kPm1EventPort, 1);
  EXPECT_TRUE(sci_.level()) << "another bit's 1 clears nothing";
  Out<2>(kPm1EventPort, kPm1PowerButton);
  EXPECT_FALSE(sci_.level());
  EXPECT_EQ(In<2>(kPm1EventPort), 0U);
}

TEST_F(AcpiPmTest, ThePowerButtonWaitsUntilItIsEnabled) {
  pm_.PressPowerButton();
  EXPECT_FALSE(sci_.level());
  Out<2>(kPm1EventPort + kPm1Enable, kPm1PowerButton);
  EXPECT_FALSE(sci_.level()) << "the firmware still owns the hardware";
  Out<1>(kSmiCommandPort, kAcpiEnable);
  EXPECT_TRUE(sci_.level());
  Out<1>(kSmiCommandPort, kAcpiDisable);
  EXPECT_FALSE(sci_.level());
}

TEST_F(AcpiPmTest, OnlyTheSleepOrderWithSoftOffShutsDown) {
  const struct {
    const char* why;
    std::uint32_t value;
    const char* want;
  } kCases[] = {
      {"S5", kPm1SleepEnable | (kSleepTypeS5 << kPm1SleepTypeShift), "shutdown "},
      {"S5 with SCI_EN, as Linux writes it", kPm1SleepEnable | kPm1SciEnable, "shutdown "},
      {"the type alone, Linux's first write", kPm1SciEnable, ""},
      {"another type", kPm1SleepEnable | (1 << kPm1SleepTypeShift), ""},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    calls_.clear();
    Out<2>(kPm1ControlPort, c.value);
    EXPECT_EQ(calls_, c.want);
    EXPECT_EQ(In<2>(kPm1ControlPort) & kPm1SleepEnable, 0U) << "SLP_EN is write-only";
  }
}

TEST_F(AcpiPmTest, BytesOfTheControlRegisterWorkAlone) {
  Out<1>(kPm1ControlPort, kPm1SciEnable);
  Out<1>(kPm1ControlPort + 1, kPm1SleepEnable >> 8);
  EXPECT_EQ(calls_, "shutdown ");
  EXPECT_EQ(In<2>(kPm1ControlPort), std::uint32_t{kPm1SciEnable});
}

TEST_F(AcpiPmTest, TheResetRegisterResets) {
  const struct {
    const char* want;
    std::uint32_t value;
    std::uint32_t reads;
  } kCases[] = {
      {"", 0x02, 0x02},       {"reset ", 0x06, 0x02},
      {"reset ", 0x0e, 0x02}, {"reset ", kResetValue, 0x02},
      {"", 0x00, 0x00},       {"", 0xf1, 0x00},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.value);
    calls_.clear();
    Out<1>(kResetPort, c.value);
    EXPECT_EQ(calls_, c.want);
    EXPECT_EQ(In<1>(kResetPort), c.reads);
  }
}

TEST_F(AcpiPmTest, TheTimerRunsAtItsFrequency) {
  EXPECT_EQ(In<4>(kPmTimerPort), 0U);
  now_ns_ += 1'000'000'000;
  EXPECT_EQ(In<4>(kPmTimerPort), kPmTimerHz);
  now_ns_ += 500'000'000;
  EXPECT_EQ(In<4>(kPmTimerPort), kPmTimerHz * 3 / 2);
  now_ns_ += 2'000ULL * 1'000'000'000;
  EXPECT_EQ(In<4>(kPmTimerPort), (kPmTimerHz * 2001 + kPmTimerHz / 2) & 0xffffffff) << "it wraps";
  Out<4>(kPmTimerPort, 0);
  EXPECT_NE(In<4>(kPmTimerPort), 0U) << "read-only";
}

TEST_F(AcpiPmTest, TheRealClockMoves) {
  AcpiPm pm(sci_, {});
  const std::uint32_t start = testing::In<4>(pm, kPmTimer);
  std::uint32_t now = start;
  while (now == start) now = testing::In<4>(pm, kPmTimer);
  EXPECT_LT(now - start, kPmTimerHz * 60);
}

TEST_F(AcpiPmTest, GeneralPurposeEventsAreThereAndInert) {
  for (std::uint16_t i = 0; i < kGpe0Length; ++i) Out<1>(kGpe0Port + i, 0xff);
  for (std::uint16_t i = 0; i < kGpe0Length; ++i)
    EXPECT_EQ(In<1>(kGpe0Port + i), i < kGpe0Length / 2 ? 0U : 0xffU);
  EXPECT_FALSE(sci_.level());
}

TEST_F(AcpiPmTest, SmiStatusIsAScratchByte) {
  Out<1>(kSmiStatusPort, 0x77);
  EXPECT_EQ(In<1>(kSmiStatusPort), 0x77U);
  Out<1>(kSmiCommandPort, 0x99);
  EXPECT_EQ(In<1>(kSmiCommandPort), 0x99U);
  EXPECT_EQ(In<2>(kPm1ControlPort), 0U) << "an unknown command does nothing";
}

TEST_F(AcpiPmTest, HolesReadAsOnes) {
  EXPECT_EQ(In<4>(kPmBase + 0x0c), 0xffffffffU);
}

TEST_F(AcpiPmTest, ResetEndsTheInterruptAndGivesTheHardwareBack) {
  TakeOver();
  pm_.PressPowerButton();
  now_ns_ += 1'000'000;
  pm_.Reset();
  EXPECT_FALSE(sci_.level());
  EXPECT_EQ(In<4>(kPm1EventPort), 0U);
  EXPECT_EQ(In<2>(kPm1ControlPort), 0U);
  EXPECT_EQ(In<4>(kPmTimerPort), 0U);
}

TEST_F(AcpiPmTest, StateMovesToAnotherMachine) {
  TakeOver();
  pm_.PressPowerButton();
  now_ns_ += 1'000'000'000;
  FakeLine sci;
  AcpiPm other(sci, {}, [] { return std::uint64_t{77}; });
  other.Restore(pm_.Save());
  EXPECT_TRUE(sci.level());
  EXPECT_EQ(testing::In<4>(other, kPmTimer), kPmTimerHz) << "the timer goes on where it was";
}

}  // namespace
}  // namespace holdfast::devices
