// SPDX-License-Identifier: Apache-2.0
#include "devices/i6300esb.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "devices/pci/test_services.h"

namespace holdfast::devices {
namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t kReload = 0x0c;

class I6300EsbTest : public ::testing::Test {
 protected:
  template <typename T>
  void Write(std::uint64_t offset, T value, bool unlock = true) {
    if (unlock) {
      Write<std::uint16_t>(kReload, 0x80, false);
      Write<std::uint16_t>(kReload, 0x86, false);
    }
    device_->WriteBar(0, offset, std::as_bytes(std::span(&value, 1)));
  }
  std::uint16_t Expired() {
    std::uint16_t value = 0;
    device_->ReadBar(0, kReload, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  void Enable(std::uint32_t more = 0) { device_->WriteConfig(0x68, 1, 2 | more); }
  // Whether it fires before a minute is over.
  bool RunUntilFired(int times) {
    const auto end = EventLoop::Clock::now() + std::chrono::minutes(1);
    while (fired_ < times && EventLoop::Clock::now() < end) {
      if (!loop_->RunOnce(milliseconds(100))) return false;
    }
    return fired_ >= times;
  }
  milliseconds Left() {
    return std::chrono::duration_cast<milliseconds>(*device_->deadline() - EventLoop::Clock::now());
  }

  int fired_ = 0;
  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  pci::testing::FakeServices services_;
  std::unique_ptr<I6300Esb> device_ =
      std::make_unique<I6300Esb>(services_, *loop_, [this] { ++fired_; });
};

TEST_F(I6300EsbTest, FiresAfterBothStagesAndSaysSoAfterTheReset) {
  Write<std::uint32_t>(0, 20);
  Write<std::uint32_t>(4, 20);
  EXPECT_FALSE(device_->deadline()) << "off until the guest turns it on";
  Enable();
  ASSERT_TRUE(RunUntilFired(1));
  device_->Reset();
  EXPECT_FALSE(device_->deadline());
  EXPECT_EQ(Expired(), 0x1200);
  Write<std::uint16_t>(kReload, 0x200);
  EXPECT_EQ(Expired(), 0);
  EXPECT_EQ(fired_, 1);
}

TEST_F(I6300EsbTest, AReloadStartsTheFirstStageAnew) {
  Write<std::uint32_t>(0, 60'000);
  Enable();
  const auto before = *device_->deadline();
  Write<std::uint16_t>(kReload, 0x100);
  EXPECT_GE(*device_->deadline(), before);
  Write<std::uint32_t>(0, 120'000);
  Write<std::uint16_t>(kReload, 0x100);
  EXPECT_GT(Left(), milliseconds(100'000));
  EXPECT_EQ(fired_, 0);
}

TEST_F(I6300EsbTest, WritesWithoutTheSequenceAreNone) {
  Write<std::uint32_t>(0, 1'000'000);
  Write<std::uint32_t>(0, 1, false);
  Write<std::uint16_t>(kReload, 0x86, false);  // the second half alone
  Write<std::uint32_t>(0, 1, false);
  Enable();
  EXPECT_GT(Left(), milliseconds(900'000));
}

TEST_F(I6300EsbTest, TheFastClockIsAThousandTimesFaster) {
  device_->WriteConfig(0x60, 2, 1 << 2);
  Write<std::uint32_t>(0, 0xfffff);
  Enable();
  EXPECT_LT(Left(), milliseconds(2'000));
}

TEST_F(I6300EsbTest, OnceLockedItStaysOn) {
  Enable(1);
  device_->WriteConfig(0x68, 1, 0);
  EXPECT_TRUE(device_->deadline());
  EXPECT_EQ(device_->ReadConfig(0x68, 1), 3U);
  device_->Reset();
  EXPECT_FALSE(device_->deadline());
  Enable();
  device_->WriteConfig(0x68, 1, 0);
  EXPECT_FALSE(device_->deadline()) << "not locked: off again";
}

TEST_F(I6300EsbTest, WithoutRebootItOnlyCounts) {
  device_->WriteConfig(0x60, 2, 1 << 5);
  Write<std::uint32_t>(0, 5);
  Write<std::uint32_t>(4, 5);
  Enable();
  const auto end = EventLoop::Clock::now() + std::chrono::minutes(1);
  while (device_->deadline() && EventLoop::Clock::now() < end) {
    ASSERT_TRUE(loop_->RunOnce(milliseconds(100)));
  }
  EXPECT_FALSE(device_->deadline());
  EXPECT_EQ(fired_, 0);
}

TEST_F(I6300EsbTest, WorkLeftInTheLoopFindsNoDevice) {
  Enable();
  device_.reset();
  EXPECT_TRUE(loop_->RunOnce(milliseconds(0)));
}

}  // namespace
}  // namespace holdfast::devices
