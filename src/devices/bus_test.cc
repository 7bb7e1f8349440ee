// SPDX-License-Identifier: Apache-2.0
#include "devices/bus.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace holdfast::devices {
namespace {

class Recorder final : public BusDevice {
 public:
  explicit Recorder(std::string name) : name_(std::move(name)) {}
  std::string_view name() const noexcept override { return name_; }
  void Read(std::uint64_t offset, std::span<std::byte> data) noexcept override {
    offsets.push_back(offset);
    data[0] = std::byte{0x42};
  }
  void Write(std::uint64_t offset, std::span<const std::byte> /*data*/) noexcept override {
    offsets.push_back(offset);
  }
  void Reset() noexcept override {}

  std::vector<std::uint64_t> offsets;

 private:
  std::string name_;
};

constexpr std::uint64_t kMax = UINT64_MAX;

TEST(Bus, AcceptsOnlyRangesThatExistAndAreFree) {
  const struct {
    const char* why;
    std::uint64_t base;
    std::uint64_t size;
    const char* error;  // empty: accepted
  } kCases[] = {
      {"empty", 0x10, 0, "new: empty range at 0x10"},
      {"wraps", kMax, 2, "new: the range of 0x2 bytes at 0xffffffffffffffff wraps"},
      {"the last byte there is", kMax, 1, ""},
      {"just below", 0xf0, 0x10, ""},
      {"just above", 0x108, 8, ""},
      {"same", 0x100, 8, "new at [0x100, 0x107] meets old at [0x100, 0x107]"},
      {"inside", 0x103, 1, "new at [0x103, 0x103] meets old at [0x100, 0x107]"},
      {"around", 0x0, 0x1000, "new at [0x0, 0xfff] meets old at [0x100, 0x107]"},
      {"into its start", 0xff, 2, "new at [0xff, 0x100] meets old at [0x100, 0x107]"},
      {"out of its end", 0x107, 2, "new at [0x107, 0x108] meets old at [0x100, 0x107]"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    Bus bus;
    Recorder old("old");
    Recorder device("new");
    ASSERT_TRUE(bus.Map(0x100, 8, old));
    const Status mapped = bus.Map(c.base, c.size, device);
    EXPECT_EQ(mapped ? "" : mapped.error().message(), c.error);
  }
}

TEST(Bus, ReachesTheDeviceWithItsOwnOffsets) {
  Bus bus;
  Recorder low("low");
  Recorder twice("twice");
  ASSERT_TRUE(bus.Map(0x60, 1, twice));
  ASSERT_TRUE(bus.Map(0x61, 3, low));
  ASSERT_TRUE(bus.Map(0x64, 2, twice, 4));
  std::array<std::byte, 1> data{};
  for (const std::uint64_t address : {0x60U, 0x64U, 0x65U}) EXPECT_TRUE(bus.Read(address, data));
  EXPECT_TRUE(bus.Write(0x63, data));
  EXPECT_EQ(twice.offsets, (std::vector<std::uint64_t>{0, 4, 5}));
  EXPECT_EQ(low.offsets, std::vector<std::uint64_t>{2});
}

TEST(Bus, WhatNobodyAnswersReadsAsOnes) {
  Bus bus;
  Recorder device("device");
  ASSERT_TRUE(bus.Map(0x100, 4, device));
  const struct {
    const char* why;
    std::uint64_t address;
    std::size_t size;
    bool reached;
  } kCases[] = {
      {"all of it", 0x100, 4, true},
      {"below", 0xff, 1, false},
      {"above", 0x104, 1, false},
      {"starts below", 0xff, 2, false},
      {"leaves the range", 0x102, 4, false},
      {"wraps", kMax, 2, false},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    std::array<std::byte, 4> data{};
    EXPECT_EQ(bus.Read(c.address, std::span(data).first(c.size)), c.reached);
    EXPECT_EQ(data[0], c.reached ? std::byte{0x42} : std::byte{0xff});
    EXPECT_EQ(bus.Write(c.address, std::span(data).first(c.size)), c.reached);
  }
  EXPECT_EQ(device.offsets, (std::vector<std::uint64_t>{0, 0}));
}

TEST(Bus, ListsItsRangesInAscendingOrder) {
  Bus bus;
  Recorder a("a");
  Recorder b("b");
  ASSERT_TRUE(bus.Map(0x200, 2, b));
  ASSERT_TRUE(bus.Map(0x100, 1, a));
  std::string list;
  bus.ForEach([&](std::uint64_t base, std::uint64_t size, const BusDevice& device) {
    list +=
        std::string(device.name()) + ' ' + std::to_string(base) + '+' + std::to_string(size) + ' ';
  });
  EXPECT_EQ(list, "a 256+1 b 512+2 ");
}

TEST(Bus, LetsAnAccessHangOverIntoANeighbourWhereThatIsSaid) {
  Bus bus;
  Recorder wide("wide");
  Recorder inside("inside");
  ASSERT_TRUE(bus.Map(0xcf8, 1, wide, 0, /*overhang=*/3));
  ASSERT_TRUE(bus.Map(0xcf9, 1, inside));
  std::array<std::byte, 4> data{};
  EXPECT_TRUE(bus.Write(0xcf8, data));
  EXPECT_TRUE(bus.Write(0xcf9, std::span(data).first(1)));
  EXPECT_FALSE(bus.Write(0xcf9, data)) << "only the first range may";
  EXPECT_FALSE(bus.Write(0xcfa, std::span(data).first(1))) << "an access starts in a range";
  EXPECT_EQ(wide.offsets, std::vector<std::uint64_t>{0});
  EXPECT_EQ(inside.offsets, std::vector<std::uint64_t>{0});
}

// Moves its own range with each write, as a BAR does.
class Mover final : public BusDevice {
 public:
  explicit Mover(Bus& bus, std::uint64_t first) : bus_(bus), here_(first) {}
  std::string_view name() const noexcept override { return "mover"; }
  void Read(std::uint64_t /*offset*/, std::span<std::byte> data) noexcept override {
    std::ranges::fill(data, std::byte{0x42});
  }
  void Write(std::uint64_t /*offset*/, std::span<const std::byte> /*data*/) noexcept override {
    EXPECT_TRUE(bus_.Unmap(here_));
    here_ ^= 0x1000;
    EXPECT_TRUE(bus_.Map(here_, 0x100, *this));
  }
  void Reset() noexcept override {}

 private:
  Bus& bus_;
  std::uint64_t here_;
};

TEST(Bus, LetsRangesMoveWhileOthersAreRead) {
  constexpr int kMoves = 2000;
  Bus bus;
  Mover mover(bus, 0x10000);
  Recorder still("still");
  ASSERT_TRUE(bus.Map(0x10000, 0x100, mover));
  ASSERT_TRUE(bus.Map(0x20000, 0x100, still));
  std::atomic<bool> end = false;
  std::thread reader([&] {
    std::array<std::byte, 4> data{};
    while (!end) {
      const bool there = bus.Read(0x10010, data);
      EXPECT_EQ(data[0], there ? std::byte{0x42} : std::byte{0xff});
    }
  });
  std::array<std::byte, 4> data{};
  for (int i = 0; i < kMoves; ++i) {
    EXPECT_TRUE(bus.Write(i % 2 == 0 ? 0x10000 : 0x11000, data));
    EXPECT_TRUE(bus.Read(0x20000, data));
  }
  end = true;
  reader.join();
  EXPECT_FALSE(bus.Unmap(0x11000));
  EXPECT_TRUE(bus.Unmap(0x10000));
  EXPECT_FALSE(bus.Read(0x10000, data));
}

}  // namespace
}  // namespace holdfast::devices
