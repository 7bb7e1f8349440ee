// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/function.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <map>
#include <vector>

#include "devices/pci/config_regs.h"
#include "devices/pci/test_services.h"

namespace holdfast::devices::pci {
namespace {

using testing::FakeServices;

constexpr std::uint32_t kTable = 0x2000;
constexpr std::uint32_t kPending = 0x3000;

class Sample final : public Function {
 public:
  explicit Sample(PciServices& services)
      : Function(services, {.vendor = 0x1234, .device = 0x5678, .class_code = 0x010203}) {
    AddBar(0, BarKind::kMemory32, 0x4000);
    AddBar(1, BarKind::kIo, 0x20);
    AddBar(2, BarKind::kMemory64Prefetchable, 1ULL << 33);
    express = AddExpressCapability(kExpressEndpoint);
    EXPECT_TRUE(AddMsix(3, 0, kTable, kPending));
  }
  std::string_view name() const noexcept override { return "sample"; }
  void ReadBar(unsigned bar, std::uint64_t offset, std::span<std::byte> data) noexcept override {
    reads.push_back({bar, offset});
    std::ranges::fill(data, std::byte{0x11});
  }
  void OnBarMoved(unsigned bar, std::optional<GuestAddress> where) noexcept override {
    moves[bar] = where;
  }
  using Function::AddMsix;
  using Function::bus_master;
  using Function::MsixEventFd;
  using Function::PokeConfig;
  using Function::SetIntx;
  using Function::TriggerMsix;

  std::uint16_t express = 0;
  std::vector<std::pair<unsigned, std::uint64_t>> reads;
  std::map<unsigned, std::optional<GuestAddress>> moves;
};

class PciFunction : public ::testing::Test {
 protected:
  void Enable(std::uint32_t command) { function_.WriteConfig(kRegCommand, 2, command); }
  std::uint16_t MsixCapability() {
    std::uint32_t at = function_.ReadConfig(kRegCapabilities, 1);
    for (int i = 0; i < 48 && at != 0; ++i) {
      const auto offset = static_cast<std::uint16_t>(at);
      if (function_.ReadConfig(offset, 1) == kCapMsix) return offset;
      at = function_.ReadConfig(static_cast<std::uint16_t>(offset + 1), 1);
    }
    return 0;
  }
  void Control(std::uint32_t value) {
    function_.WriteConfig(static_cast<std::uint16_t>(MsixCapability() + 2), 2, value);
  }
  std::uint32_t Word(std::uint64_t offset) {
    std::array<std::byte, 4> data{};
    function_.AccessReadBar(0, offset, data);
    std::uint32_t value = 0;
    std::memcpy(&value, data.data(), sizeof value);
    return value;
  }
  void SetWord(std::uint64_t offset, std::uint32_t value) {
    function_.AccessWriteBar(0, offset, std::as_bytes(std::span(&value, 1)));
  }
  // Fills in the vector's message and lets it through.
  void Open(unsigned vector) {
    SetWord(kTable + 16 * vector, 0xfee00000);
    SetWord(kTable + 16 * vector + 8, 0x40 + vector);
    SetWord(kTable + 16 * vector + 12, 0);
  }

  FakeServices services_;
  Sample function_{services_};
};

TEST_F(PciFunction, ShowsItsIdentityAndRefusesWritesToIt) {
  for (const std::uint32_t ones : {0U, ~0U}) {
    for (std::uint16_t offset = 0; offset < 16; offset = static_cast<std::uint16_t>(offset + 4)) {
      if (offset != kRegCommand) function_.WriteConfig(offset, 4, ones);
    }
    EXPECT_EQ(function_.ReadConfig(kRegVendor, 4), 0x56781234U);
    EXPECT_EQ(function_.ReadConfig(kRegRevision, 4), 0x01020300U);
    EXPECT_EQ(function_.ReadConfig(kRegInterruptPin, 1), 1U);
  }
  EXPECT_NE(function_.ReadConfig(kRegStatus, 2) & kStatusCapabilities, 0U);
}

TEST_F(PciFunction, AnswersCrookedAccessesWithAllOnes) {
  const struct {
    std::uint16_t offset;
    unsigned size;
  } kCases[] = {{1, 2}, {2, 4}, {0, 3}, {0, 8}, {0, 0}, {4095, 2}, {4096, 1}, {0xfffe, 2}};
  for (const auto& c : kCases) {
    EXPECT_EQ(function_.ReadConfig(c.offset, c.size), 0xffffffffU) << c.offset << " " << c.size;
    function_.WriteConfig(c.offset, c.size, 0xffffffff);
  }
  EXPECT_EQ(function_.ReadConfig(kRegVendor, 4), 0x56781234U);
  EXPECT_EQ(function_.ReadConfig(4092, 4), 0U) << "the last word is an ordinary one";
}

TEST_F(PciFunction, TellsTheSizesOfItsBarsToWhoAsksWithAllOnes) {
  const std::uint32_t kWanted[] = {0xffffc000, 0xffffffe1, 0x0000000c, 0xfffffffe, 0, 0};
  for (std::uint16_t i = 0; i < 6; ++i) {
    const auto reg = static_cast<std::uint16_t>(kRegBar0 + 4 * i);
    function_.WriteConfig(reg, 4, 0xffffffff);
    EXPECT_EQ(function_.ReadConfig(reg, 4), kWanted[i]) << i;
  }
  Enable(kCommandMemory | kCommandIo);
  EXPECT_TRUE(function_.moves.empty()) << "a question is no place";
}

TEST_F(PciFunction, DecodesABarWhereAndWhileTheGuestSaysSo) {
  function_.PlaceBar(0, GuestAddress(0xc0000000));
  function_.PlaceBar(1, GuestAddress(0x1000));
  function_.PlaceBar(2, GuestAddress(0x800000000));
  EXPECT_TRUE(function_.moves.empty());
  Enable(kCommandMemory);
  EXPECT_EQ(function_.moves[0], GuestAddress(0xc0000000));
  EXPECT_EQ(function_.moves[2], GuestAddress(0x800000000));
  EXPECT_FALSE(function_.bar(1).where);
  Enable(kCommandMemory | kCommandIo);
  EXPECT_EQ(function_.moves[1], GuestAddress(0x1000));
  function_.WriteConfig(kRegBar0, 4, 0xd0001234);
  EXPECT_EQ(function_.bar(0).where, GuestAddress(0xd0000000)) << "rounded down to the size";
  function_.WriteConfig(kRegBar0, 4, 0);
  EXPECT_EQ(function_.moves[0], std::nullopt) << "0 is nowhere";
  function_.Reset();
  EXPECT_EQ(function_.moves[1], std::nullopt);
  EXPECT_EQ(function_.ReadConfig(kRegCommand, 2), 0U);
  EXPECT_EQ(function_.ReadConfig(kRegBar0 + 8, 4), 0xcU);
}

TEST_F(PciFunction, SendsAVectorOnlyWhenEverySwitchIsOn) {
  Open(1);
  EXPECT_FALSE(function_.TriggerMsix(1)) << "MSI-X is off: use INTx";
  Control(kMsixEnable);
  EXPECT_TRUE(function_.TriggerMsix(1)) << "lost: no bus master";
  Enable(kCommandMaster);
  EXPECT_FALSE(function_.TriggerMsix(3)) << "no such vector";
  ASSERT_EQ(services_.routes().size(), 1U) << "only what is used costs anything";
  auto& route = *services_.routes()[0];
  EXPECT_EQ(route.message(), (MsiMessage{.address = 0xfee00000, .data = 0x41}));
  EXPECT_EQ(route.TakeDelivered(), 0U);
  EXPECT_TRUE(function_.TriggerMsix(1));
  EXPECT_EQ(route.TakeDelivered(), 1U);

  // Masked in either way it waits and shows as pending.
  const auto mask_vector = [this](bool on) { SetWord(kTable + 16 + 12, on ? 1 : 0); };
  const auto mask_all = [this](bool on) { Control(kMsixEnable | (on ? kMsixFunctionMask : 0U)); };
  for (int way = 0; way < 2; ++way) {
    SCOPED_TRACE(way);
    way == 0 ? mask_vector(true) : mask_all(true);
    EXPECT_FALSE(route.connected());
    EXPECT_EQ(Word(kPending), 0U);
    EXPECT_TRUE(function_.TriggerMsix(1));
    EXPECT_EQ(Word(kPending), 2U);
    way == 0 ? mask_vector(false) : mask_all(false);
    EXPECT_EQ(route.TakeDelivered(), 1U);
    EXPECT_EQ(Word(kPending), 0U);
  }
  // What waits does not survive a reset.
  mask_all(true);
  EXPECT_TRUE(function_.TriggerMsix(1));
  function_.Reset();
  Enable(kCommandMaster);
  Open(1);
  Control(kMsixEnable);
  EXPECT_EQ(route.TakeDelivered(), 0U);
}

TEST_F(PciFunction, KeepsMsixPartsFromTheDevice) {
  EXPECT_EQ(Word(0x1ffc), 0x11111111U);
  EXPECT_EQ(Word(kTable + 12), 1U) << "masked at power-on";
  EXPECT_EQ(Word(kTable + 48), 0x11111111U) << "just behind the table";
  EXPECT_EQ(function_.reads.size(), 2U);
  // Eight bytes at once, and what may not be.
  const std::uint64_t address = 0x1122334455667788;
  function_.AccessWriteBar(0, kTable, std::as_bytes(std::span(&address, 1)));
  EXPECT_EQ(Word(kTable + 4), 0x11223344U);
  const std::uint16_t half = 0xffff;
  function_.AccessWriteBar(0, kTable, std::as_bytes(std::span(&half, 1)));
  EXPECT_EQ(Word(kTable), 0x55667788U);
  std::array<std::byte, 1> byte{};
  function_.AccessReadBar(0, kTable + 1, byte);
  EXPECT_EQ(byte[0], std::byte{0xff});
}

TEST_F(PciFunction, GivesOutEventfdsThatStay) {
  const auto before = function_.MsixEventFd(2);
  ASSERT_TRUE(before);
  Open(2);
  Control(kMsixEnable);
  const auto after = function_.MsixEventFd(2);
  ASSERT_TRUE(after);
  EXPECT_EQ(*before, *after);
  ::eventfd_write(*after, 1);
  EXPECT_EQ(services_.routes()[0]->TakeDelivered(), 1U);
  EXPECT_FALSE(function_.MsixEventFd(3));
}

TEST_F(PciFunction, RefusesMsixThatDoesNotFitItsBar) {
  const struct {
    unsigned vectors, bar;
    std::uint32_t table, pending;
  } kCases[] = {{0, 0, 0, 0x1000},     {2049, 2, 0, 0x10000},  {4, 0, 0x3fd0, 0}, {4, 0, 0, 0x3ffc},
                {4, 0, 0, 0x3ff9},     {4, 0, 0, 0x38},        {4, 6, 0, 0x1000}, {4, 5, 0, 0x1000},
                {4, 0, 0xfffffff8, 0}, {4, 0, 0x1000, 0x4000}, {4, 1, 0, 0x10}};
  for (const auto& c : kCases) {
    Sample fresh(services_);
    EXPECT_FALSE(fresh.AddMsix(c.vectors, c.bar, c.table, c.pending)) << c.vectors << c.bar;
  }
}

TEST_F(PciFunction, RaisesItsLineUnlessTheGuestForbidsIt) {
  bool line = false;
  function_.set_intx([&](bool level) { line = level; });
  function_.SetIntx(true);
  EXPECT_TRUE(line);
  EXPECT_NE(function_.ReadConfig(kRegStatus, 2) & kStatusInterrupt, 0U);
  Enable(kCommandIntxDisable);
  EXPECT_FALSE(line);
  EXPECT_NE(function_.ReadConfig(kRegStatus, 2) & kStatusInterrupt, 0U) << "still wanted";
  Enable(0);
  EXPECT_TRUE(line);
  function_.Reset();
  EXPECT_FALSE(line);
  EXPECT_EQ(function_.ReadConfig(kRegStatus, 2) & kStatusInterrupt, 0U);
}

}  // namespace
}  // namespace holdfast::devices::pci
